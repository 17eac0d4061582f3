//! Hostile files: cut, flipped, contradictory. Whatever comes, an error that names it, and no panic.

use super::*;
use crate::model::{LoadOptions, Model};
use crate::numerics::Backend;
use crate::synthetic::SyntheticModel;
use proptest::prelude::*;
use std::sync::Arc;

fn load(bytes: &[u8]) -> Result<Arc<Model>, Error> {
    Model::read(bytes, bytes.len() as u64, LoadOptions { backend: Backend::Scalar })
}

fn file() -> Vec<u8> {
    SyntheticModel::small(TensorType::Q4_1).bytes()
}

/// The first place where `needle` stands.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|w| w == needle).unwrap()
}

/// Loads with `new` written at `at`; the error must mention `expected`.
fn check(at: usize, new: &[u8], expected: &str) {
    let mut bytes = file();
    bytes[at..at + new.len()].copy_from_slice(new);
    let message = load(&bytes).err().unwrap_or_else(|| panic!("loaded; expected {expected:?}")).to_string();
    assert!(message.contains(expected), "{message:?} does not mention {expected:?}");
}

#[test]
fn the_undamaged_file_loads_and_is_named_by_its_hash() {
    let bytes = file();
    let model = load(&bytes).unwrap();
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    assert_eq!((model.id(), model.name(), model.context_length()), (hash, "synthetic", 256));
}

#[test]
fn every_cut_is_refused() {
    let bytes = file();
    for end in (0..bytes.len()).step_by(7).chain([bytes.len() - 33, 0, 4, 8, 16, 24]) {
        let header_or_data = load(&bytes[..end]);
        // The last tensor ends before the padding, so only its padding may be missing.
        assert!(header_or_data.is_err() || end + 32 > bytes.len(), "cut at {end} of {}", bytes.len());
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_refused() {
    let mut bytes = file();
    let length = bytes.len() as u64;
    bytes.push(0);
    let outcome = Model::read(&bytes[..], length, LoadOptions { backend: Backend::Scalar });
    assert!(outcome.err().unwrap().to_string().contains("grew"));
}

#[test]
fn counts_lengths_and_offsets_are_bounded() {
    let bytes = file();
    let huge = u64::MAX.to_le_bytes();
    check(0, b"GGUL", "expected \"GGUF\"");
    check(4, &2u32.to_le_bytes(), "GGUF version 2");
    check(8, &huge, "tensors; at most");
    check(16, &huge, "metadata pairs; at most");
    check(16, &(1u64 << 14).to_le_bytes(), "metadata");
    check(24, &huge, "bytes in a string");
    check(24, &600u64.to_le_bytes(), "600 bytes in a string; at most 512");
    let tokens = find(&bytes, b"tokenizer.ggml.tokens") + 21;
    check(tokens, &99u32.to_le_bytes(), "value type 99");
    check(tokens + 4, &99u32.to_le_bytes(), "array of value type 99");
    check(tokens + 8, &huge, "array elements; at most");
    check(tokens + 8, &(1u64 << 40).to_le_bytes(), "array elements; at most");
    let entry = find(&bytes, b"blk.0.attn_q.weight") + 19;
    check(entry, &9u32.to_le_bytes(), "9 dimensions");
    check(entry + 4, &0u64.to_le_bytes(), "extent of 0");
    check(entry + 4, &huge, "an extent of");
    check(entry + 4, &32u64.to_le_bytes(), "blk.0.attn_q.weight is 64 x 32, expected 64 x 64");
    check(entry + 12, &(u64::from(u32::MAX)).to_le_bytes(), "ends beyond the file");
    check(entry + 20, &14u32.to_le_bytes(), "blk.0.attn_q.weight has type 14 (Q6_K)");
    check(entry + 20, &0u32.to_le_bytes(), "overlap");
    check(entry + 24, &1u64.to_le_bytes(), "not aligned to 32");
    check(entry + 24, &(u64::MAX - 31).to_le_bytes(), "ends beyond the file");
    check(entry + 24, &0u64.to_le_bytes(), "overlap");
}

#[test]
fn contradictions_and_the_unknown_are_named() {
    let bytes = file();
    check(find(&bytes, b"blk.1.attn_q"), b"blk.0.attn_q", "blk.0.attn_q.weight occurs twice");
    check(
        find(&bytes, b"blk.0.attn_q"),
        b"blk.0.attn_b",
        "tensor blk.0.attn_b.weight: architecture llama has no use",
    );
    check(find(&bytes, b"output_norm"), b"output_nrom", "output_nrom.weight");
    check(
        find(&bytes, b"llama.context_length"),
        b"llama.context_lengtg",
        "metadata key llama.context_length: expected an integer",
    );
    check(
        find(&bytes, b"llama.context_length"),
        b"general.architecture",
        "general.architecture occurs twice",
    );
    check(find(&bytes, b"smollm"), b"qwen22", "pre-tokeniser qwen22");
    check(find(&bytes, b"gpt2"), b"bert", "tokenizer bert");
    let value = |key: &str| find(&bytes, key.as_bytes()) + key.len() + 4;
    check(value("llama.attention.head_count_kv"), &3u32.to_le_bytes(), "over 3 key-value heads");
    check(value("llama.block_count"), &3u32.to_le_bytes(), "there is no tensor blk.2");
    check(value("llama.block_count"), &0u32.to_le_bytes(), "from 1 to 1024");
    check(value("tokenizer.ggml.eos_token_id"), &9999u32.to_le_bytes(), "eos_token_id");
    let other = SyntheticModel { architecture: "gemma9", ..SyntheticModel::small(TensorType::F32) }.bytes();
    assert!(load(&other).err().unwrap().to_string().contains("architecture gemma9"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any few bytes of the header may be anything: a model or an error, never a panic.
    #[test]
    fn damaged_headers_never_panic(changes in prop::collection::vec((0usize..9_000, any::<u8>()), 1..5), cut in 0usize..200_000) {
        let mut bytes = file();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(bytes.len().min(cut.max(30)));
        let _ = load(&bytes);
    }
}
