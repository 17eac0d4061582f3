//! Controls, resuming and reports on small synthetic models, through the engine and through re-execution.

use super::*;
use crate::batch::{Engine, EngineOptions, JobHandle};
use crate::gguf::TensorType;
use crate::job::{Finish, JobEvent, SamplingParams, TokenOut};
use crate::numerics::Backend;
use crate::synthetic::SyntheticModel;
use crate::verify::{Claim, Level, NO_TOKEN, Verdict, verify_job};
use std::sync::Arc;

const OPTIONS: EngineOptions =
    EngineOptions { threads: 2, jobs_max: 3, queue_max: 2, context_tokens_max: 256 };

fn model() -> Arc<Model> {
    SyntheticModel::small(TensorType::Q4_1).load(Backend::from_environment().unwrap())
}

fn request(seed: u8, prompt: usize, max_tokens: u32) -> JobRequest {
    let params = SamplingParams {
        temperature_millionths: 1_200_000,
        sampling_key: [seed; 32],
        ..SamplingParams::greedy()
    };
    let prompt_ids = (0..prompt as u32).map(|i| (i * 37 + u32::from(seed)) % 256).collect();
    JobSpec { job_id: [seed; 16], prompt_ids, max_tokens, params, stop_ids: vec![] }.into()
}

fn collect(mut handle: JobHandle) -> (Vec<TokenOut>, JobEvent, JobHandle) {
    let mut tokens = Vec::new();
    loop {
        match handle.next().unwrap() {
            JobEvent::Token(token) => tokens.push(token),
            end => return (tokens, end, handle),
        }
    }
}

fn run(model: &Arc<Model>, request: &JobRequest) -> (Vec<TokenOut>, JobEvent) {
    let engine = Engine::start(Arc::clone(model), OPTIONS);
    let (tokens, end, _) = collect(engine.submit(request.clone()).unwrap());
    (tokens, end)
}

fn claim(tokens: &[TokenOut]) -> Claim {
    Claim {
        output_ids: tokens.iter().map(|t| t.id).collect(),
        chain_head: tokens.last().unwrap().chain,
        activations: tokens.iter().map(|t| t.activations).collect(),
        kv_roots: vec![],
    }
}

fn with(change: impl FnOnce(&mut Controls)) -> JobRequest {
    let mut request = request(3, 80, 40);
    change(&mut request.controls);
    request
}

#[test]
fn every_control_changes_the_output_is_bound_by_the_chain_and_verifies() {
    let model = model();
    let plain = run(&model, &request(3, 80, 40)).0;
    let common =
        plain.iter().map(|t| t.id).max_by_key(|id| plain.iter().filter(|t| t.id == *id).count()).unwrap();
    let changed = [
        with(|c| c.min_p_millionths = 300_000),
        with(|c| c.repetition_penalty_millionths = 1_800_000),
        with(|c| c.frequency_penalty_millionths = 2_000_000),
        with(|c| c.presence_penalty_millionths = 2_000_000),
        with(|c| c.logit_bias = vec![(common, -100_000_000)]),
    ];
    for request in changed {
        let (tokens, _) = run(&model, &request);
        assert_ne!(tokens[0].chain, plain[0].chain, "{:?}", request.controls);
        assert!(tokens.iter().map(|t| t.id).ne(plain.iter().map(|t| t.id)), "{:?}", request.controls);
        let claim = claim(&tokens);
        for level in [Level::Chain, Level::Window { tokens: 5, seed: u64::MAX / 3 }, Level::Whole] {
            let finding = verify_job(&model, 2, &request, &claim, level).unwrap();
            assert!(finding.is_identical(), "{:?} {level:?} {finding:?}", request.controls);
        }
        // Another control is another job.
        let other = JobRequest {
            controls: Controls { min_p_millionths: 1, ..request.controls.clone() },
            ..request.clone()
        };
        assert!(!verify_job(&model, 2, &other, &claim, Level::Whole).unwrap().is_identical());
    }
    let banned = run(&model, &with(|c| c.logit_bias = vec![(common, -100_000_000)])).0;
    assert!(banned.iter().all(|t| t.id != common));
    let forced = run(&model, &with(|c| c.logit_bias = vec![(42, 100_000_000)])).0;
    assert!(forced.iter().all(|t| t.id == 42));
    let once = run(&model, &with(|c| c.presence_penalty_millionths = 10_000_000)).0;
    let mut ids: Vec<u32> = once.iter().map(|t| t.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > once.len() * 3 / 4, "{ids:?}");
}

