//! Tiles of the transparency log (c2sp.org/tlog-tiles): where a tile lies, which ones a tree of a size has, what is in them.
//! Pure; reading and writing files is the caller's.

use crate::id::Hash32;

/// Hashes or entries of a full tile.
pub const TILE_WIDTH: u64 = 256;
/// Tree levels in a tile.
pub const TILE_HEIGHT: u32 = 8;
/// Path of the newest checkpoint.
pub const CHECKPOINT_PATH: &str = "checkpoint";

/// Why a tile's bytes are not a tile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A hash tile of the wrong length.
    #[error("hash tile of {bytes} bytes; expected {width} hashes of 32 bytes")]
    HashTile {
        /// Its length.
        bytes: usize,
        /// The width it should have.
        width: u64,
    },
    /// An entry bundle that ends early, late, or in the middle of an entry.
    #[error("entry bundle: {reason} at entry {entry} of {width}")]
    Bundle {
        /// The entry, counted from 0 inside the bundle.
        entry: u64,
        /// The width it should have.
        width: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry that no bundle can carry.
    #[error("entry of {bytes} bytes; a bundle carries at most 65535")]
    EntryTooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// What a tile holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TileKind {
    /// Hashes of subtrees of `256^level` leaves; level 0 holds leaf hashes.
    Hashes {
        /// 0 to 7.
        level: u32,
    },
    /// The leaves themselves, each behind its 16-bit big-endian length.
    Entries,
}

/// One tile: kind, index, width (1 to 256; below 256 it is partial).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tile {
    /// What it holds.
    pub kind: TileKind,
    /// Counted from 0 along its level.
    pub index: u64,
    /// How many hashes or entries.
    pub width: u64,
}

impl Tile {
    /// Its path below the log's prefix, `tile/<level>/<index>[.p/<width>]` or `tile/entries/<index>[.p/<width>]`.
    pub fn path(&self) -> String {
        let kind = match self.kind {
            TileKind::Hashes { level } => level.to_string(),
            TileKind::Entries => "entries".to_owned(),
        };
        let index = index_path(self.index);
        if self.width == TILE_WIDTH {
            format!("tile/{kind}/{index}")
        } else {
            format!("tile/{kind}/{index}.p/{}", self.width)
        }
    }

    /// The same tile when it is full.
    pub fn full(self) -> Tile {
        Tile { width: TILE_WIDTH, ..self }
    }
}

/// Groups of three digits, all but the last marked: 1234067 is `x001/x234/067`.
fn index_path(index: u64) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path
}

/// Every tile of a tree of `size` leaves, entry bundles first, then hash levels upward, each in order of index. At most
/// the last one of each level is partial.
pub fn tiles_of_size(size: u64) -> impl Iterator<Item = Tile> {
    tiles_between(0, size)
}

/// The tiles that a tree of `to` leaves has and a tree of `from` leaves has not (or has narrower).
pub fn tiles_between(from: u64, to: u64) -> impl Iterator<Item = Tile> {
    let entries = level_tiles(TileKind::Entries, from, to);
    let levels = (0..u64::BITS / TILE_HEIGHT).flat_map(move |level| {
        let shift = TILE_HEIGHT * level;
        level_tiles(TileKind::Hashes { level }, from >> shift, to >> shift)
    });
    entries.chain(levels)
}

fn level_tiles(kind: TileKind, from: u64, to: u64) -> impl Iterator<Item = Tile> {
    let end = if from < to { to.div_ceil(TILE_WIDTH) } else { 0 };
    (from / TILE_WIDTH..end).map(move |index| {
        let width = (to - index * TILE_WIDTH).min(TILE_WIDTH);
        Tile { kind, index, width }
    })
}

/// The hashes of a tile.
pub fn parse_hashes(bytes: &[u8], width: u64) -> Result<Vec<Hash32>, TileError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() as u64 != width {
        return Err(TileError::HashTile { bytes: bytes.len(), width });
    }
    Ok(hashes.iter().map(|h| Hash32(*h)).collect())
}

/// The entries of a bundle: exactly `width` of them and nothing behind.
pub fn parse_entries(bundle: &[u8], width: u64) -> Result<Vec<&[u8]>, TileError> {
    let mut rest = bundle;
    let mut entries = Vec::new();
    for entry in 0..width {
        let error = |reason| TileError::Bundle { entry, width, reason };
        let (length, tail) = rest.split_first_chunk::<2>().ok_or(error("the bundle ends"))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (bytes, tail) = tail.split_at_checked(length).ok_or(error("the bundle ends inside"))?;
        entries.push(bytes);
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(TileError::Bundle { entry: width, width, reason: "bytes are left" });
    }
    Ok(entries)
}

/// Appends one entry to a bundle.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TileError> {
    let length = u16::try_from(entry.len()).map_err(|_| TileError::EntryTooLarge { bytes: entry.len() })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let hashes = |level, index, width| Tile { kind: TileKind::Hashes { level }, index, width }.path();
        assert_eq!(hashes(0, 0, 256), "tile/0/000");
        assert_eq!(hashes(0, 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(hashes(2, 999, 3), "tile/2/999.p/3");
        assert_eq!(hashes(1, 1000, 256), "tile/1/x001/000");
        let bundle = Tile { kind: TileKind::Entries, index: 273, width: 112 };
        assert_eq!(bundle.path(), "tile/entries/273.p/112");
        assert_eq!(bundle.full().path(), "tile/entries/273");
    }

    #[test]
    fn tiles_agree_with_the_go_port() {
        for (from, to) in [
            (0, 0),
            (0, 1),
            (0, 255),
            (0, 256),
            (1, 257),
            (255, 256),
            (256, 256),
            (300, 70_000),
            (65_535, 65_537),
        ] {
            let ours: Vec<String> =
                tiles_between(from, to).filter(|t| t.kind != TileKind::Entries).map(|t| t.path()).collect();
            let theirs: Vec<String> = tlog_tiles::Tile::new_tiles(8, from, to)
                .iter()
                .map(|t| t.path().replacen("tile/8/", "tile/", 1))
                .collect();
            assert_eq!(ours, theirs, "{from} to {to}");
        }
        assert_eq!(tiles_of_size(70_000).filter(|t| t.kind == TileKind::Entries).count(), 274);
        assert_eq!(tiles_of_size(0).count(), 0);
    }

    #[test]
    fn bundles_are_exact() {
        let mut bundle = Vec::new();
        for entry in [&b"a"[..], b"", b"ccc"] {
            push_entry(&mut bundle, entry).unwrap();
        }
        assert_eq!(parse_entries(&bundle, 3).unwrap(), [&b"a"[..], b"", b"ccc"]);
        for cut in 0..bundle.len() {
            assert!(parse_entries(&bundle[..cut], 3).is_err(), "cut at {cut}");
        }
        assert!(parse_entries(&bundle, 2).is_err(), "bytes are left");
        assert!(parse_entries(&bundle, 4).is_err(), "an entry is missing");
        assert_eq!(
            push_entry(&mut bundle, &vec![0; 65_536]),
            Err(TileError::EntryTooLarge { bytes: 65_536 })
        );
        assert!(parse_hashes(&[0; 64], 2).is_ok());
        assert!(parse_hashes(&[0; 64], 3).is_err());
        assert!(parse_hashes(&[0; 63], 2).is_err());
    }
}
