//! Sealed segments: head, zstd frames of commits, index, checkpoint, trailer. The hash over the whole file is checked before
//! anything of it is believed; a frame that is damaged is named by its place.

use super::{ArchiveFault, Position, is_commit_length};
use protocol::commit::Commit;
use protocol::id::Hash32;
use ruzstd::decoding::FrameDecoder;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"cf-seg01";
const END_MAGIC: &[u8; 8] = b"cf-segen";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 128;
const INDEX_ENTRY_BYTES: usize = 64;
const TRAILER_BYTES: usize = 56;
/// Offset of the whole file's hash in the trailer.
const TRAILER_HASH_AT: usize = 16;
/// Largest segment that is read.
const SEGMENT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Largest content of a frame: 4 MiB of records, or one record.
const FRAME_CONTENT_BYTES_MAX: usize = 4 * 1024 * 1024;
const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;

/// First commit, last commit and hash of a segment's name; `None` when it is no segment's name.
pub(super) fn of_name(name: &str) -> Option<(u64, u64, Hash32)> {
    let rest = name.strip_prefix("segment-")?.strip_suffix(".cfs")?;
    let (first, rest) = rest.split_once('-')?;
    let (last, hash) = rest.split_once('-')?;
    let number = |digits: &str| (digits.len() == 20).then(|| digits.parse::<u64>().ok()).flatten();
    let hash = data_encoding::HEXLOWER.decode(hash.as_bytes()).ok()?;
    Some((number(first)?, number(last)?, Hash32(hash.try_into().ok()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn hash_at(bytes: &[u8], at: usize) -> Hash32 {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[at..at + 32]);
    Hash32(hash)
}

/// What a segment's head says of the commit before its first, unchecked: [`Segment::open`] checks it.
pub(super) fn position_before(path: &Path) -> Option<Position> {
    let mut head = [0; HEAD_BYTES];
    File::open(path).ok()?.read_exact(&mut head).ok()?;
    let number = u64_at(&head, 16).checked_sub(1)?;
    Some(Position { number, hash: hash_at(&head, 48), leaves: u64_at(&head, 32) })
}

/// The signed note in a segment, unchecked; its signature is what counts.
pub(super) fn checkpoint(path: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::Start(size.checked_sub(TRAILER_BYTES as u64)?)).ok()?;
    file.read_exact(&mut trailer).ok()?;
    let length = u32_at(&trailer, 12) as usize;
    if length > CHECKPOINT_BYTES_MAX {
        return None;
    }
    let mut note = vec![0; length];
    file.seek(SeekFrom::Start(size.checked_sub((TRAILER_BYTES + length) as u64)?)).ok()?;
    file.read_exact(&mut note).ok()?;
    Some(note)
}

/// One frame, as the index has it.
#[derive(Clone, Copy, Debug)]
struct Frame {
    first: u64,
    commits: u32,
    offset: usize,
    length: usize,
    content: usize,
    hash: Hash32,
}

impl Frame {
    fn parse(entry: &[u8]) -> Frame {
        Frame {
            first: u64_at(entry, 0),
            commits: u32_at(entry, 8),
            offset: u64_at(entry, 16) as usize,
            length: u32_at(entry, 24) as usize,
            content: u32_at(entry, 28) as usize,
            hash: hash_at(entry, 32),
        }
    }
}

/// An open segment.
pub(super) struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    next_frame: usize,
    /// Content of the open frame, and how far it was read.
    content: Vec<u8>,
    read: usize,
    next: u64,
    last: u64,
    last_hash: Hash32,
    seen_hash: Hash32,
}

impl Segment {
    /// Reads and checks a segment that must follow `before`.
    pub(super) fn open(path: &Path, before: Position) -> Result<Segment, ArchiveFault> {
        let fault = |offset: usize, reason: String| ArchiveFault::new(path, offset as u64, reason);
        let file = File::open(path).map_err(|e| fault(0, e.to_string()))?;
        let mut bytes = Vec::new();
        let read = file.take(SEGMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|e| fault(0, e.to_string()))?;
        let size = bytes.len();
        if !(HEAD_BYTES + TRAILER_BYTES..=SEGMENT_BYTES_MAX as usize).contains(&size) {
            return Err(fault(size, format!("a segment of {size} bytes")));
        }
        let name = path.file_name().and_then(|name| name.to_str()).and_then(of_name);
        let (first, last, named) = name.ok_or_else(|| fault(0, "not a segment's name".to_owned()))?;
        let trailer = size - TRAILER_BYTES;
        let hash = Hash32(*blake3::hash(&bytes[..trailer + TRAILER_HASH_AT]).as_bytes());
        let frames = frames(path, &bytes);
        if hash != named
            || hash_at(&bytes, trailer + TRAILER_HASH_AT) != named
            || bytes[size - 8..] != *END_MAGIC
        {
            return Err(locate(path, &bytes, frames.ok(), hash, named));
        }
        let frames = frames?;
        check_head(path, &bytes, (first, last), before)?;
        let segment = Segment {
            path: path.to_owned(),
            last_hash: hash_at(&bytes, 80),
            bytes,
            frames,
            next_frame: 0,
            content: Vec::new(),
            read: 0,
            next: first,
            last,
            seen_hash: before.hash,
        };
        segment.check_index()?;
        Ok(segment)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn fault(&self, offset: usize, reason: String) -> ArchiveFault {
        ArchiveFault::new(&self.path, offset as u64, reason)
    }

    /// The index covers the frames without gaps, and the commits first to last.
    fn check_index(&self) -> Result<(), ArchiveFault> {
        let (mut offset, mut next) = (HEAD_BYTES, self.next);
        for (n, frame) in self.frames.iter().enumerate() {
            let fits = frame.offset == offset && frame.first == next && frame.commits > 0;
            if !fits || frame.content > FRAME_CONTENT_BYTES_MAX || frame.content == 0 {
                return Err(self.fault(offset, format!("frame {n} is not what the index says")));
            }
            offset += frame.length;
            next += u64::from(frame.commits);
        }
        if next != self.last + 1 {
            let reason = format!("its frames end at commit {}, its head says {}", next - 1, self.last);
            return Err(self.fault(offset, reason));
        }
        Ok(())
    }

    fn open_frame(&mut self) -> Result<bool, ArchiveFault> {
        let Some(frame) = self.frames.get(self.next_frame).copied() else { return Ok(false) };
        if frame.first != self.next {
            let reason = format!("commit {} where {} was expected", frame.first, self.next);
            return Err(self.fault(frame.offset, reason));
        }
        let stored = &self.bytes[frame.offset..frame.offset + frame.length];
        let mut content = Vec::with_capacity(frame.content);
        let decoded = FrameDecoder::new().decode_all_to_vec(stored, &mut content);
        if let Err(error) = decoded {
            return Err(self.fault(frame.offset, format!("the frame does not decompress: {error}")));
        }
        if content.len() != frame.content {
            let reason = format!("the frame holds {} bytes, its index says {}", content.len(), frame.content);
            return Err(self.fault(frame.offset, reason));
        }
        (self.content, self.read) = (content, 0);
        self.next_frame += 1;
        Ok(true)
    }

    pub(super) fn shard(&self) -> u32 {
        u32_at(&self.bytes, 12)
    }

    /// Leaves up to and with its last commit, as its head says.
    pub(super) fn leaves_after(&self) -> u64 {
        u64_at(&self.bytes, 40)
    }

    /// The next commit's bytes, with the place of its frame; `None` after the last.
    pub(super) fn next_record(&mut self) -> Result<Option<(u64, Vec<u8>)>, ArchiveFault> {
        if self.read == self.content.len() && !self.open_frame()? {
            if self.seen_hash != self.last_hash {
                return Err(self.fault(80, "its last commit is not the one that its head names".to_owned()));
            }
            return Ok(None);
        }
        let at = self.frames[self.next_frame - 1].offset;
        let rest = &self.content[self.read..];
        let length = if rest.len() < 4 { 0 } else { u32_at(rest, 0) as usize };
        if !is_commit_length(length) || rest.len() < 4 + length {
            return Err(self.fault(at, format!("commit {} is not whole in its frame", self.next)));
        }
        let bytes = rest[4..4 + length].to_vec();
        self.read += 4 + length;
        self.next += 1;
        self.seen_hash = Commit::hash(&bytes);
        Ok(Some((at as u64, bytes)))
    }
}

/// The index, when the trailer leads to one that fits into the file.
fn frames(path: &Path, bytes: &[u8]) -> Result<Vec<Frame>, ArchiveFault> {
    let trailer = bytes.len() - TRAILER_BYTES;
    let index = u64_at(bytes, trailer);
    let (count, note) = (u32_at(bytes, trailer + 8) as usize, u32_at(bytes, trailer + 12) as usize);
    let index_bytes = count.saturating_mul(INDEX_ENTRY_BYTES);
    let end = index_bytes.checked_add(note).and_then(|rest| rest.checked_add(usize::try_from(index).ok()?));
    let fault = |reason: &str| ArchiveFault::new(path, trailer as u64, reason);
    if end != Some(trailer) || (index as usize) < HEAD_BYTES {
        return Err(fault("the lengths of frames, index and checkpoint do not add up to the file"));
    }
    let index = index as usize;
    let frames: Vec<Frame> =
        bytes[index..index + index_bytes].chunks_exact(INDEX_ENTRY_BYTES).map(Frame::parse).collect();
    let zeros =
        bytes[index..index + index_bytes].chunks_exact(INDEX_ENTRY_BYTES).all(|e| e[12..16] == [0; 4]);
    let mut offset = HEAD_BYTES;
    for frame in &frames {
        if frame.offset != offset {
            return Err(fault("the index does not follow the frames"));
        }
        offset = offset.saturating_add(frame.length);
    }
    if offset != index || !zeros || note > CHECKPOINT_BYTES_MAX {
        return Err(fault("the index does not cover the frames"));
    }
    Ok(frames)
}

/// Says where a segment is damaged whose hash is wrong: in which frame, or outside all of them.
fn locate(
    path: &Path,
    bytes: &[u8],
    frames: Option<Vec<Frame>>,
    hash: Hash32,
    named: Hash32,
) -> ArchiveFault {
    for frame in frames.iter().flatten() {
        let stored = &bytes[frame.offset..frame.offset + frame.length];
        if *blake3::hash(stored).as_bytes() != frame.hash.0 {
            let last = frame.first.saturating_add(u64::from(frame.commits)).saturating_sub(1);
            let reason = format!("the frame of commits {} to {last} was altered", frame.first);
            return ArchiveFault::new(path, frame.offset as u64, reason);
        }
    }
    let trailer = bytes.len() - TRAILER_BYTES;
    let place = match frames {
        None => trailer,
        Some(_) if bytes[..8] != *MAGIC => 0,
        Some(_) if hash == named => trailer + TRAILER_HASH_AT,
        Some(frames) => frames.last().map_or(HEAD_BYTES, |last| last.offset + last.length),
    };
    let reason =
        format!("outside its frames the segment was altered: it hashes to {hash}, its name says {named}");
    ArchiveFault::new(path, place as u64, reason)
}

fn check_head(
    path: &Path,
    bytes: &[u8],
    (first, last): (u64, u64),
    before: Position,
) -> Result<(), ArchiveFault> {
    let fault = |offset: u64, reason: String| Err(ArchiveFault::new(path, offset, reason));
    if bytes[..8] != *MAGIC || u32_at(bytes, 8) != VERSION || bytes[120..HEAD_BYTES] != [0; 8] {
        return fault(0, format!("not the head of a segment of version {VERSION}"));
    }
    let said = (u64_at(bytes, 16), u64_at(bytes, 24));
    if said != (first, last) {
        return fault(
            16,
            format!("its head says commits {} to {}, its name {first} to {last}", said.0, said.1),
        );
    }
    let chained = (u64_at(bytes, 32), hash_at(bytes, 48));
    if chained != (before.leaves, before.hash) {
        let (leaves, hash) = chained;
        return fault(
            32,
            format!(
                "it follows {hash} at {leaves} leaves; before it stand {} at {}",
                before.hash, before.leaves
            ),
        );
    }
    Ok(())
}
