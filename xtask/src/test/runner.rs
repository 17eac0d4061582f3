//! Runs one test runner, shows what it prints as it prints it, and counts what passed and failed.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result};

/// Tests counted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed_count: u64,
    pub failed_count: u64,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.passed_count += other.passed_count;
        self.failed_count += other.failed_count;
    }
}

/// What a runner did: its count, and how it ended.
pub struct Ran {
    pub tally: Tally,
    pub status: ExitStatus,
}

pub fn counted(mut command: Command) -> Result<Ran> {
    if std::io::stdout().is_terminal() {
        // It writes into our pipe and would think nobody looks.
        command.env("CARGO_TERM_COLOR", "always");
    }
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{program} could not be started"))?;
    let stdout = child.stdout.take().expect("piped above");
    let stderr = child.stderr.take().expect("piped above");
    let errors = thread::spawn(move || follow(stderr));
    let mut tally = follow(stdout);
    tally.add(errors.join().expect("following a pipe does not panic"));
    Ok(Ran { tally, status: child.wait()? })
}

/// Both pipes go to stdout, so that a log keeps their order.
fn follow(pipe: impl Read) -> Tally {
    let mut tally = Tally::default();
    for line in BufReader::new(pipe).split(b'\n') {
        let Ok(line) = line else { break };
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: the tests still run to their end.
        let _ = out.write_all(&line).and_then(|()| out.write_all(b"\n"));
        tally.add(tally_of_line(&String::from_utf8_lossy(&line)));
    }
    tally
}

/// The summary lines of cargo test, nextest and forge; every other line counts nothing.
fn tally_of_line(line: &str) -> Tally {
    let plain = without_colours(line);
    // Only at the line's start: what nextest quotes from a failed test is indented, and counted by nextest itself.
    if let Some(rest) = plain.strip_prefix("test result: ") {
        let after = rest.split_once(". ").map_or("", |(_, counts)| counts);
        return tally_of_counts(after.split(';'));
    }
    let plain = plain.trim();
    if let Some((_, counts)) = plain.split_once(" run: ").filter(|_| plain.starts_with("Summary [")) {
        return tally_of_counts(counts.split(','));
    }
    if plain.starts_with("Ran ") && plain.contains(" test suite") {
        return plain
            .rsplit_once(": ")
            .map_or(Tally::default(), |(_, counts)| tally_of_counts(counts.split(',')));
    }
    Tally::default()
}

/// `12 passed (1 flaky)`, `22 tests passed`, `1 failed`, `1 timed out`, `1 exec failed`, `3 skipped`.
fn tally_of_counts<'line>(parts: impl Iterator<Item = &'line str>) -> Tally {
    let mut tally = Tally::default();
    for part in parts {
        let Some((number, what)) = part.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        let what = what.strip_prefix("tests ").unwrap_or(what);
        if what.starts_with("passed") {
            tally.passed_count += number;
        } else if ["failed", "timed out", "exec failed"].iter().any(|kind| what.starts_with(kind)) {
            tally.failed_count += number;
        }
    }
    tally
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // An escape ends with its first letter.
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_as_the_runners_print_them() {
        let check = |line: &str, passed_count, failed_count| {
            assert_eq!(tally_of_line(line), Tally { passed_count, failed_count }, "{line}");
        };
        check(
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            5,
            0,
        );
        check("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", 4, 2);
        check("     Summary [   0.005s] 12 tests run: 12 passed, 0 skipped", 12, 0);
        check("     Summary [   9.1s] 1 test run: 1 passed (1 slow), 3 skipped", 1, 0);
        check("  Summary [ 1.0s] 3/12 tests run: 1 passed, 1 failed, 1 timed out, 9 skipped", 1, 2);
        check(
            "\u{1b}[32;1m     Summary\u{1b}[0m [ 0.1s] \u{1b}[1m2\u{1b}[0m tests run: \u{1b}[1m2\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, 0 skipped",
            2,
            0,
        );
        check(
            "Ran 3 test suites in 12.02ms (20ms CPU time): 22 tests passed, 1 failed, 0 skipped (23 total tests)",
            22,
            1,
        );
        check("Suite result: ok. 5 passed; 0 failed; 0 skipped; finished in 1ms", 0, 0);
        check("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out", 0, 0);
        check("running 5 tests", 0, 0);
    }
}
