//! Whole models: the engine on the emulated device against the engine on the scalar reference, bit by bit.

use super::*;
use crate::batch::{Engine, EngineOptions};
use crate::job::{JobEvent, JobSpec, SamplingParams, TokenOut};
use crate::model::{LoadOptions, Model};
use std::path::PathBuf;
use std::sync::Arc;

/// Everything a job leaves.
type Left = (Vec<TokenOut>, Option<JobEvent>, Vec<[u8; 32]>);

fn options() -> EngineOptions {
    EngineOptions { threads: 1, jobs_max: 3, queue_max: 8, context_tokens_max: 512 }
}

fn spec(job: u8, prompt_ids: Vec<u32>, max_tokens: u32) -> JobSpec {
    let params = SamplingParams {
        temperature_millionths: u32::from(job % 2) * 900_000,
        top_p_millionths: 950_000,
        top_k: 40,
        sampling_key: [job; 32],
    };
    JobSpec { job_id: [job; 16], prompt_ids, max_tokens, params, stop_ids: Vec::new() }
}

/// Jobs together, each followed to its end.
fn run(model: &Arc<Model>, specs: &[JobSpec]) -> Vec<Left> {
    let engine = Engine::start(Arc::clone(model), options());
    let handles: Vec<_> = specs.iter().map(|spec| engine.submit(spec.clone()).unwrap()).collect();
    handles
        .into_iter()
        .map(|mut handle| {
            let (mut tokens, mut end) = (Vec::new(), None);
            while let Some(event) = handle.next() {
                match event {
                    JobEvent::Token(token) => tokens.push(token),
                    other => end = Some(other),
                }
            }
            (tokens, end, handle.kv_roots())
        })
        .collect()
}

fn prompt(length: u32, step: u32) -> Vec<u32> {
    (0..length).map(|i| (i * step + 11) % 256).collect()
}

#[test]
fn every_type_and_architecture_gives_the_references_receipts() {
    // More than a page, a single token, and a prompt that begins as the first: pages, decoding in company, shared prefixes.
    let specs = [
        spec(1, prompt(70, 37), 6),
        spec(2, vec![5], 9),
        spec(3, prompt(66, 37), 3),
        spec(4, prompt(90, 37), 4),
    ];
    for (index, kind) in KINDS.into_iter().enumerate() {
        let (architecture, pre) = [("llama", "llama-bpe"), ("qwen2", "qwen2"), ("qwen3", "qwen2")][index % 3];
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
        let expected = run(&synthetic.load(Backend::Scalar), &specs);
        let found = run(&synthetic.load(backend()), &specs);
        assert!(expected.iter().all(|(tokens, ..)| !tokens.is_empty()));
        assert_eq!(expected[0].2.len(), 1, "a full page has a root");
        assert_eq!(found, expected, "{kind:?} {architecture}");
    }
}

#[test]
fn pages_that_do_not_stay_on_the_device_come_back() {
    let synthetic = SyntheticModel::small(TensorType::Q4_0);
    let specs: Vec<JobSpec> = (1..=3).map(|job| spec(job, prompt(60, u32::from(job)), 8)).collect();
    let expected = run(&synthetic.load(Backend::Scalar), &specs);
    let model = synthetic.load(backend());
    // One job at a time has two pages; six are wanted over the three.
    let device = model.device.as_ref().unwrap();
    device.limit_pages(2);
    let found: Vec<Left> = specs.iter().flat_map(|spec| run(&model, std::slice::from_ref(spec))).collect();
    assert_eq!(found, expected);
    assert_eq!(device.page_copies(), 2);
    // Two at once do not fit: both fail, with a reason, and the device goes on.
    let both = run(&model, &specs[..2]);
    assert!(
        both.iter().all(|(_, end, _)| matches!(end, Some(JobEvent::Failed(Error::Device { .. })))),
        "{both:?}"
    );
    assert_eq!(run(&model, &specs[2..]), expected[2..]);
}

#[test]
fn embeddings_and_re_execution_use_the_device_too() {
    let synthetic = SyntheticModel::small(TensorType::Q6K);
    let (scalar, emulated) = (synthetic.load(Backend::Scalar), synthetic.load(backend()));
    let ids = prompt(100, 7);
    let expected = crate::embed(&scalar, 1, [1; 16], &ids).unwrap();
    assert_eq!(crate::embed(&emulated, 1, [1; 16], &ids).unwrap(), expected);
    let spec = spec(7, prompt(20, 3), 12);
    let (tokens, end, _) = run(&scalar, std::slice::from_ref(&spec)).remove(0);
    let Some(JobEvent::Done { chain_head, .. }) = end else { panic!("{end:?}") };
    let mut claimed: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    let verdict = crate::verify(&emulated, 1, &spec, &claimed, &chain_head).unwrap();
    assert!(matches!(verdict, crate::Verdict::Identical { .. }), "{verdict:?}");
    claimed[5] ^= 1;
    let verdict = crate::verify(&emulated, 1, &spec, &claimed, &chain_head).unwrap();
    assert!(matches!(verdict, crate::Verdict::Differs { index: 5, .. }), "{verdict:?}");
}

#[test]
fn a_model_with_nan_fails_its_jobs() {
    let damage = vec![("blk.1.ffn_norm.weight".to_owned(), 8, f32::NAN.to_le_bytes().to_vec())];
    let synthetic = SyntheticModel { damage, ..SyntheticModel::small(TensorType::Q8_0) };
    let specs = [spec(1, prompt(9, 5), 4)];
    let found = run(&synthetic.load(backend()), &specs);
    assert!(matches!(found[0].1, Some(JobEvent::Failed(Error::NonFinite { position: 0 }))), "{found:?}");
    assert_eq!(found, run(&synthetic.load(Backend::Scalar), &specs));
}

/// Without the feature, and with it but without libcuda: an error that says which, never a panic.
#[test]
fn a_build_or_a_machine_without_a_gpu_says_so() {
    let bytes = SyntheticModel::small(TensorType::Q8_0).bytes();
    let options = LoadOptions { backend: Backend::Cuda };
    let features: &[&str] = if cfg!(feature = "cuda") { &["cuda"] } else { &[] };
    let has_feature = features.contains(&"cuda");
    match Model::read(&bytes[..], bytes.len() as u64, options).err() {
        None => assert!(Backend::Cuda.is_available()),
        Some(Error::NoCuda { what }) => assert!(has_feature, "{what}"),
        Some(Error::UnsupportedBackend { what }) => {
            assert!(what.contains("feature cuda"), "{what}");
            assert!(!has_feature, "{what}");
        }
        Some(other) => panic!("{other}"),
    }
}

/// The model file of the other tests; about a second a token through the shim.
#[test]
fn sixteen_tokens_of_the_real_model_are_the_references() {
    let path = std::env::var_os("COUNTERFOIL_MODEL").map(PathBuf::from);
    let path = path.unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.tools/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    });
    assert!(path.exists(), "no model at {}: run cargo xtask tools", path.display());
    let load = |backend| Model::load(&path, LoadOptions { backend }).unwrap();
    let model = load(if Backend::Avx512.is_available() { Backend::Avx512 } else { Backend::Scalar });
    let messages =
        [crate::ChatMessage { role: "user".to_owned(), content: "Count from one to ten.".to_owned() }];
    let prompt = crate::prompt_ids(model.tokenizer(), model.template(), &messages).unwrap();
    let specs = [spec(2, prompt, 16)];
    let expected = run(&model, &specs);
    assert_eq!(expected[0].0.len(), 16);
    assert_eq!(run(&load(backend()), &specs), expected);
}