#[test]
fn a_stop_text_ends_the_job_with_the_token_that_completes_it() {
    let model = model();
    let plain: Vec<u32> = run(&model, &request(3, 80, 40)).0.iter().map(|t| t.id).collect();
    // Two bytes that stand side by side in the plain output, as text.
    let ascii = |id: u32| (id < 128).then_some(id as u8 as char);
    let at = (0..39).find(|i| ascii(plain[*i]).is_some() && ascii(plain[i + 1]).is_some()).unwrap();
    let stop: String = plain[at..at + 2].iter().filter_map(|id| ascii(*id)).collect();
    let request = with(|c| c.stop_texts = vec!["never there".to_owned(), stop.clone()]);
    let (tokens, end) = run(&model, &request);
    assert!(matches!(end, JobEvent::Done { finish: Finish::Stop, .. }), "{end:?}");
    let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
    assert_eq!(ids, plain[..ids.len()], "stop texts change no choice");
    let text: Vec<u8> = ids.iter().flat_map(|id| model.tokenizer().token_bytes(*id).to_vec()).collect();
    assert!(
        text.ends_with(stop.as_bytes())
            && text.windows(stop.len()).filter(|w| *w == stop.as_bytes()).count() == 1
    );
    let own = claim(&tokens);
    assert!(verify_job(&model, 1, &request, &own, Level::Whole).unwrap().is_identical());
    // Whoever goes on after it is found.
    let longer = Claim { output_ids: plain[..=ids.len()].to_vec(), activations: vec![], ..own };
    let finding = verify_job(&model, 1, &request, &longer, Level::Whole).unwrap();
    let claimed = plain[ids.len()];
    assert_eq!(finding.verdict, Verdict::Differs { index: ids.len() as u32, expected: NO_TOKEN, claimed });
}

#[test]
fn a_resumed_job_goes_on_along_the_same_chain_from_any_token() {
    let model = model();
    for whole in [request(5, 100, 60), with(|c| c.frequency_penalty_millionths = 1_500_000)] {
        let (tokens, end) = run(&model, &whole);
        let engine = Engine::start(Arc::clone(&model), OPTIONS);
        for cut in [1, 2, 27, tokens.len() - 1] {
            let resume = tokens[..cut].iter().map(|t| t.id).collect();
            let job = JobRequest { resume, ..whole.clone() };
            let (rest, resumed_end, handle) = collect(engine.submit(job).unwrap());
            assert_eq!((&rest[..], &resumed_end), (&tokens[cut..], &end), "after {cut}");
            assert_eq!(handle.resumed_chain(), Some(tokens[cut - 1].chain));
        }
        // A prefix that was never the job's leads to another chain: the gateway sees it at once.
        let mut resume: Vec<u32> = tokens[..10].iter().map(|t| t.id).collect();
        resume[4] = (resume[4] + 1) % 256;
        let (_, _, handle) = collect(engine.submit(JobRequest { resume, ..whole.clone() }).unwrap());
        assert_ne!(handle.resumed_chain(), Some(tokens[9].chain));
    }
    let engine = Engine::start(Arc::clone(&model), OPTIONS);
    let refused = |resume: Vec<u32>| {
        engine.submit(JobRequest { resume, ..request(5, 100, 3) }).err().unwrap().to_string()
    };
    assert!(refused(vec![1, 2, 3]).contains("nothing is left to do"));
    assert!(refused(vec![model.eos()]).contains("ends the job"));
    assert!(refused(vec![5_000]).contains("outside the vocabulary"));
}

