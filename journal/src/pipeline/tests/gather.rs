//! Waiting a moment for those who were just answered.

use super::*;

/// Serving; three were just answered, one came meanwhile and waits.
fn three_answered_one_waits() -> Bench {
    let mut bench = Bench::serving();
    bench.pipeline.options.gather_us = GATHER_US;
    bench.send((1..=3).map(|n| (n, open(n, n))));
    bench.send([(4, open(4, 4))]);
    bench.ack();
    assert_eq!(bench.tickets(), [1, 2, 3], "answers do not wait");
    bench
}

/// The moment's timer runs out.
fn time_is_up(bench: &mut Bench) {
    let timer = *bench.timers.last().expect("a moment is waited for");
    assert!(bench.pipeline.awaits(timer));
    bench.step(Input::TimedOut { timer });
}

#[test]
fn who_was_answered_and_asks_again_at_once_shares_the_next_commit() {
    let mut bench = three_answered_one_waits();
    assert!(bench.publish.is_none(), "it waits a moment");
    bench.send([(5, open(5, 5)), (6, open(6, 6))]);
    assert!(bench.publish.is_none(), "one of the three may still come");
    bench.send([(7, open(7, 7))]);
    let position = bench.publish.as_ref().expect("all that were hoped for are there").1;
    assert_eq!(position.leaf - bench.committed.last().unwrap().leaf, 4);
    bench.ack();
    assert_eq!(bench.tickets(), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn when_the_moment_is_over_it_goes_on_without_them() {
    let mut bench = three_answered_one_waits();
    time_is_up(&mut bench);
    bench.ack();
    assert_eq!(bench.tickets(), [1, 2, 3, 4]);
}

#[test]
fn it_is_given_up_for_a_while_when_nobody_comes() {
    let mut bench = three_answered_one_waits();
    time_is_up(&mut bench);
    let mut waited = 0;
    for next in 5..25 {
        bench.send([(next, open(next, next))]);
        bench.ack();
        if bench.publish.is_none() {
            waited += 1;
            time_is_up(&mut bench);
        }
    }
    assert!((1..=4).contains(&waited), "{waited} of 20 occasions");
}

#[test]
fn nobody_waits_for_a_lonely_caller() {
    let mut bench = Bench::serving();
    bench.pipeline.options.gather_us = GATHER_US;
    let timers = bench.timers.len();
    for n in 1..=5 {
        bench.send([(n, open(n, n))]);
        assert!(bench.publish.is_some());
        bench.ack();
    }
    // Each publish has its own patience; no other timer.
    assert_eq!(bench.timers.len(), timers + 5);
}

#[test]
fn draining_ends_the_wait() {
    let mut bench = three_answered_one_waits();
    bench.step(Input::Shutdown);
    bench.ack();
    assert_eq!(bench.tickets(), [1, 2, 3, 4]);
    assert_eq!(bench.stopped, Some(StopReason::Closed));
}
