//! The archive of a coordinator as an auditor reads it (`specs/archive.md`): sealed segments and tail files as one sequence
//! of commits, each checked against the one before. Written from the specification; shares no code with the writer.

mod segment;
mod tail;

use crate::error::AuditError;
use protocol::codec;
use protocol::commit::{COMMIT_BYTES_MAX, Commit};
use protocol::id::Hash32;
use segment::Segment;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tail::Tail;

/// A part of the archive that is not what it should be: a cryptographic failure, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file} at byte {offset}: {reason}")]
pub struct ArchiveFault {
    /// The file's name.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What was expected and what came.
    pub reason: String,
}

impl ArchiveFault {
    fn new(path: &Path, offset: u64, reason: impl ToString) -> ArchiveFault {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        ArchiveFault { file, offset, reason: reason.to_string() }
    }
}

/// Where a sequence of commits stands: what the next one must follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Number of the last commit; 0 before the first.
    pub number: u64,
    /// Its hash; zeros before the first.
    pub hash: Hash32,
    /// Leaves up to and with it.
    pub leaves: u64,
}

impl Position {
    /// Before the first commit.
    pub const GENESIS: Position = Position { number: 0, hash: Hash32([0; 32]), leaves: 0 };
}

/// One commit of the archive.
#[derive(Clone, Debug)]
pub struct ArchivedCommit {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub commit: Commit,
}

#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    first: u64,
    /// Of a segment.
    last: Option<u64>,
}

/// An archive's files, in the order of their first commits.
#[derive(Clone, Debug)]
pub struct Archive {
    parts: Vec<Part>,
    /// Tail files that a segment replaced: their commits must be the segment's.
    leftovers: Vec<Part>,
}

impl Archive {
    /// The archive in a directory: its own files, or those in its folder `archive`. `None` where there are none.
    pub fn find(directory: &Path) -> Result<Option<Archive>, AuditError> {
        for place in [directory.join("archive"), directory.to_owned()] {
            let parts = list(&place)?;
            if !parts.is_empty() {
                return Ok(Some(Archive::of(parts)));
            }
        }
        Ok(None)
    }

    fn of(mut found: Vec<Part>) -> Archive {
        // Of two segments that begin at one commit the longer one counts, and a segment before a tail file.
        found.sort_by_key(|part| (part.first, std::cmp::Reverse(part.last)));
        let (mut parts, mut leftovers): (Vec<Part>, Vec<Part>) = Default::default();
        for part in found {
            let inside = parts.last().and_then(|before| before.last).is_some_and(|last| part.first <= last);
            match (inside, part.last) {
                (true, None) => leftovers.push(part),
                (true, Some(_)) => {}
                (false, _) => parts.push(part),
            }
        }
        Archive { parts, leftovers }
    }

    /// Paths of all files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().chain(&self.leftovers).map(|part| part.path.as_path())
    }

    /// All commits, from the first on.
    pub fn commits(&self) -> Commits<'_> {
        Commits {
            archive: self,
            next_part: 0,
            open: None,
            position: Position::GENESIS,
            leftover: None,
            ended: false,
        }
    }

    /// Commits from the newest part on that begins at or before a leaf: enough to find that leaf.
    pub fn commits_before(&self, leaf: u64) -> Commits<'_> {
        let mut commits = self.commits();
        for (index, part) in self.parts.iter().enumerate() {
            let Some(before) = part.last.and_then(|_| segment::position_before(&part.path)) else { break };
            if before.leaves > leaf {
                break;
            }
            (commits.next_part, commits.position) = (index, before);
        }
        commits
    }

    /// The newest checkpoint that a segment carries.
    pub fn checkpoint(&self) -> Option<Vec<u8>> {
        let sealed = self.parts.iter().rev().filter(|part| part.last.is_some());
        let notes = sealed.filter_map(|part| segment::checkpoint(&part.path));
        notes.into_iter().find(|note| !note.is_empty())
    }
}

/// The archive's files of a folder; those still being written are left out.
fn list(folder: &Path) -> Result<Vec<Part>, AuditError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(AuditError::file(folder, error)),
    };
    let mut parts = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| AuditError::file(folder, e))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let named = tail::first_of_name(name).map(|first| (first, None));
        let named = named.or_else(|| segment::of_name(name).map(|(first, last, _)| (first, Some(last))));
        if let Some((first, last)) = named {
            parts.push(Part { path, first, last });
        }
    }
    Ok(parts)
}

