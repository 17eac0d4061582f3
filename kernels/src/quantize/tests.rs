//! Quantised files: the same bytes each time, close to their source, servable.

use super::*;
use crate::batch::{Engine, EngineOptions};
use crate::job::{JobEvent, JobSpec, SamplingParams};
use crate::model::{LoadOptions, Model};
use crate::naive::NaiveModel;
use crate::synthetic::SyntheticModel;
use crate::verify::{Verdict, verify};

const KINDS: [QuantizeType; 3] = [QuantizeType::Q8_0, QuantizeType::Q4_0, QuantizeType::Q4_1];

/// A directory, a source file in it, and the path to write to.
fn files(source: &SyntheticModel) -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.gguf"), directory.path().join("out.gguf"));
    std::fs::write(&input, source.bytes()).unwrap();
    (directory, input, output)
}

#[test]
fn the_result_is_named_loads_generates_and_verifies() {
    for kind in KINDS {
        for source in [TensorType::F32, TensorType::Bf16, TensorType::Q4_1, TensorType::Q6K] {
            let (_directory, input, output) =
                files(&SyntheticModel { rope_factors: true, ..SyntheticModel::small(source) });
            let report = quantize(&input, &output, kind).unwrap();
            assert_eq!(report.name, format!("synthetic {}", kind.name()));
            assert_eq!((report.bytes, report.matrices), (std::fs::metadata(&output).unwrap().len(), 15));
            let model = Model::load(&output, LoadOptions::from_environment().unwrap()).unwrap();
            assert_eq!((model.id(), model.name()), (report.id, &report.name[..]));
            let spec = JobSpec {
                job_id: [1; 16],
                prompt_ids: vec![104, 105, 32],
                max_tokens: 9,
                params: SamplingParams::greedy(),
                stop_ids: vec![],
            };
            let options = EngineOptions { threads: 1, jobs_max: 1, queue_max: 1, context_tokens_max: 64 };
            let engine = Engine::start(model.clone(), options);
            let mut handle = engine.submit(spec.clone()).unwrap();
            let mut ids = Vec::new();
            let chain_head = loop {
                match handle.next().unwrap() {
                    JobEvent::Token(token) => ids.push(token.id),
                    JobEvent::Done { chain_head, .. } => break chain_head,
                    JobEvent::Failed(error) => panic!("{error}"),
                }
            };
            assert!(!ids.is_empty());
            assert_eq!(verify(&model, 1, &spec, &ids, &chain_head), Ok(Verdict::Identical { chain_head }));
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bytes_and_values_close_to_its_own() {
    for kind in KINDS {
        let source = SyntheticModel::small(TensorType::F32);
        let (directory, input, output) = files(&source);
        let again = directory.path().join("again.gguf");
        let report = quantize(&input, &output, kind).unwrap();
        assert_eq!(quantize(&input, &again, kind).unwrap(), report);
        assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&again).unwrap());

        let tokens = [104, 105, 32, 119, 111];
        let naive = NaiveModel::read(&source.bytes()).logits(&tokens);
        let model = Model::load(&output, LoadOptions::from_environment().unwrap()).unwrap();
        let error =
            crate::forward::tests::relative_error(&crate::forward::tests::logits(&model, &tokens), &naive);
        let bound = if kind == QuantizeType::Q8_0 { 0.05 } else { 0.5 };
        assert!(error < bound, "{kind:?}: {error}");
    }
}

#[test]
fn what_is_already_of_the_type_is_copied() {
    let (_directory, input, output) = files(&SyntheticModel::small(TensorType::Q8_0));
    quantize(&input, &output, QuantizeType::Q8_0).unwrap();
    let tensors = |path| {
        let bytes = std::fs::read(path).unwrap();
        let header = Header::read(&mut Source::new(&bytes[..], bytes.len() as u64)).unwrap();
        let data = |t: &TensorInfo| bytes[t.offset as usize..][..t.bytes as usize].to_vec();
        header.tensors.iter().map(|t| (t.name.clone(), data(t))).collect::<Vec<_>>()
    };
    assert_eq!(tensors(&input), tensors(&output));
}

#[test]
fn nothing_is_left_behind_or_overwritten() {
    let (_directory, input, output) = files(&SyntheticModel::small(TensorType::F32));
    std::fs::write(&output, b"mine").unwrap();
    let message = quantize(&input, &output, QuantizeType::Q4_0).unwrap_err().to_string();
    assert!(message.contains("there is a file already"), "{message}");
    assert_eq!(std::fs::read(&output).unwrap(), b"mine");

    let damage = vec![("blk.1.ffn_down.weight".to_owned(), 40, f32::NAN.to_le_bytes().to_vec())];
    let (_directory, input, output) =
        files(&SyntheticModel { damage, ..SyntheticModel::small(TensorType::F32) });
    let message = quantize(&input, &output, QuantizeType::Q4_0).unwrap_err().to_string();
    assert!(message.contains("blk.1.ffn_down.weight holds NaN"), "{message}");
    assert!(!output.exists());
}
