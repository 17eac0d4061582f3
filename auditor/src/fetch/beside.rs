//! What belongs to a log without being in it: receipts, commits, sealed contents. All of it is checked against the log
//! later; here it is only taken, page by page, from where the last fetch ended.

use super::source::Origin;
use super::{Beside, write};
use crate::checks::CheckKind;
use crate::commits::CommitLine;
use crate::error::AuditError;
use data_encoding::BASE64;
use protocol::id::JobId;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Lines asked for at once.
const RECEIPTS_PER_PAGE: usize = 1000;
/// Commits asked for at once; each may be a mebibyte.
const COMMITS_PER_PAGE: usize = 16;

/// Where the last fetch ended; `cursor.json` in the copy.
#[derive(Default, Serialize, Deserialize)]
struct Cursor {
    /// Leaf of the last charge whose receipt was taken.
    receipts_after: Option<u64>,
    /// Number of the next commit.
    commits_from: Option<u64>,
}

/// One line of `/v1/audit/receipts`.
#[derive(Deserialize)]
struct ReceiptLine {
    /// Leaf of the charge.
    leaf: u64,
    job: JobId,
    /// The signed receipt's bytes, base64.
    receipt: String,
}

/// Takes what is wanted. Gives what the source does not offer, by the check that will miss it.
pub(super) fn take(
    origin: &Origin,
    directory: &Path,
    beside: Beside,
) -> Result<Vec<(CheckKind, String)>, AuditError> {
    let mut missing = Vec::new();
    if beside == Beside::Nothing {
        return Ok(missing);
    }
    let path = directory.join("cursor.json");
    let cursor = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut cursor: Cursor = cursor.unwrap_or_default();
    let contents = beside == Beside::Contents;
    if !receipts(origin, directory, &mut cursor, contents)? {
        missing.push((CheckKind::ReceiptSignatures, "the source offers no receipts".to_owned()));
    }
    if !commits(origin, directory, &mut cursor)? {
        missing.push((CheckKind::Commits, "the source offers no commits".to_owned()));
    }
    let text = serde_json::to_vec(&cursor).expect("a cursor is always JSON");
    write(&path, &text)?;
    Ok(missing)
}

fn not_understood(path: &str, error: impl std::fmt::Display) -> AuditError {
    AuditError::Source { url: path.to_owned(), reason: format!("a line is not understood: {error}") }
}

/// Takes receipts in the order of their charges' leaves; `false` when there is no such endpoint.
fn receipts(
    origin: &Origin,
    directory: &Path,
    cursor: &mut Cursor,
    contents: bool,
) -> Result<bool, AuditError> {
    loop {
        let after = cursor.receipts_after.map(|leaf| format!("after={leaf}&")).unwrap_or_default();
        let path = format!("v1/audit/receipts?{after}limit={RECEIPTS_PER_PAGE}");
        let Some(page) = origin.optional(&path)? else { return Ok(false) };
        std::fs::create_dir_all(directory.join("receipts"))
            .map_err(|e| AuditError::file(&directory.join("receipts"), e))?;
        let mut count = 0;
        for line in page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: ReceiptLine = serde_json::from_slice(line).map_err(|e| not_understood(&path, e))?;
            let bytes = BASE64.decode(line.receipt.as_bytes()).map_err(|e| not_understood(&path, e))?;
            write(&directory.join("receipts").join(format!("{}.cbor", line.job)), &bytes)?;
            if contents {
                take_contents(origin, directory, &line.job)?;
            }
            if cursor.receipts_after.is_some_and(|after| line.leaf <= after) {
                return Err(not_understood(&path, "leaves do not grow"));
            }
            cursor.receipts_after = Some(line.leaf);
            count += 1;
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn take_contents(origin: &Origin, directory: &Path, job: &JobId) -> Result<(), AuditError> {
    let file = directory.join("contents").join(format!("{job}.sealed"));
    if !file.is_file()
        && let Some(bytes) = origin.optional(&format!("v1/audit/contents/{job}"))?
    {
        write(&file, &bytes)?;
    }
    Ok(())
}

/// Takes commits from where the last fetch ended; `false` when there is no such endpoint.
fn commits(origin: &Origin, directory: &Path, cursor: &mut Cursor) -> Result<bool, AuditError> {
    loop {
        let from = cursor.commits_from.unwrap_or(1);
        let path = format!("v1/audit/commits?from={from}&limit={COMMITS_PER_PAGE}");
        let Some(page) = origin.optional(&path)? else { return Ok(false) };
        let mut next = from;
        for line in page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: CommitLine = serde_json::from_slice(line).map_err(|e| not_understood(&path, e))?;
            if line.number != next {
                return Err(not_understood(
                    &path,
                    format!("commit {} where {next} was expected", line.number),
                ));
            }
            next += 1;
        }
        if next == from {
            return Ok(true);
        }
        write(&directory.join("commits").join(format!("{from}.ndjson")), &page)?;
        cursor.commits_from = Some(next);
    }
}
