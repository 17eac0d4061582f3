//! Proves a restored stream: read again from commit 1, chained, counted, hashed into the transparency log's root, folded into
//! a state. Must not: trust what was written.

use super::{RestoreError, nowhere};
use crate::pipeline::Position;
use crate::reader::{Reader, Until};
use crate::segment::{DirectoryStore, Part, Segment, list_parts};
use crate::snapshot_store::{SnapshotFile, SnapshotStore};
use crate::tail::{ARCHIVE_FOLDER, HighWater};
use futures::StreamExt;
use ledger::State;
use protocol::checkpoint::{Checkpoint, Policy};
use protocol::proof::{RootBuilder, leaf_hash};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// What the result is compared with. Anything may be missing; what is there must agree.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    checkpoint: Option<Checkpoint>,
    signature_checked: bool,
    snapshot: Option<SnapshotFile>,
    mark: Position,
}

/// What the result was compared with, and agreed.
#[derive(Clone, Debug, Serialize)]
pub struct Proved {
    /// The chain from commit 1 to the head.
    pub chain: bool,
    /// Size of the signed checkpoint whose root was recomputed.
    pub checkpoint_size: Option<u64>,
    /// That root.
    pub checkpoint_root: Option<String>,
    /// Whether its signature was checked (a `policy` file was there).
    pub checkpoint_signature: bool,
    /// Commit of the snapshot that the rebuilt state equals byte for byte.
    pub snapshot_commit: Option<u64>,
    /// Hash of the state at the head.
    pub state_hash: String,
}

impl Evidence {
    /// Gathers from a data folder (`tlog/`, `snapshots/`, `archive/high-water`) and from an archive folder's segments.
    pub fn gather(data_dir: &Path, archive: &Path) -> Result<Self, RestoreError> {
        let tlog = data_dir.join("tlog");
        let policy = std::fs::read_to_string(tlog.join(crate::transparency::POLICY_PATH)).ok();
        let policy = policy.and_then(|text| Policy::parse(&text).ok());
        let mut notes: Vec<String> = segment_notes(archive);
        notes.extend(std::fs::read_to_string(tlog.join(protocol::tile::CHECKPOINT_PATH)).ok());
        let mut evidence = Evidence { signature_checked: policy.is_some(), ..Evidence::default() };
        for note in notes {
            let opened = match &policy {
                Some(policy) => policy.open(&note).map_err(|e| e.to_string()),
                None => unsigned(&note),
            };
            match opened {
                Ok(checkpoint) if evidence.checkpoint.as_ref().is_none_or(|c| c.size < checkpoint.size) => {
                    evidence.checkpoint = Some(checkpoint);
                }
                Ok(_) => {}
                Err(reason) => tracing::warn!(target: "journal", %reason, "a checkpoint was passed over"),
            }
        }
        evidence.mark = HighWater::open_existing(data_dir).unwrap_or_default();
        if data_dir.join(crate::snapshot_store::SNAPSHOT_FOLDER).is_dir() {
            let files = SnapshotStore::open(data_dir).and_then(|store| store.list());
            let files = files.map_err(crate::snapshotter::FoldError::from)?;
            evidence.snapshot = files.into_iter().find(|file| file.read_bytes().is_ok());
        }
        Ok(evidence)
    }

    /// How far the log is known to have been.
    pub(super) fn known(&self) -> Position {
        let leaf = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let commit = self.snapshot.as_ref().map_or(0, |file| file.commit);
        Position { commit: self.mark.commit.max(commit), leaf: self.mark.leaf.max(leaf), ..self.mark }
    }
}

fn unsigned(note: &str) -> Result<Checkpoint, String> {
    let end = note.find("\n\n").ok_or("a note without a blank line")?;
    Checkpoint::parse(&note[..=end]).map_err(|e| e.to_string())
}

/// The newest few are enough: a later segment's checkpoint covers the earlier ones.
fn segment_notes(archive: &Path) -> Vec<String> {
    let inner = archive.join(ARCHIVE_FOLDER);
    let dir = if inner.is_dir() { inner } else { archive.to_owned() };
    let store: Arc<dyn crate::segment::SegmentStore> = Arc::new(DirectoryStore::new(&dir));
    let Ok(parts) = list_parts(&*store, &dir) else { return Vec::new() };
    let names = parts.live.into_iter().rev().filter_map(|part| match part {
        Part::Segment(name) => Some(name),
        Part::Tail { .. } => None,
    });
    let opened = names.filter_map(|name| Segment::open(store.clone(), name).ok());
    let notes = opened.filter_map(|segment| String::from_utf8(segment.checkpoint().to_vec()).ok());
    notes.filter(|note| !note.is_empty()).take(3).collect()
}

/// Reads the stream up to `head` and compares with everything that is known.
pub(super) async fn prove(
    reader: &Reader,
    head: Position,
    evidence: &Evidence,
) -> Result<Proved, RestoreError> {
    let not_proved = |reason: String| Err(RestoreError::NotProved(reason));
    let mut state = State::new(reader.shard());
    let mut root = RootBuilder::new();
    let mut snapshot_commit = None;
    let checkpoint = evidence.checkpoint.as_ref();
    let size = checkpoint.map_or(0, |checkpoint| checkpoint.size);
    let mut commits = reader.from_commit(1, Until::Commit(head.commit));
    while let Some(commit) = commits.next().await {
        let commit = commit?;
        for event in &commit.commit.events {
            if root.size() < size {
                root.push(leaf_hash(event));
            }
        }
        let applied = commit.apply_to(&mut state);
        applied.map_err(|e| RestoreError::NotProved(format!("commit {}: {e}", commit.number)))?;
        if let Some(file) = evidence.snapshot.as_ref().filter(|file| file.commit == commit.number) {
            let bytes = file.read_bytes().map_err(crate::snapshotter::FoldError::from)?;
            if bytes != ledger::snapshot::write(&state) {
                return not_proved(format!(
                    "the state at commit {} is not {}",
                    file.commit,
                    file.path.display()
                ));
            }
            snapshot_commit = Some(commit.number);
        }
        if commit.number == evidence.mark.commit && commit.hash != evidence.mark.hash {
            return not_proved(format!("commit {} is not the one of the high-water mark", commit.number));
        }
    }
    let end = Position::of(&state);
    if (end.commit, end.hash, end.leaf) != (head.commit, head.hash, head.leaf) {
        return not_proved(format!("the stream leads to {} at commit {}", end.hash, end.commit));
    }
    if reader.last_commit().await? != head.commit {
        return not_proved(format!("the stream does not end at commit {}", head.commit));
    }
    if let Some(checkpoint) = checkpoint
        && (root.size() != size || root.root() != checkpoint.root)
    {
        let ours = root.root();
        return not_proved(format!(
            "root {ours} at size {}, signed is {} at {size}",
            root.size(),
            checkpoint.root
        ));
    }
    Ok(Proved {
        chain: !nowhere(head),
        checkpoint_size: checkpoint.map(|checkpoint| checkpoint.size),
        checkpoint_root: checkpoint.map(|checkpoint| checkpoint.root.to_string()),
        checkpoint_signature: checkpoint.is_some() && evidence.signature_checked,
        snapshot_commit,
        state_hash: state.hash().to_string(),
    })
}
