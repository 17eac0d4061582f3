//! The canonical decoder against the naive one in f64, for every tensor type and architecture.

use super::*;
use crate::gguf::TensorType;
use crate::naive::NaiveModel;
use crate::numerics::Backend;
use crate::synthetic::SyntheticModel;

/// Canonical logits after the last of `tokens`, in one pass of all rows.
pub(crate) fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let rows: Vec<Row> = (0..tokens.len())
        .map(|position| Row {
            sequence: 0,
            position,
            token: tokens[position],
            output: if position + 1 == tokens.len() { Output::Logits } else { Output::Nothing },
        })
        .collect();
    let mut cache = KvCache::new(model.kv_shape());
    cache.grow(tokens.len(), &mut Vec::new());
    let mut space = Workspace::new(model, rows.len(), 1);
    model.forward(&Pool::new(1).unwrap(), &mut space, &rows, &mut [&mut cache]).unwrap();
    assert!((0..rows.len()).all(|row| !space.is_bad(row)));
    space.logits(tokens.len() - 1).to_vec()
}

/// Root mean square of the difference over that of the naive logits.
pub(crate) fn relative_error(canonical: &[f32], naive: &[f64]) -> f64 {
    let square = |sum: f64, x: f64| sum + x * x;
    let difference = canonical.iter().zip(naive).map(|(c, n)| f64::from(*c) - n).fold(0.0, square);
    (difference / naive.iter().copied().fold(0.0, square)).sqrt()
}

/// What 8-bit activations and f16 keys may cost through two random layers.
pub(crate) fn bound(kind: TensorType) -> f64 {
    match kind {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 => 0.001,
        _ => 0.1,
    }
}

#[test]
fn every_type_and_architecture_is_close_to_the_naive_decoder() {
    let tokens: Vec<u32> = (0..70).map(|i| (i * 37 + 11) % 256).collect();
    let kinds = [
        TensorType::F32,
        TensorType::F16,
        TensorType::Bf16,
        TensorType::Q4_0,
        TensorType::Q4_1,
        TensorType::Q8_0,
        TensorType::Q4K,
        TensorType::Q6K,
    ];
    let mut worst: f64 = 0.0;
    for (index, kind) in kinds.into_iter().enumerate() {
        for (architecture, pre) in [("llama", "llama-bpe"), ("qwen2", "qwen2"), ("qwen3", "qwen2")] {
            let small = SyntheticModel::small(kind);
            let synthetic = SyntheticModel {
                architecture,
                pre,
                separate_head: index % 2 == 0,
                rope_factors: architecture == "llama",
                head_dim: if architecture == "qwen3" { 2 * small.head_dim } else { small.head_dim },
                embedding_kind: (kind == TensorType::Q4K).then_some(TensorType::Q6K),
                ..small
            };
            let bytes = synthetic.bytes();
            let canonical = logits(&synthetic.load(Backend::from_environment().unwrap()), &tokens);
            let error = relative_error(&canonical, &NaiveModel::read(&bytes).logits(&tokens));
            assert!(error < bound(kind), "{kind:?} {architecture}: {error}");
            worst = worst.max(error / bound(kind));
        }
    }
    assert!(worst > 0.01, "the bounds are far too wide: {worst}");
}

#[test]
fn a_file_without_its_rope_factors_is_far_beyond_the_bound() {
    let tokens: Vec<u32> = (0..70).map(|i| (i * 37 + 11) % 256).collect();
    let synthetic = SyntheticModel { rope_factors: true, ..SyntheticModel::small(TensorType::F32) };
    let naive = NaiveModel::read(&synthetic.bytes()).logits(&tokens);
    let other = SyntheticModel { rope_factors: false, ..synthetic };
    let error = relative_error(&logits(&other.load(Backend::Scalar), &tokens), &naive);
    assert!(error > 3.0 * bound(TensorType::Q4_0), "{error}");
}

/// Files and logits by a writer and a decoder that share no code with ours; `cargo xtask test` sets the variable.
#[test]
fn files_of_a_foreign_writer_are_close_to_its_own_decoder() {
    #[derive(serde::Deserialize)]
    struct Case {
        kind: String,
        tokens: Vec<u32>,
        logits: Vec<f64>,
    }
    let Some(python) = std::env::var_os("COUNTERFOIL_PYTHON") else {
        eprintln!("left out: COUNTERFOIL_PYTHON names no Python with xtask/foreign-requirements.txt");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/write_models.py");
    let status = std::process::Command::new(python).arg(script).arg(directory.path()).status().unwrap();
    assert!(status.success(), "write_models.py: {status}");
    let (mut cases, mut failures) = (0, Vec::new());
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let case: Case = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let file = path.with_extension("gguf");
        let model = Model::load(&file, crate::model::LoadOptions::from_environment().unwrap()).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let naive = NaiveModel::read(&bytes).logits(&case.tokens);
        // Our naive decoder agrees with the foreign one to rounding, the canonical one within its bound.
        let as_f32: Vec<f32> = naive.iter().map(|x| *x as f32).collect();
        let naive_error = relative_error(&as_f32, &case.logits);
        let error = relative_error(&logits(&model, &case.tokens), &case.logits);
        let bound = if matches!(&case.kind[..], "F32" | "F16" | "BF16") { 0.001 } else { 0.15 };
        println!("{}: {error:.6}, naive {naive_error:.1e}", file.display());
        if error > bound || naive_error > 1e-5 {
            failures.push(format!("{}: {error}, naive {naive_error}", file.display()));
        }
        cases += 1;
    }
    assert_eq!((cases, failures), (24, Vec::new()));
}
