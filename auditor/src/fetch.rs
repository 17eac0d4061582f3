//! `audit fetch`: mirrors a log and what belongs to it into a directory, and keeps every checkpoint it saw. A checkpoint
//! that is smaller than the last, or of another history, is refused; both are kept as evidence. Can be run again at any
//! time: it takes what is new.

mod beside;
mod source;

use crate::archive::Archive;
use crate::checks::CheckKind;
use crate::copy::LogCopy;
use crate::error::AuditError;
use crate::log::Walk;
use crate::note::{SignedCheckpoint, parse_policy};
use crate::report::{Checks, Report, Subject};
use crate::verify::add_input;
use protocol::checkpoint::Policy;
use protocol::tile::{Tile, tiles_between};
pub use source::FetchSource;
use source::Origin;
use std::path::{Path, PathBuf};

/// What to take besides the log itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// Nothing: enough for `verify` and `replay`.
    Nothing,
    /// Receipts and commits.
    Receipts,
    /// Receipts, commits and sealed contents: enough for `sample --reexecute`.
    Contents,
}

/// What to fetch, and whereto.
pub struct FetchOptions<'a> {
    /// Where from.
    pub source: FetchSource,
    /// Whereto.
    pub directory: PathBuf,
    /// The policy file, got from somebody other than the log's host; kept in the copy.
    pub policy: Option<PathBuf>,
    /// What besides the log.
    pub beside: Beside,
    /// Told after each file: files done, files in all.
    pub progress: Option<&'a dyn Fn(u64, u64)>,
}

/// Fetches. Never prints; an error means that the source did not answer.
pub fn fetch(options: &FetchOptions<'_>) -> Result<Report, AuditError> {
    let origin = Origin::open(&options.source);
    let mut report = Report::begin("fetch");
    let mut checks = Checks::default();
    let policy = keep_policy(options, &mut report)?;
    let note = newest(&origin, policy.as_ref())?;
    let Some(signed) = read_note(&note, policy.as_ref(), options, &mut checks)? else {
        return Ok(report.end(checks));
    };
    report.subject = Subject {
        origin: signed.checkpoint.origin.clone(),
        size: signed.checkpoint.size,
        root: signed.checkpoint.root.to_string(),
        checkpoint: signed.note.clone(),
    };
    let last = last_checkpoint(&options.directory)?;
    let from = last.as_ref().map_or(0, |last| last.checkpoint.size);
    if !may_follow(last.as_ref(), &signed, options, &mut checks)? {
        return Ok(report.end(checks));
    }
    take_tiles(&origin, options, from, signed.checkpoint.size)?;
    if !stands(last.as_ref(), &signed, options, &mut checks)? {
        return Ok(report.end(checks));
    }
    let name = checkpoint_name(&signed);
    write(&options.directory.join("checkpoints").join(name), signed.note.as_bytes())?;
    write(&options.directory.join("checkpoint"), signed.note.as_bytes())?;
    report.events = signed.checkpoint.size - from;
    if let FetchSource::Directory(source) = &options.source {
        take_archive(source, &options.directory)?;
    }
    if let FetchSource::Url { .. } = options.source {
        let failed = beside::take(&origin, &options.directory, options.beside)?;
        for (kind, reason) in failed {
            checks.of(kind).inconclusive(reason);
        }
    }
    Ok(report.end(checks))
}

/// The newest checkpoint; where the policy asks for witnesses, the newest that they cosigned, if there is one.
fn newest(origin: &Origin, policy: Option<&Policy>) -> Result<Vec<u8>, AuditError> {
    if policy.is_some_and(|policy| !policy.quorum.is_none())
        && let Some(note) = origin.optional("tlog/checkpoint.witnessed")?
    {
        return Ok(note);
    }
    origin.required("tlog/checkpoint")
}

fn keep_policy(options: &FetchOptions<'_>, report: &mut Report) -> Result<Option<Policy>, AuditError> {
    let kept = options.directory.join("policy");
    let path = match &options.policy {
        Some(path) => path,
        None if kept.is_file() => &kept,
        None => return Ok(None),
    };
    let text = std::fs::read_to_string(path).map_err(|e| AuditError::file(path, e))?;
    let policy = parse_policy(&text).map_err(|e| AuditError::file(path, e))?;
    add_input(report, "policy", text.as_bytes());
    write(&kept, text.as_bytes())?;
    Ok(Some(policy))
}

/// The source's checkpoint, if it is one and the log's.
fn read_note(
    note: &[u8],
    policy: Option<&Policy>,
    options: &FetchOptions<'_>,
    checks: &mut Checks,
) -> Result<Option<SignedCheckpoint>, AuditError> {
    let check = checks.of(CheckKind::Checkpoint);
    check.examine();
    let signed = SignedCheckpoint::parse(note);
    let signed = signed.and_then(|signed| policy.map_or(Ok(()), |p| signed.check(p)).map(|()| signed));
    match signed {
        Ok(signed) => {
            if policy.is_none() {
                check.skip("no policy: nobody's signature was checked");
            }
            Ok(Some(signed))
        }
        Err(error) => {
            check.fail_because(
                "a checkpoint signed by the log",
                &error,
                "the source's checkpoint was refused",
            );
            write(&options.directory.join("evidence").join("refused.note"), note)?;
            Ok(None)
        }
    }
}

fn last_checkpoint(directory: &Path) -> Result<Option<SignedCheckpoint>, AuditError> {
    let path = directory.join("checkpoint");
    if !path.is_file() {
        return Ok(None);
    }
    crate::copy::read_checkpoint(&path)?.map(Some).map_err(|e| AuditError::file(&path, e))
}

