//! The archive tail: every acknowledged commit in our own append-only files with our own hashes, outside NATS, and the
//! high-water mark beside them. A second copy to compare with and to restore from. Must not: know JetStream.
//!
//! `archive/tail-<first commit>.cft`: a 24-byte head (magic, shard, first commit), then records
//! `[length u32 LE][BLAKE3 of the bytes][the commit's bytes]`, numbered without gaps.

mod index;
mod mark;
mod record;
mod sync;
#[cfg(test)]
mod tests;

pub use index::TailIndex;
pub use mark::HighWater;
pub use record::CommitHead;
pub use sync::{TAIL_SYNC_DELAY, TailSync, TailSyncer};

pub(crate) use index::{list_files, shard_of};
pub(crate) use record::{Records, salvage};

use crate::pipeline::Position;
use crate::segment::SegmentError;
use record::{FILE_HEAD_BYTES, file_head, file_name};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A tail file is closed above this size and the next one begun; closed ones are sealed (`segment`).
pub const TAIL_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The folder inside a data folder.
pub const ARCHIVE_FOLDER: &str = "archive";

/// Why the archive tail could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The file system said no.
    #[error("archive {path}: cannot {what}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Its words.
        source: std::io::Error,
    },
    /// Not one of our files.
    #[error(
        "archive {path}: {reason}; it is not a tail file of this log: move it away, the stream will backfill it"
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A record is damaged where others follow.
    #[error(
        "archive {path} at byte {offset}: commit {number} {reason}; move this file and later ones away, the stream will backfill them"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The commit that should stand there.
        number: u64,
        /// What is wrong.
        reason: String,
    },
    /// The commit to append does not follow the last one.
    #[error("the archive tail ends at commit {head}; commit {number} does not follow it")]
    Gap {
        /// The tail's last commit.
        head: u64,
        /// What was to be appended.
        number: u64,
    },
    /// Another commit stands there already.
    #[error("the archive tail holds other bytes for commit {number}")]
    Differs {
        /// Which.
        number: u64,
    },
    /// A sealed segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl TailError {
    /// The file is gone: somebody sealed, healed or deleted meanwhile.
    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Segment(error) => error.is_not_found(),
            Self::Foreign { .. } | Self::Damaged { .. } | Self::Gap { .. } | Self::Differs { .. } => false,
        }
    }

    pub(crate) fn io(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, what, source }
    }
}

/// What [`Tail::open`] needs.
#[derive(Clone, Debug)]
pub struct TailOptions {
    /// The data folder; the tail lives in its `archive` folder.
    pub data_dir: PathBuf,
    /// Shard of the log.
    pub shard: u32,
    /// See [`TAIL_FILE_BYTES_MAX`].
    pub file_bytes_max: u64,
}

/// A last record that was not written whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Which file.
    pub path: PathBuf,
    /// Where the whole records end.
    pub offset: u64,
    /// The commit it would have been.
    pub number: u64,
    /// What is wrong with it.
    pub reason: String,
    /// The highest commit that the file holds whole behind it, or this one: rot is not always at the end.
    pub known: u64,
}

/// The tail, open for appending. One at a time: the data folder's lock sees to that.
pub struct Tail {
    options: TailOptions,
    dir: PathBuf,
    file: Arc<File>,
    path: PathBuf,
    end: u64,
    head: Position,
    torn: Option<Torn>,
    index: Arc<TailIndex>,
    buffer: Vec<u8>,
}

impl Tail {
    /// Opens or begins the tail. A torn last record stays until [`Tail::cut_torn`]: the caller first makes sure that the
    /// stream has that commit.
    pub fn open(options: TailOptions) -> Result<Self, TailError> {
        let dir = options.data_dir.join(ARCHIVE_FOLDER);
        std::fs::create_dir_all(&dir).map_err(TailError::io(&dir, "create the folder"))?;
        let index = TailIndex::open(&dir, options.shard)?;
        let Some((first, path)) = index.last_file() else {
            let last = index.last_sealed_number();
            let head = known_or_numbered(index.position_of(last), last);
            return Self::begin(options, dir, index, head);
        };
        let mut records = Records::open(&path, options.shard, first)?;
        let mut head = Position::default();
        let mut offsets = Vec::new();
        let mut torn = None;
        loop {
            let offset = records.offset();
            match records.next_record() {
                Ok(Some(record)) => {
                    offsets.push(offset);
                    head = record.head.position(record.hash);
                }
                Ok(None) => break,
                Err(TailError::Damaged { path, offset, number, reason }) => {
                    let behind = salvage(&path, options.shard)?.into_iter().map(|(head, _)| head.number);
                    let known = behind.max().unwrap_or(0).max(number);
                    torn = Some(Torn { path, offset, number, reason, known });
                    break;
                }
                Err(other) => return Err(other),
            }
        }
        if offsets.is_empty() && first > 1 {
            head = known_or_numbered(index.position_of(first - 1), first - 1);
        }
        let end = records.offset();
        index.set_offsets(first, offsets);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = Arc::new(file.map_err(TailError::io(&path, "open"))?);
        Ok(Self { options, dir, file, path, end, head, torn, index, buffer: Vec::new() })
    }

