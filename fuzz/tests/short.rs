//! A short hunt of every target with fixed seeds: the same inputs every time, so that it never fails by chance. Long hunts:
//! `cargo xtask fuzz`.

use fuzz::hunt::{Hunt, try_one};
use fuzz::targets::{TARGETS, Target};
use fuzz::{corpus, hunt};
use std::time::Duration;

/// Inputs of one target.
const INPUTS: u64 = 1_500;

#[test]
fn nothing_breaks_and_what_broke_once_stays_mended() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(move || {
                let entries = (target.corpus)();
                assert!(
                    !entries.is_empty() && entries.iter().all(|entry| !entry.is_empty()),
                    "{}",
                    target.name
                );
                for input in corpus::findings(target.name) {
                    try_one(target, &input).unwrap_or_else(|finding| panic!("{finding:?}"));
                }
                let limits = Hunt { seed: 1, inputs: INPUTS, time: Duration::from_secs(600) };
                let tally = hunt(target, limits).unwrap_or_else(|finding| panic!("{finding:?}"));
                assert!(
                    tally.answers > 1,
                    "{}: only one answer to {} inputs: it reaches nothing",
                    target.name,
                    tally.inputs
                );
            });
        }
    });
}

/// The loop finds what is there to be found: three bytes in a row, a length that is believed, an answer that never comes.
#[test]
fn the_hunt_finds_what_is_planted() {
    fn planted(input: &[u8]) -> Result<(), String> {
        let Some((count, rest)) = input.split_first() else { return Err("empty".into()) };
        if rest.first() != Some(&b'C') {
            return Err("no C".into());
        }
        if rest.get(1) != Some(&b'F') {
            return Err("no F".into());
        }
        // The mistake: a length from the input as an index.
        let _ = rest[usize::from(*count)];
        Ok(())
    }
    let target = Target { name: "planted", corpus: || vec![b"\x02CxFyz".to_vec()], run: planted };
    let limits = Hunt { seed: 7, inputs: 200_000, time: Duration::from_secs(600) };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = hunt(&target, limits);
    std::panic::set_hook(hook);
    let finding = found.expect_err("the mistake is found");
    assert!(finding.what.contains("index out of bounds"), "{finding:?}");
    assert_eq!(hunt(&target, Hunt { inputs: 1, ..limits }).map(|tally| tally.inputs), Ok(1));
}