/// Same log, not smaller, and at the same size the same root.
fn may_follow(
    last: Option<&SignedCheckpoint>,
    new: &SignedCheckpoint,
    options: &FetchOptions<'_>,
    checks: &mut Checks,
) -> Result<bool, AuditError> {
    let Some(last) = last else { return Ok(true) };
    let check = checks.of(CheckKind::Consistency);
    check.examine();
    let (old, next) = (&last.checkpoint, &new.checkpoint);
    let message = if old.origin != next.origin {
        "the source is another log"
    } else if next.size < old.size {
        "the log was rolled back: the source's checkpoint is smaller than one it signed before"
    } else if next.size == old.size && next.root != old.root {
        "the log signed two roots of one size"
    } else {
        return Ok(true);
    };
    check.fail_because(head_text(last), head_text(new), message);
    keep_evidence(last, new, &options.directory)?;
    Ok(false)
}

fn head_text(signed: &SignedCheckpoint) -> String {
    let checkpoint = &signed.checkpoint;
    format!("{} size {} root {}", checkpoint.origin, checkpoint.size, checkpoint.root)
}

/// The entries on disk hash to the new root, and their beginning to the last one.
fn stands(
    last: Option<&SignedCheckpoint>,
    new: &SignedCheckpoint,
    options: &FetchOptions<'_>,
    checks: &mut Checks,
) -> Result<bool, AuditError> {
    let copy = LogCopy::begin(&options.directory);
    let mut walk = Walk::new(&copy, new.checkpoint.size);
    while let Some(bundle) = walk.next_bundle() {
        if let Err(fault) = bundle {
            let check = checks.of(CheckKind::Entries);
            check.fail_because(
                "every entry under the checkpoint",
                &fault,
                "the source gave a damaged bundle",
            );
            forget_tiles(options, last, new)?;
            return Ok(false);
        }
    }
    if let Some(last) = last {
        let root = walk.root_at(last.checkpoint.size);
        if root.as_ref() != Ok(&last.checkpoint.root) {
            let check = checks.of(CheckKind::Consistency);
            let found = root.map_or_else(|fault| fault.to_string(), |root| root.to_string());
            let message = "history was rewritten: the new log does not begin with the one seen before";
            check.fail_because(last.checkpoint.root, found, message);
            keep_evidence(last, new, &options.directory)?;
            forget_tiles(options, Some(last), new)?;
            return Ok(false);
        }
    }
    let check = checks.of(CheckKind::Entries);
    check.examined = walk.roots().size();
    if walk.roots().root() != new.checkpoint.root {
        let message = "the entries do not hash to the signed root: the log was rewritten, or the source changed its files";
        check.fail_because(new.checkpoint.root, walk.roots().root(), message);
        if let Some(last) = last {
            keep_evidence(last, new, &options.directory)?;
        }
        forget_tiles(options, last, new)?;
        return Ok(false);
    }
    Ok(true)
}

/// What did not stand is moved to the evidence, so that the next fetch takes it again and the copy stays what it was.
fn forget_tiles(
    options: &FetchOptions<'_>,
    last: Option<&SignedCheckpoint>,
    new: &SignedCheckpoint,
) -> Result<(), AuditError> {
    let from = last.map_or(0, |last| last.checkpoint.size);
    for tile in tiles_between(from, new.checkpoint.size) {
        let path = options.directory.join(tile.path());
        if path.is_file() {
            let aside = options.directory.join("evidence").join(tile.path());
            make_parent(&aside)?;
            std::fs::rename(&path, &aside).map_err(|e| AuditError::file(&path, e))?;
        }
    }
    Ok(())
}

fn keep_evidence(
    last: &SignedCheckpoint,
    new: &SignedCheckpoint,
    directory: &Path,
) -> Result<(), AuditError> {
    for signed in [last, new] {
        write(&directory.join("evidence").join(checkpoint_name(signed)), signed.note.as_bytes())?;
    }
    Ok(())
}

fn checkpoint_name(signed: &SignedCheckpoint) -> String {
    let root = signed.checkpoint.root.to_string();
    format!("{:020}-{}.note", signed.checkpoint.size, &root[..16])
}

/// Takes the tiles that are new; a full tile replaces what was partial.
fn take_tiles(origin: &Origin, options: &FetchOptions<'_>, from: u64, to: u64) -> Result<(), AuditError> {
    let tiles: Vec<Tile> = tiles_between(from, to).collect();
    let total = tiles.len() as u64;
    for (done, tile) in (1..).zip(&tiles) {
        let path = options.directory.join(tile.path());
        if !path.is_file() {
            let bytes = origin.tile(tile)?;
            write(&path, &bytes)?;
        }
        if let Some(progress) = options.progress {
            progress(done, total);
        }
    }
    Ok(())
}

/// Takes the files of a directory's archive. Segments never change; a tail file that was sealed since stays beside its
/// segment, and both must say the same.
fn take_archive(source: &Path, directory: &Path) -> Result<(), AuditError> {
    let Some(archive) = Archive::find(source)? else { return Ok(()) };
    for file in archive.files() {
        let Some(name) = file.file_name() else { continue };
        let target = directory.join("archive").join(name);
        let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        if size(&target) == size(file) {
            continue;
        }
        make_parent(&target)?;
        let mut part = name.to_owned();
        part.push(".part");
        let part = target.with_file_name(part);
        std::fs::copy(file, &part).map_err(|e| AuditError::file(file, e))?;
        std::fs::rename(&part, &target).map_err(|e| AuditError::file(&target, e))?;
    }
    Ok(())
}

fn make_parent(path: &Path) -> Result<(), AuditError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| AuditError::file(parent, e))
}

/// Writes a file whole: under another name first.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
    make_parent(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    std::fs::write(&part, bytes).map_err(|e| AuditError::file(&part, e))?;
    std::fs::rename(&part, path).map_err(|e| AuditError::file(path, e))
}
