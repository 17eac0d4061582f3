//! The loop: take an entry, change it, try it; keep what was answered in a new way; save what broke. Must not: know the
//! targets.

use crate::mutate::{Dice, mutate};
use crate::targets::Target;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Entries that a run keeps; the oldest found ones make room.
const KEPT_MAX: usize = 4_096;
/// One input may take so long, on a busy machine; longer is a finding.
const INPUT_WAIT: Duration = Duration::from_secs(10);

/// When a hunt ends.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// Where chance begins.
    pub seed: u64,
    /// At most so many inputs.
    pub inputs: u64,
    /// At most so long.
    pub time: Duration,
}

/// What a hunt brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Inputs tried.
    pub inputs: u64,
    /// Different answers.
    pub answers: usize,
}

/// An input that broke something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The target's name.
    pub target: &'static str,
    /// What broke.
    pub what: String,
    /// The input.
    pub input: Vec<u8>,
}

/// Tries the corpus, then changed entries, until the end or the first finding.
pub fn hunt(target: &Target, hunt: Hunt) -> Result<Tally, Box<Finding>> {
    let begun = Instant::now();
    let mut dice = Dice::new(hunt.seed);
    let mut entries = (target.corpus)();
    let fixed = entries.len();
    let mut answers = HashSet::new();
    let mut tally = Tally { inputs: 0, answers: 0 };
    for entry in &entries {
        answers.insert(try_one(target, entry)?);
        tally.inputs += 1;
    }
    while tally.inputs < hunt.inputs && begun.elapsed() < hunt.time {
        let (one, other) = (dice.below(entries.len()), dice.below(entries.len()));
        let input = mutate(&entries[one], &entries[other], &mut dice);
        let answer = try_one(target, &input)?;
        tally.inputs += 1;
        if answers.insert(answer) {
            if entries.len() == KEPT_MAX {
                entries.remove(fixed);
            }
            entries.push(input);
        }
    }
    tally.answers = answers.len();
    Ok(tally)
}

/// One input; the answer in words without numbers.
pub fn try_one(target: &Target, input: &[u8]) -> Result<String, Box<Finding>> {
    let begun = Instant::now();
    let finding = |what: String| Box::new(Finding { target: target.name, what, input: input.to_vec() });
    let tried = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    if begun.elapsed() > INPUT_WAIT {
        return Err(finding(format!("it took {:?}", begun.elapsed())));
    }
    match tried {
        Ok(Ok(())) => Ok("taken".to_owned()),
        Ok(Err(refused)) => Ok(shape(&refused)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(finding(text.unwrap_or_else(|| "a panic without words".to_owned())))
        }
    }
}

/// Words that stay the same when only numbers and quoted input differ.
fn shape(text: &str) -> String {
    let mut quoted = false;
    let words = text.chars().take(400).filter(|c| {
        quoted ^= *c == '"';
        !quoted && !c.is_ascii_digit()
    });
    words.collect()
}
