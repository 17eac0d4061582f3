//! How fast a long log is replayed. Not run by default: `cargo test -p auditor --test audit -- --ignored --nocapture speed`.

use crate::credit::{Told, charge, hold_for};
use crate::story::*;
use protocol::event::{EventBody, GrantId};
use protocol::id::{HoldId, JobId};
use std::time::Instant;

/// Prompts of the log; three events each.
const PROMPTS: u64 = 100_000;

/// What this thread spent on a processor, also on a busy machine.
fn thread_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number")
}

#[test]
#[ignore = "a measurement"]
fn a_long_log_replays() {
    let mut story = funded();
    let of = [(GrantId(0), 20_005)];
    let (mut gross, mut paid) = (0, 0);
    for n in 0..PROMPTS {
        let at = hold_for(&mut story, 0, 5, 5, &of, None);
        gross += 18_005;
        let share = gross * 8 / 10 - paid;
        paid += share;
        let told = Told {
            job: 0,
            input: 5,
            output: 4,
            counted: 4,
            slices: &[(GrantId(0), 18_005)],
            released: &of,
            part: None,
            beyond: None,
            share,
        };
        charge(&mut story, &told);
        let mut id = [100; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        for event in &mut story.events[at..] {
            event.header.time_us = START_US + n;
            match &mut event.body {
                EventBody::HoldPlaced(e) => (e.job, e.hold) = (JobId(id), HoldId(id)),
                EventBody::JobDispatched(e) => e.job = JobId(id),
                EventBody::UsageCaptured(e) => (e.job, e.hold) = (JobId(id), HoldId(id)),
                _ => {}
            }
        }
    }
    let first_us = story.events[story.find("hold_placed", 0)].header.time_us;
    story.events.iter_mut().for_each(|event| event.header.time_us = event.header.time_us.min(first_us));
    let directory = tempfile::tempdir().unwrap();
    story.write(directory.path());
    let (begin, judging) = (Instant::now(), thread_cpu_ns());
    let report = replay_of(directory.path());
    let seconds = begin.elapsed().as_secs_f64();
    assert_eq!(report.exit_code, 0, "{:?}", report.first_divergence);
    let (events, bytes) = (report.events, story.events.len());
    let judged = events as f64 * 1e9 / (thread_cpu_ns() - judging) as f64;
    println!(
        "{judged:.0} events/s of the judging thread's own time; the other one reads, hashes and decodes"
    );
    println!("{events} events in {seconds:.2} s: {:.0} events/s ({bytes} told)", events as f64 / seconds);
}
