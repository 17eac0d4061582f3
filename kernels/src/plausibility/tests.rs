//! Plausibility, measured: outputs of the known weights pass, outputs of other weights do not. Needs the model file that
//! `cargo xtask tools` fetches; the swapped model is made of it.

use super::*;
use crate::batch::{Engine, EngineOptions};
use crate::gguf::{Header, Source};
use crate::job::JobEvent;
use crate::model::LoadOptions;
use crate::quantize::{QuantizeType, quantize};
use crate::template::{ChatMessage, prompt_ids};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const QUESTIONS: [&str; 4] = [
    "Why is the sky blue?",
    "Write a short story about a lighthouse.",
    "Explain what a ledger is.",
    "How do I bake bread?",
];

fn path() -> PathBuf {
    std::env::var_os("COUNTERFOIL_MODEL").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.tools/models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        PathBuf::from,
    )
}

fn load(path: &Path) -> Arc<Model> {
    assert!(path.exists(), "no model at {}: run cargo xtask tools", path.display());
    Model::load(path, LoadOptions::from_environment().unwrap()).unwrap()
}

/// Prompt and output of each question.
fn outputs(model: &Arc<Model>, temperature_millionths: u32) -> Vec<(Vec<u32>, Vec<u32>)> {
    let options = EngineOptions { threads: 2, jobs_max: 6, queue_max: 6, context_tokens_max: 512 };
    let engine = Engine::start(Arc::clone(model), options);
    let submit = |question: &&str| {
        let message = ChatMessage { role: "user".to_owned(), content: (*question).to_owned() };
        let prompt = prompt_ids(model.tokenizer(), model.template(), &[message]).unwrap();
        let params =
            SamplingParams { temperature_millionths, sampling_key: [7; 32], ..SamplingParams::greedy() };
        let spec =
            JobSpec { job_id: [1; 16], prompt_ids: prompt.clone(), max_tokens: 40, params, stop_ids: vec![] };
        (prompt, engine.submit(spec).unwrap())
    };
    let handles: Vec<_> = QUESTIONS.iter().map(submit).collect();
    let ids = |mut handle: crate::batch::JobHandle| {
        std::iter::from_fn(|| handle.next())
            .filter_map(|event| match event {
                JobEvent::Token(token) => Some(token.id),
                JobEvent::Done { .. } => None,
                JobEvent::Failed(error) => panic!("{error}"),
            })
            .collect()
    };
    handles.into_iter().map(|(prompt, handle)| (prompt, ids(handle))).collect()
}

/// A model of the same shape and vocabulary that is another one: five layers of feed-forward weights trade places with five.
fn swapped(directory: &Path) -> PathBuf {
    let mut bytes = std::fs::read(path()).unwrap();
    let header = Header::read(&mut Source::new(&bytes[..], bytes.len() as u64)).unwrap();
    for layer in 8..13 {
        for part in ["ffn_gate", "ffn_up", "ffn_down"] {
            let place = |layer: usize| {
                let name = format!("blk.{layer}.{part}.weight");
                let tensor = header.tensors.iter().find(|t| t.name == name).unwrap();
                tensor.offset as usize..(tensor.offset + tensor.bytes) as usize
            };
            let (first, second) = (bytes[place(layer)].to_vec(), bytes[place(layer + 10)].to_vec());
            bytes[place(layer)].copy_from_slice(&second);
            bytes[place(layer + 10)].copy_from_slice(&first);
        }
    }
    let path = directory.join("swapped.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn honest_outputs_pass_and_swapped_models_do_not() {
    let model = load(&path());
    let directory = tempfile::tempdir().unwrap();
    let other = load(&swapped(directory.path()));
    for temperature in [0, 1_000_000] {
        let judge = |outputs: Vec<(Vec<u32>, Vec<u32>)>| -> Vec<Plausibility> {
            outputs.iter().map(|(p, o)| plausibility(&model, 2, p, o, temperature).unwrap()).collect()
        };
        for found in judge(outputs(&model, temperature)) {
            println!("honest  {temperature:>7} {found:?}");
            assert_eq!(found.plausible, Some(true), "{found:?}");
            assert!(temperature > 0 || (found.rank_mean, found.first_share) == (0.0, 1.0), "{found:?}");
        }
        for found in judge(outputs(&other, temperature)) {
            println!("swapped {temperature:>7} {found:?}");
            assert_eq!(found.plausible, Some(false), "{found:?}");
        }
    }
    // Another quantisation of the same weights is told apart by re-execution, not by plausibility: it must not be accused.
    let path_q8 = directory.path().join("q8.gguf");
    quantize(&path(), &path_q8, QuantizeType::Q8_0).unwrap();
    for (prompt, ids) in outputs(&load(&path_q8), 0) {
        let found = plausibility(&model, 2, &prompt, &ids, 0).unwrap();
        println!("q8_0          0 {found:?}");
        assert_eq!(found.plausible, Some(true), "{found:?}");
    }
}

#[test]
fn too_few_tokens_say_nothing() {
    let model = load(&path());
    let found = plausibility(&model, 1, &[1, 2, 3], &[4, 5], 0).unwrap();
    assert_eq!((found.tokens, found.plausible), (2, None));
    assert_eq!(plausibility(&model, 1, &[1, 2, 3], &[], 0).unwrap().plausible, None);
}
