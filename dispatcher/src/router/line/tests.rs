//! Lanes before accounts, accounts before time, nobody for ever last; and figures that can be checked by hand.

use super::*;

const S: u64 = 1_000_000;

fn account(n: u8) -> AccountId {
    AccountId([n; 16])
}

fn asks(lane: Lane, n: u8) -> Waiting {
    Waiting { lane, account: account(n), input_units: 100, output_units_max: 50 }
}

#[test]
fn the_dedicated_lane_goes_first_and_nobody_starves() {
    let mut line = Line::default();
    let included = line.enter(asks(Lane::Included, 1), 0).unwrap();
    let prepaid = line.enter(asks(Lane::Prepaid, 2), 0).unwrap();
    let dedicated = line.enter(asks(Lane::Dedicated, 3), S).unwrap();
    assert_eq!(line.first(S), Some(dedicated));
    line.leave(dedicated);
    assert_eq!(line.first(S), Some(prepaid));
    assert_eq!(line.first(5 * S), Some(included), "after five seconds all are equal, and it came first");
    assert!(!line.is_free_for(None, S) && line.is_free_for(Some(prepaid), S));
}

#[test]
fn a_crowd_of_one_account_does_not_stand_before_another_account() {
    let mut line = Line::default();
    for _ in 0..20 {
        line.enter(asks(Lane::Prepaid, 1), 0).unwrap();
    }
    line.serve(line.first(0), asks(Lane::Prepaid, 1), 0);
    let other = line.enter(asks(Lane::Prepaid, 2), 0).unwrap();
    let turns = turns(&mut line, 6);
    assert_eq!(
        turns[1], other,
        "not behind the nineteen that came before: equal first, then it has had less"
    );
    let mut served = [0u32; 3];
    for n in [1, 2] {
        for _ in 0..20 {
            let _ = line.enter(asks(Lane::Prepaid, n), 0);
        }
    }
    for _ in 0..20 {
        let ticket = line.first(0).unwrap();
        let entry = *line.entries.iter().find(|e| e.ticket == ticket).unwrap();
        served[entry.waiting.account.0[0] as usize] += 1;
        line.serve(Some(ticket), entry.waiting, 0);
    }
    assert!(served[1].abs_diff(served[2]) <= 6, "equal shares from here on: {served:?}");
}

#[test]
fn who_stayed_away_has_saved_nothing() {
    let mut line = Line::default();
    line.serve(None, asks(Lane::Prepaid, 2), 0);
    for _ in 0..10 {
        line.serve(None, asks(Lane::Prepaid, 1), 0);
    }
    line.enter(asks(Lane::Prepaid, 1), 0).unwrap();
    line.enter(asks(Lane::Prepaid, 2), 0).unwrap();
    assert_eq!(line.served[&account(1)], 2_000);
    assert_eq!(line.served[&account(2)], 2_000, "lifted to the least of those who wait, not 200");
}

#[test]
fn what_was_reserved_and_not_used_is_given_back() {
    let mut line = Line::default();
    line.serve(None, asks(Lane::Prepaid, 1), 0);
    assert_eq!(line.served[&account(1)], 200);
    line.settle(account(1), 50, 10);
    assert_eq!(line.served[&account(1)], 120);
}

#[test]
fn a_full_line_says_honestly_when_to_come_again() {
    let mut line = Line::default();
    for second in 0..10 {
        for _ in 0..8 {
            line.serve(None, asks(Lane::Prepaid, 9), second * S);
        }
    }
    for n in 0..WAITING_MAX[1] {
        line.enter(asks(Lane::Prepaid, n as u8), 9 * S).unwrap();
    }
    let refused = line.enter(asks(Lane::Prepaid, 1), 9 * S).unwrap_err();
    assert_eq!(refused.retry_after_s, 30, "256 at 8 a second are 32 seconds, of which 30 are told");
    assert!(line.enter(asks(Lane::Dedicated, 1), 9 * S).is_ok(), "another lane has its own line");
    line.entries.truncate(40);
    assert_eq!(line.retry_after_s(9 * S), 5);
    line.entries.clear();
    assert_eq!(line.retry_after_s(9 * S), 2);
}

fn turns(line: &mut Line, count: usize) -> Vec<Ticket> {
    (0..count)
        .map(|_| {
            let ticket = line.first(0).unwrap();
            let entry = *line.entries.iter().find(|e| e.ticket == ticket).unwrap();
            line.serve(Some(ticket), entry.waiting, 0);
            ticket
        })
        .collect()
}