#[test]
fn log_probabilities_are_those_of_the_logits_and_change_nothing() {
    let model = model();
    let plain = run(&model, &request(3, 20, 12)).0;
    let reported = run(&model, &JobRequest { logprobs: Some(4), ..request(3, 20, 12) }).0;
    for (plain, reported) in plain.iter().zip(&reported) {
        assert_eq!((plain.id, plain.chain, &plain.logprobs), (reported.id, reported.chain, &None));
    }
    let mut tokens = request(3, 20, 12).spec.prompt_ids;
    for token in &reported {
        let logits = crate::forward::tests::logits(&model, &tokens);
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let exact = |id: u32| (f64::from(logits[id as usize]) - total.ln()) * 1e6;
        let found = token.logprobs.as_ref().unwrap();
        assert!((f64::from(found.chosen_millionths) - exact(token.id)).abs() < 20.0);
        assert_eq!(found.top.len(), 4);
        assert!(found.top.is_sorted_by(|a, b| a.1 >= b.1));
        assert!(found.top.iter().all(|(id, log)| (f64::from(*log) - exact(*id)).abs() < 20.0));
        assert!(logits.iter().filter(|l| **l > logits[found.top[3].0 as usize]).count() == 3);
        tokens.push(token.id);
    }
}

#[test]
fn structured_output_is_json_of_the_schema_and_verifies() {
    let model = model();
    let schema = r#"{"type":"object","properties":{"ok":{"type":"boolean"},"n":{"type":"integer","minimum":0,"maximum":99},
        "kind":{"enum":["a","bb"]}},"required":["ok","n","kind"],"additionalProperties":false}"#;
    for seed in 1..6 {
        let mut request = request(seed, 30, 60);
        request.controls.format = OutputFormat::JsonSchema(schema.to_owned());
        let (tokens, end) = run(&model, &request);
        assert!(matches!(end, JobEvent::Done { finish: Finish::Stop, .. }), "{end:?}");
        let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
        let text = model.tokenizer().decode(&ids);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(value["ok"].is_boolean() && value["n"].as_u64().unwrap() < 100, "{text}");
        assert!(["a", "bb"].contains(&value["kind"].as_str().unwrap()), "{text}");
        let own = claim(&tokens);
        for level in [Level::Whole, Level::Window { tokens: 3, seed: u64::MAX / 2 }] {
            assert!(verify_job(&model, 1, &request, &own, level).unwrap().is_identical());
        }
        // Without the schema the job is another one.
        let free = JobRequest { controls: Controls::default(), ..request };
        assert!(!verify_job(&model, 1, &free, &own, Level::Whole).unwrap().is_identical());
    }
    let mut object = request(9, 30, 30);
    object.controls.format = OutputFormat::JsonObject;
    let text = model.tokenizer().decode(&run(&model, &object).0.iter().map(|t| t.id).collect::<Vec<_>>());
    assert!(text.starts_with('{'), "{text}");
    let engine = Engine::start(Arc::clone(&model), OPTIONS);
    for bad in ["{", r#"{"type":"nonsense"}"#] {
        object.controls.format = OutputFormat::JsonSchema(bad.to_owned());
        let message = engine.submit(object.clone()).err().unwrap().to_string();
        assert!(message.contains("JSON schema"), "{message}");
    }
}

