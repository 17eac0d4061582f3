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
    check(entry + 20, &11u32.to_le_bytes(), "blk.0.attn_q.weight has type 11 (Q3_K)");
    check(
        entry + 20,
        &14u32.to_le_bytes(),
        "blk.0.attn_q.weight: row of 64 elements is not a multiple of its block",
    );
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

#[test]
fn what_an_architecture_needs_must_be_there() {
    let file =
        |architecture| SyntheticModel { architecture, ..SyntheticModel::small(TensorType::F32) }.bytes();
    let refused = |mut bytes: Vec<u8>, old: &[u8], new: &[u8], expected: &str| {
        let at = find(&bytes, old);
        bytes[at..at + new.len()].copy_from_slice(new);
        let message =
            load(&bytes).err().unwrap_or_else(|| panic!("loaded; expected {expected:?}")).to_string();
        assert!(message.contains(expected), "{message:?} does not mention {expected:?}");
    };
    assert!(load(&file("qwen2")).is_ok() && load(&file("qwen3")).is_ok());
    refused(
        file("qwen2"),
        b"blk.1.attn_q.bias",
        b"blk.1.attn_x.bias",
        "tensor blk.1.attn_x.bias: architecture qwen2",
    );
    refused(
        file("qwen3"),
        b"blk.1.attn_q_norm",
        b"blk.1.attn_q_nurm",
        "tensor blk.1.attn_q_nurm.weight: architecture qwen3",
    );
    let factors = SyntheticModel { rope_factors: true, ..SyntheticModel::small(TensorType::F32) };
    for bad in [0.0f32, -1.0, f32::NAN, f32::INFINITY] {
        let damage = vec![("rope_freqs.weight".to_owned(), 4, bad.to_le_bytes().to_vec())];
        let message = load(&SyntheticModel { damage, ..factors.clone() }.bytes()).err().unwrap().to_string();
        assert!(message.contains("rope_freqs.weight holds"), "{message}");
    }
}

/// A file costs at most this many times its size, and this many bytes besides (buffers, names of expected tensors).
const ALLOCATION_FACTOR: usize = 64;
const ALLOCATION_BASE: usize = 4 << 20;

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    let kinds = [
        TensorType::F32,
        TensorType::Bf16,
        TensorType::Q4_0,
        TensorType::Q8_0,
        TensorType::Q4K,
        TensorType::Q6K,
    ];
    let files = prop::sample::select(kinds.to_vec()).prop_flat_map(|kind| {
        prop::sample::select(vec!["llama", "qwen2", "qwen3"]).prop_map(move |architecture| {
            SyntheticModel { architecture, ..SyntheticModel::small(kind) }.bytes()
        })
    });
    files.boxed()
}

/// What a writer of hostile files would try: extreme integers where counts, lengths, types and offsets stand.
fn mutate(bytes: &mut Vec<u8>, mutations: &[(u32, u8, u64)]) {
    for (at, kind, value) in mutations {
        // Three of four mutations hit the header.
        let span = if kind % 4 == 0 { bytes.len() } else { bytes.len().min(9_000) };
        let at = *at as usize % span;
        let extreme = [0, 1, u64::MAX, u64::MAX - 31, 1 << 32, 1 << 40, u64::from(u32::MAX), *value]
            [*kind as usize % 8];
        let width = [1, 4, 8][*kind as usize % 3].min(bytes.len() - at);
        match kind % 5 {
            0 => bytes.truncate(at.max(24)),
            1 => drop(bytes.splice(at..at, extreme.to_le_bytes())),
            _ => bytes[at..at + width].copy_from_slice(&extreme.to_le_bytes()[..width]),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever a file says: a model or an error, never a panic, never more memory than its size allows.
    #[test]
    fn hostile_files_never_panic_and_cost_no_more_than_their_size(
        file in any_file(), mutations in prop::collection::vec((any::<u32>(), any::<u8>(), any::<u64>()), 1..6),
    ) {
        let mut bytes = file;
        mutate(&mut bytes, &mutations);
        let (_, peak) = crate::allocation::peak_bytes(|| load(&bytes).is_ok());
        prop_assert!(peak <= ALLOCATION_FACTOR * bytes.len() + ALLOCATION_BASE, "{peak} bytes for a file of {}", bytes.len());
    }
}

#[test]
fn a_claimed_context_or_a_claimed_depth_costs_nothing() {
    for (context, layers) in [(u32::MAX, 2), (131_072, 2), (256, 1_000)] {
        let mut bytes = SyntheticModel { context, ..SyntheticModel::small(TensorType::Q8_0) }.bytes();
        let at = find(&bytes, b"llama.block_count") + 21;
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(layers));
        let (loaded, peak) = crate::allocation::peak_bytes(|| load(&bytes).is_ok());
        assert_eq!(loaded, layers == 2);
        assert!(peak < ALLOCATION_BASE + 8 * bytes.len(), "{peak}");
    }
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
