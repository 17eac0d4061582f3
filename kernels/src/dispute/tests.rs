//! A dispute ends at the one operation that somebody computed otherwise.

use super::*;
use crate::batch::{Engine, EngineOptions};
use crate::gguf::TensorType;
use crate::job::{JobEvent, JobSpec, SamplingParams, TokenOut};
use crate::numerics::Backend;
use crate::synthetic::SyntheticModel;
use std::sync::Arc;

fn output(model: &Arc<Model>, spec: &JobSpec) -> Vec<TokenOut> {
    let options = EngineOptions { threads: 1, jobs_max: 1, queue_max: 1, context_tokens_max: 256 };
    let engine = Engine::start(Arc::clone(model), options);
    let mut handle = engine.submit(spec.clone()).unwrap();
    let mut tokens = Vec::new();
    while let Some(event) = handle.next() {
        match event {
            JobEvent::Token(token) => tokens.push(token),
            JobEvent::Done { .. } => {}
            JobEvent::Failed(error) => panic!("{error}"),
        }
    }
    tokens
}

fn spec() -> JobSpec {
    let prompt_ids = (0..90).map(|i| (i * 31 + 7) % 256).collect();
    JobSpec {
        job_id: [8; 16],
        prompt_ids,
        max_tokens: 12,
        params: SamplingParams::greedy(),
        stop_ids: vec![],
    }
}

#[test]
fn the_walk_is_what_the_engine_computed() {
    for (architecture, kind) in
        [("llama", TensorType::Q4_1), ("qwen2", TensorType::F16), ("qwen3", TensorType::Q8_0)]
    {
        let synthetic = SyntheticModel { architecture, ..SyntheticModel::small(kind) };
        let model = synthetic.load(Backend::from_environment().unwrap());
        let tokens = output(&model, &spec());
        let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
        for index in [0u32, 3, tokens.len() as u32 - 1] {
            let row = DisputedRow::new(&model, 2, &spec().into(), &ids, index).unwrap();
            let (chain, logits) = row.walk(|_| model.numerics).unwrap();
            assert_eq!(chain.len(), 3 + model.shape.layers * LAYER_STEPS);
            let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            assert_eq!(best as u32, ids[index as usize], "{architecture} {index}");
            // The reference walks the same way.
            assert_eq!(row.walk(|_| &scalar::Scalar).unwrap().0, chain);
        }
    }
}

#[test]
fn a_dispute_is_narrowed_to_the_damaged_tensor_with_few_questions() {
    let honest = SyntheticModel::small(TensorType::Q4_1);
    let model = honest.load(Backend::from_environment().unwrap());
    let ids: Vec<u32> = output(&model, &spec()).iter().map(|t| t.id).collect();
    let request: JobRequest = spec().into();
    for (tensor, layer, operation) in [
        ("blk.1.ffn_down.weight", Some(1), Operation::Down),
        ("blk.0.attn_output.weight", Some(0), Operation::AttentionOutput),
        ("blk.1.ffn_up.weight", Some(1), Operation::GateUp),
        ("output_norm.weight", None, Operation::FinalNorm),
        ("blk.1.attn_norm.weight", Some(1), Operation::AttentionNorm),
    ] {
        let other = SyntheticModel { damage: vec![(tensor.to_owned(), 1, vec![0x21])], ..honest.clone() };
        let theirs = trace(&other.load(Backend::Scalar), 1, &request, &ids, 4).unwrap();
        let mut questions = 0;
        let dispute = settle(&model, 1, &request, &ids, 4, |step| {
            questions += 1;
            theirs.chain[step]
        })
        .unwrap();
        let Dispute::Operation { layer: found, operation: which, ours_stands, theirs_stands, .. } = dispute
        else {
            panic!("{tensor}: {dispute:?}")
        };
        assert_eq!((found, which, ours_stands, theirs_stands), (layer, operation, true, false), "{tensor}");
        assert!(questions <= 7, "{questions} questions");
    }
    let ours = trace(&model, 1, &request, &ids, 4).unwrap();
    assert_eq!(settle(&model, 1, &request, &ids, 4, |step| ours.chain[step]).unwrap(), Dispute::Agreed);
    assert!(matches!(trace(&model, 1, &request, &ids, 12), Err(Error::InvalidJob { .. })));
}