    fn begin(
        options: TailOptions,
        dir: PathBuf,
        index: Arc<TailIndex>,
        head: Position,
    ) -> Result<Self, TailError> {
        let first = head.commit + 1;
        let (file, path) = create_file(&dir, options.shard, first)?;
        index.push_file(first, path.clone());
        Ok(Self {
            options,
            dir,
            file,
            path,
            end: FILE_HEAD_BYTES,
            head,
            torn: None,
            index,
            buffer: Vec::new(),
        })
    }

    /// The last whole commit. Its hash is zeros when the part that holds it is rotten: see [`Tail::set_head`].
    pub fn head(&self) -> Position {
        self.head
    }

    /// Whether the head's hash is known.
    pub fn head_is_known(&self) -> bool {
        self.head.commit == 0 || self.head.hash != Position::default().hash
    }

    /// What the stream has at the head's number, when we do not know ourselves.
    pub fn set_head(&mut self, position: Position) {
        assert!(position.commit == self.head.commit && !self.head_is_known(), "only what is not known");
        self.head = position;
    }

    /// A last record that was not written whole, if there is one.
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// Where to read single commits.
    pub fn index(&self) -> Arc<TailIndex> {
        self.index.clone()
    }

    /// Cuts the torn record off.
    pub fn cut_torn(&mut self) -> Result<(), TailError> {
        if self.torn.take().is_some() {
            self.file.set_len(self.end).map_err(TailError::io(&self.path, "cut the torn record off"))?;
            self.file.sync_all().map_err(TailError::io(&self.path, "sync"))?;
        }
        Ok(())
    }

    /// Appends a commit. The same commit again is fine; a failed append leaves the tail as it was.
    pub fn append(&mut self, position: Position, bytes: &[u8]) -> Result<(), TailError> {
        let number = position.commit;
        if number <= self.head.commit {
            let same = self.index.position_of(number)?.hash == position.hash;
            return if same { Ok(()) } else { Err(TailError::Differs { number }) };
        }
        if number != self.head.commit + 1 {
            return Err(TailError::Gap { head: self.head.commit, number });
        }
        self.cut_torn()?;
        if self.end >= self.options.file_bytes_max {
            self.rotate(number)?;
        }
        record::encode_record(&mut self.buffer, position.hash, bytes);
        if let Err(source) = self.file.write_all_at(&self.buffer, self.end) {
            // Best effort: whatever was written is overwritten by the next append, or found torn at the next start.
            let _ = self.file.set_len(self.end);
            return Err(TailError::Io { path: self.path.clone(), what: "append", source });
        }
        self.index.push_offset(self.end);
        self.end += self.buffer.len() as u64;
        self.head = position;
        Ok(())
    }

    /// What must be synced so that everything up to [`Tail::head`] is on the disk (closed files were synced when closed).
    pub fn pending(&self) -> TailSync {
        TailSync { file: self.file.clone(), path: self.path.clone(), head: self.head }
    }

    fn rotate(&mut self, first: u64) -> Result<(), TailError> {
        self.file.sync_data().map_err(TailError::io(&self.path, "sync"))?;
        let (file, path) = create_file(&self.dir, self.options.shard, first)?;
        self.index.push_file(first, path.clone());
        (self.file, self.path, self.end) = (file, path, FILE_HEAD_BYTES);
        Ok(())
    }
}

/// The position before an empty tail file; only its number when the part that holds it is rotten or missing.
fn known_or_numbered(found: Result<Position, TailError>, commit: u64) -> Position {
    match found {
        Ok(position) if position.commit == commit => position,
        Ok(_) => Position { commit, ..Position::default() },
        Err(error) => {
            tracing::warn!(target: "journal", "{error}");
            Position { commit, ..Position::default() }
        }
    }
}

fn create_file(dir: &Path, shard: u32, first: u64) -> Result<(Arc<File>, PathBuf), TailError> {
    let path = dir.join(file_name(first));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.map_err(TailError::io(&path, "create"))?;
    file.write_all_at(&file_head(shard, first), 0).map_err(TailError::io(&path, "write the head"))?;
    file.sync_all().map_err(TailError::io(&path, "sync"))?;
    let folder = File::open(dir).map_err(TailError::io(dir, "open the folder"))?;
    folder.sync_all().map_err(TailError::io(dir, "sync the folder"))?;
    Ok((Arc::new(file), path))
}
