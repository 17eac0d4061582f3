//! The archive as one log: segments and tail files put into order, leftovers told apart. Must not: read commits.

use super::{SegmentError, SegmentName, SegmentStore};
use crate::tail::{TailError, list_files};
use std::path::{Path, PathBuf};

/// Under the archive's folder: rotten files that were replaced.
const DAMAGED_FOLDER: &str = "damaged";

/// One piece of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Segment(SegmentName),
    Tail { first: u64, path: PathBuf },
}

impl Part {
    pub(crate) fn first(&self) -> u64 {
        match self {
            Part::Segment(name) => name.first,
            Part::Tail { first, .. } => *first,
        }
    }
}

/// What an archive consists of.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// In order of their first commits; ranges do not overlap.
    pub(crate) live: Vec<Part>,
    /// Tail files that a segment covers: sealed, but not yet deleted.
    pub(crate) leftovers: Vec<(u64, PathBuf)>,
}

/// Lists the parts under an archive's folder, by `specs/archive.md` section 1.
pub(crate) fn list_parts(store: &dyn SegmentStore, dir: &Path) -> Result<Parts, TailError> {
    let mut names = store.list()?;
    names.sort_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
    let mut covered = 0;
    names.retain(|name| {
        let counts = name.first > covered;
        covered = if counts { name.last } else { covered };
        counts
    });
    let mut parts = Parts::default();
    for (first, path) in list_files(dir)? {
        if names.iter().any(|name| (name.first..=name.last).contains(&first)) {
            parts.leftovers.push((first, path));
        } else {
            parts.live.push(Part::Tail { first, path });
        }
    }
    parts.live.extend(names.into_iter().map(Part::Segment));
    parts.live.sort_by_key(Part::first);
    Ok(parts)
}

/// Moves a rotten file into `damaged/`, under a name that was not used before.
pub(crate) fn set_aside(dir: &Path, file: &Path) -> Result<PathBuf, SegmentError> {
    let target = place_aside(dir, file)?;
    std::fs::rename(file, &target).map_err(SegmentError::io(file.display(), "move it to damaged/"))?;
    Ok(target)
}

/// Keeps a rotten file in `damaged/` while its place may be taken by a whole one of the same name.
pub(crate) fn keep_aside(dir: &Path, file: &Path) -> Result<PathBuf, SegmentError> {
    let target = place_aside(dir, file)?;
    // A second name for the same bytes; where the file system has none, a copy.
    std::fs::hard_link(file, &target)
        .or_else(|_| std::fs::copy(file, &target).map(drop))
        .map_err(SegmentError::io(file.display(), "keep it in damaged/"))?;
    Ok(target)
}

fn place_aside(dir: &Path, file: &Path) -> Result<PathBuf, SegmentError> {
    let folder = dir.join(DAMAGED_FOLDER);
    let failed = SegmentError::io(file.display(), "create the folder damaged/");
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut target = folder.join(&name);
    let mut again = 1;
    while target.exists() {
        again += 1;
        target = folder.join(format!("{name}.{again}"));
    }
    Ok(target)
}