enum Open {
    Segment(Box<Segment>),
    Tail(Tail),
}

/// Goes through the commits of an archive. Ends after a fault.
pub struct Commits<'a> {
    archive: &'a Archive,
    next_part: usize,
    open: Option<Open>,
    position: Position,
    /// Hashes of commits that a leftover tail file holds too; read when the first segment is opened.
    leftover: Option<HashMap<u64, Hash32>>,
    ended: bool,
}

impl Commits<'_> {
    /// After the last commit that came.
    pub fn reached(&self) -> Position {
        self.position
    }

    fn leftovers(&mut self) -> Result<&HashMap<u64, Hash32>, ArchiveFault> {
        if self.leftover.is_none() {
            let mut hashes = HashMap::new();
            for part in &self.archive.leftovers {
                let mut tail = Tail::open(&part.path, part.first, false)?;
                while let Some((number, bytes)) = tail.next_record()? {
                    hashes.insert(number, Commit::hash(&bytes));
                }
            }
            self.leftover = Some(hashes);
        }
        Ok(self.leftover.get_or_insert_default())
    }

    /// The next commit's bytes and its place.
    fn next_bytes(&mut self) -> Result<Option<(PathBuf, u64, Vec<u8>)>, ArchiveFault> {
        loop {
            let found = match &mut self.open {
                Some(Open::Segment(segment)) => segment.next_record()?.map(|(at, b)| (segment.path(), at, b)),
                Some(Open::Tail(tail)) => {
                    let at = tail.offset();
                    tail.next_record()?.map(|(_, bytes)| (tail.path(), at, bytes))
                }
                None => None,
            };
            if found.is_some() {
                return Ok(found);
            }
            if let Some(Open::Segment(segment)) = &self.open
                && segment.leaves_after() != self.position.leaves
            {
                let (said, found) = (segment.leaves_after(), self.position.leaves);
                let reason = format!("its head says {said} leaves after it, there are {found}");
                return Err(ArchiveFault::new(&segment.path(), 40, reason));
            }
            self.open = None;
            let Some(part) = self.archive.parts.get(self.next_part) else { return Ok(None) };
            let is_last = self.next_part + 1 == self.archive.parts.len();
            self.next_part += 1;
            if part.first != self.position.number + 1 {
                let expected = self.position.number + 1;
                let reason = format!("it begins at commit {}; commit {expected} is missing", part.first);
                return Err(ArchiveFault::new(&part.path, 0, reason));
            }
            self.open = Some(match part.last {
                Some(_) => Open::Segment(Box::new(Segment::open(&part.path, self.position)?)),
                None => Open::Tail(Tail::open(&part.path, part.first, is_last)?),
            });
        }
    }

    fn advance(&mut self) -> Result<Option<ArchivedCommit>, ArchiveFault> {
        let Some((path, at, bytes)) = self.next_bytes()? else { return Ok(None) };
        let fault = |reason: String| ArchiveFault::new(&path, at, reason);
        let commit: Commit = codec::decode("commit", &bytes).map_err(|e| fault(e.to_string()))?;
        let shard = match &self.open {
            Some(Open::Segment(segment)) => segment.shard(),
            Some(Open::Tail(tail)) => tail.shard(),
            None => commit.shard,
        };
        if commit.shard != shard {
            return Err(fault(format!("a commit of shard {} in a file of shard {shard}", commit.shard)));
        }
        let Position { number, hash, leaves } = self.position;
        if (commit.number, commit.previous, commit.first_leaf) != (number + 1, hash, leaves) {
            return Err(fault(format!(
                "commit {} from leaf {} after {}; expected {} from leaf {leaves} after {hash}",
                commit.number,
                commit.first_leaf,
                commit.previous,
                number + 1
            )));
        }
        let hash = Commit::hash(&bytes);
        let number = commit.number;
        if self.leftovers()?.get(&number).is_some_and(|other| *other != hash) {
            return Err(fault(format!(
                "commit {number} is another one in a tail file that was to be deleted"
            )));
        }
        self.position = Position { number, hash, leaves: leaves + commit.events.len() as u64 };
        Ok(Some(ArchivedCommit { bytes, commit }))
    }
}

impl Iterator for Commits<'_> {
    type Item = Result<ArchivedCommit, ArchiveFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Whether a record's length is possible.
fn is_commit_length(length: usize) -> bool {
    (1..=COMMIT_BYTES_MAX).contains(&length)
}
