//! A log on disk, written by a host that hashes and signs correctly whatever its events say.

use data_encoding::BASE64;
use ed25519_dalek::{Signer, SigningKey};
use protocol::checkpoint::{Checkpoint, Policy, VerifierKey};
use protocol::codec::encode_event;
use protocol::event::Event;
use protocol::id::Hash32;
use protocol::proof::{RootBuilder, leaf_hash};
use protocol::tile::{TILE_WIDTH, TileKind, push_entry, tiles_of_size};
use std::path::Path;

pub const ORIGIN: &str = "counterfoil.test/prepaid/0";

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

pub fn verifier_key(key: &SigningKey) -> VerifierKey {
    VerifierKey::new(ORIGIN, key.verifying_key().as_bytes()).unwrap()
}

pub fn root(hashes: &[Hash32]) -> Hash32 {
    let mut builder = RootBuilder::new();
    hashes.iter().for_each(|hash| builder.push(*hash));
    builder.root()
}

pub fn note(size: u64, root: Hash32, signer: &SigningKey) -> String {
    let text = Checkpoint { origin: ORIGIN.to_owned(), size, root }.text();
    let id = verifier_key(signer).id().to_be_bytes();
    let blob = [&id[..], &signer.sign(text.as_bytes()).to_bytes()].concat();
    format!("{text}\n\u{2014} {ORIGIN} {}\n", BASE64.encode(&blob))
}

pub fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

pub fn entries_of(events: &[Event]) -> Vec<Vec<u8>> {
    events.iter().map(|event| encode_event(event).unwrap()).collect()
}

/// Writes tiles, entries, checkpoint and policy as a fetched copy.
pub fn write(directory: &Path, entries: &[Vec<u8>]) {
    write_tiles(directory, entries);
    let hashes: Vec<Hash32> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    put(&directory.join("checkpoint"), note(entries.len() as u64, root(&hashes), &key()).as_bytes());
    put(&directory.join("policy"), Policy::of_log(verifier_key(&key())).text().as_bytes());
}

pub fn write_tiles(directory: &Path, entries: &[Vec<u8>]) {
    let mut levels: Vec<Vec<Hash32>> = vec![entries.iter().map(|entry| leaf_hash(entry)).collect()];
    while levels.last().unwrap().len() as u64 >= TILE_WIDTH {
        let below = levels.last().unwrap();
        let above = below.chunks_exact(TILE_WIDTH as usize).map(root).collect();
        levels.push(above);
    }
    for tile in tiles_of_size(entries.len() as u64) {
        let range = (tile.index * TILE_WIDTH) as usize..(tile.index * TILE_WIDTH + tile.width) as usize;
        let bytes = match tile.kind {
            TileKind::Hashes { level } => {
                levels[level as usize][range].iter().flat_map(|hash| hash.0).collect()
            }
            TileKind::Entries => {
                let mut bundle = Vec::new();
                entries[range].iter().for_each(|entry| push_entry(&mut bundle, entry).unwrap());
                bundle
            }
        };
        put(&directory.join(tile.path()), &bytes);
    }
}