#[test]
fn a_window_and_the_chain_find_what_they_should() {
    let model = model();
    let request = request(4, 70, 50);
    let tokens = run(&model, &request).0;
    let own = claim(&tokens);
    let check = |claim: &Claim, level| verify_job(&model, 2, &request, claim, level).unwrap();
    for seed in [0, 1 << 40, u64::MAX / 2, u64::MAX] {
        let finding = check(&own, Level::Window { tokens: 8, seed });
        assert!(finding.is_identical() && finding.tokens_checked == 8, "{finding:?}");
    }
    assert_eq!(check(&own, Level::Chain).tokens_checked, 0);
    assert_eq!(check(&own, Level::Whole).tokens_checked, tokens.len() as u32);
    // A changed token without a new chain is found by the chain; with a forged chain by the window that meets it.
    let mut forged = own.clone();
    forged.output_ids[25] = (forged.output_ids[25] + 1) % 256;
    assert!(matches!(check(&forged, Level::Chain).verdict, Verdict::HeadDiffers { .. }));
    let mut chain = crate::digest::Chain::of_request(&request, &model.id());
    for (id, digest) in forged.output_ids.iter().zip(&forged.activations) {
        forged.chain_head = chain.push(*id, digest);
    }
    assert!(check(&forged, Level::Chain).is_identical(), "L0 alone trusts the digests");
    let windows = [(0, false), (u64::MAX, true), (u64::MAX / 2, true)];
    for (seed, expected) in windows {
        let finding = check(&forged, Level::Window { tokens: 25, seed });
        assert_eq!(!finding.is_identical(), expected, "{seed}: {finding:?}");
    }
    let without = Claim { activations: vec![], ..own };
    let message = verify_job(&model, 1, &request, &without, Level::Chain).unwrap_err().to_string();
    assert!(message.contains("verify the whole job instead"), "{message}");
}

#[test]
fn wrong_controls_are_refused_by_name() {
    let engine = Engine::start(model(), OPTIONS);
    let refused = |change: fn(&mut Controls)| engine.submit(with(change)).err().unwrap().to_string();
    assert!(refused(|c| c.min_p_millionths = 1_000_001).contains("min_p"));
    assert!(refused(|c| c.repetition_penalty_millionths = 0).contains("repetition penalty"));
    assert!(refused(|c| c.presence_penalty_millionths = i32::MIN).contains("penalty of"));
    assert!(refused(|c| c.logit_bias = vec![(9, 0), (3, 0)]).contains("ascending"));
    assert!(refused(|c| c.logit_bias = vec![(9_999, 0)]).contains("token 9999"));
    assert!(refused(|c| c.stop_texts = vec![String::new()]).contains("stop texts"));
    assert!(
        refused(|c| c.format = OutputFormat::JsonSchema(" ".repeat(70_000)))
            .contains("schema of 70000 bytes")
    );
}

/// The chain of a fixed job with every control, the root of its first page, and an embedding: a change of any byte layout shows.
#[test]
fn golden_controls() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/controls.txt");
    let model = model();
    let hex = |bytes: &[u8; 32]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut job = request(6, 70, 6);
    job.controls = Controls {
        min_p_millionths: 10_000,
        repetition_penalty_millionths: 1_100_000,
        frequency_penalty_millionths: 200_000,
        presence_penalty_millionths: -100_000,
        logit_bias: vec![(7, -2_000_000), (65, 1_500_000)],
        stop_texts: vec!["\u{e9}nd".to_owned()],
        format: OutputFormat::JsonSchema(r#"{"type":"array","items":{"type":"integer"}}"#.to_owned()),
    };
    let engine = Engine::start(Arc::clone(&model), OPTIONS);
    let (tokens, _, handle) = collect(engine.submit(job.clone()).unwrap());
    let start = crate::digest::Chain::of_request(&job, &model.id()).head();
    let embedding = crate::embed::embed(&model, 1, [6; 16], &job.spec.prompt_ids).unwrap();
    let mut text = format!(
        "# J with controls, N, O on the synthetic Q4_1 model of kernels/src/synthetic.rs\nh_0': {}\n",
        hex(&start)
    );
    for token in &tokens {
        text.push_str(&format!("token {} h_{}: {}\n", token.id, token.index + 1, hex(&token.chain)));
    }
    text.push_str(&format!("root of page 0: {}\n", hex(&handle.kv_roots()[0])));
    text.push_str(&format!("embedding of the prompt: {}\n", hex(&embedding.digest)));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}
