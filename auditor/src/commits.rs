//! Commits, where a copy has them (an archive, or lines that were fetched): that each names the one before, and that
//! their events are the log's entries, byte for byte. A commit's hash fixes sampling keys, so `sample --reexecute` asks here.

use crate::checks::CheckKind;
use crate::copy::{CopyFault, LogCopy};
use crate::error::AuditError;
use crate::log::Walk;
use crate::report::Checks;
use protocol::codec;
use protocol::commit::{COMMIT_BYTES_MAX, Commit};
use protocol::id::Hash32;
use protocol::tile::TILE_WIDTH;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest line of a file of commits: base64 of the largest commit, and its frame.
pub(crate) const COMMIT_LINE_BYTES_MAX: u64 = (COMMIT_BYTES_MAX as u64) * 3 / 2 + 1024;

/// One line of `commits/<first>.ndjson`, and of `/v1/audit/commits`.
#[derive(Debug, Deserialize)]
pub(crate) struct CommitLine {
    pub(crate) number: u64,
    /// The commit's bytes, base64.
    pub(crate) bytes: String,
}

/// Goes through a copy's commits in order. The visitor's error ends it.
fn each(
    copy: &LogCopy,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), String>,
) -> Result<Result<u64, String>, AuditError> {
    let mut count = 0;
    if let Some(archive) = copy.archive() {
        for commit in archive.commits() {
            let visited = commit.map_err(|fault| fault.to_string());
            if let Err(error) = visited.and_then(|commit| visit(commit.commit.number, &commit.bytes)) {
                return Ok(Err(error));
            }
            count += 1;
        }
        return Ok(Ok(count));
    }
    for path in copy.commit_files()? {
        let file = std::fs::File::open(&path).map_err(|e| AuditError::file(&path, e))?;
        let mut reader = BufReader::new(file);
        loop {
            let mut line = String::new();
            let limited = reader.by_ref().take(COMMIT_LINE_BYTES_MAX).read_line(&mut line);
            if limited.map_err(|e| AuditError::file(&path, e))? == 0 {
                break;
            }
            if let Err(error) = parse(&line).and_then(|(number, bytes)| visit(number, &bytes)) {
                return Ok(Err(format!("{}: {error}", name(&path))));
            }
            count += 1;
        }
    }
    Ok(Ok(count))
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn parse(line: &str) -> Result<(u64, Vec<u8>), String> {
    let line: CommitLine = serde_json::from_str(line).map_err(|e| format!("not a commit's line: {e}"))?;
    let bytes = data_encoding::BASE64.decode(line.bytes.as_bytes());
    Ok((line.number, bytes.map_err(|e| format!("commit {}: not base64: {e}", line.number))?))
}

/// Checks all commits of a copy against the entries that were walked.
pub(crate) fn check(copy: &LogCopy, walk: &Walk<'_>, checks: &mut Checks) -> Result<(), AuditError> {
    if let Some(count) = walk.commits_read() {
        // The entries are the archive's own, and its reader follows the chain.
        checks.of(CheckKind::Commits).examined = count;
        return Ok(());
    }
    let size = walk.roots().size();
    let mut entries = Entries { copy, size, index: u64::MAX, bundle: Vec::new() };
    let (mut number, mut leaf, mut previous) = (0u64, 0u64, Hash32([0; 32]));
    let outcome = each(copy, |line_number, bytes| {
        if leaf >= size {
            // Newer than the checkpoint: for the next audit.
            return Ok(());
        }
        let commit: Commit = codec::decode("commit", bytes).map_err(|e| e.to_string())?;
        let fields = (commit.number, commit.first_leaf, commit.previous);
        if line_number != commit.number || fields != (number + 1, leaf, previous) {
            return Err(format!(
                "commit {} from leaf {} after {}; expected {} from leaf {leaf} after {previous}",
                commit.number,
                commit.first_leaf,
                commit.previous,
                number + 1
            ));
        }
        for event in &commit.events {
            let same = entries.at(leaf).map_err(|fault| fault.to_string())? == Some(event.as_slice());
            if !same {
                return Err(format!(
                    "commit {}: its event is not the log's entry at leaf {leaf}",
                    commit.number
                ));
            }
            leaf += 1;
        }
        (number, previous) = (commit.number, Commit::hash(bytes));
        Ok(())
    })?;
    let check = checks.of(CheckKind::Commits);
    check.examined = number;
    match outcome {
        Ok(0) => check.skip("no commits in this copy"),
        Ok(_) if leaf < size => check.inconclusive(format!("commits end at leaf {leaf} of {size}")),
        Ok(_) => {}
        Err(error) => {
            check.fail_because("commits that carry this log", error, "the commits are not the log's")
        }
    }
    Ok(())
}

/// Entries by leaf, a bundle at a time.
struct Entries<'a> {
    copy: &'a LogCopy,
    size: u64,
    index: u64,
    bundle: Vec<Vec<u8>>,
}

impl Entries<'_> {
    fn at(&mut self, leaf: u64) -> Result<Option<&[u8]>, CopyFault> {
        let index = leaf / TILE_WIDTH;
        if leaf < self.size && index != self.index {
            let width = (self.size - index * TILE_WIDTH).min(TILE_WIDTH);
            self.bundle = self.copy.bundle(index, width)?;
            self.index = index;
        }
        let found = self.bundle.get((leaf % TILE_WIDTH) as usize).filter(|_| leaf < self.size);
        Ok(found.map(Vec::as_slice))
    }
}

/// Hashes of the commits asked for, where the copy has them.
pub(crate) fn hashes(copy: &LogCopy, wanted: &[u64]) -> Result<BTreeMap<u64, Hash32>, AuditError> {
    let mut found = BTreeMap::new();
    let outcome = each(copy, |number, bytes| {
        if wanted.contains(&number) {
            found.insert(number, Commit::hash(bytes));
        }
        Ok(())
    })?;
    // A damaged file is the finding of `commits`; here it only means that hashes are missing.
    let _ = outcome;
    Ok(found)
}
