//! The engine on small synthetic models: every tensor type, company, threads, cancelling, failures, re-execution.

use super::*;
use crate::gguf::TensorType;
use crate::job::SamplingParams;
use crate::job::{JobSpec, TokenOut};
use crate::numerics::Backend;
use crate::synthetic::{IM_END, SyntheticModel};
use crate::verify::{NO_TOKEN, Verdict, verify};

const OPTIONS: EngineOptions =
    EngineOptions { threads: 2, jobs_max: 3, queue_max: 2, context_tokens_max: 256 };
const KINDS: [TensorType; 8] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q8_0,
    TensorType::Q4K,
    TensorType::Q6K,
];

fn fastest(kind: TensorType) -> Arc<Model> {
    SyntheticModel::small(kind).load(Backend::from_environment().unwrap())
}

fn spec(seed: u8, prompt: usize, max_tokens: u32) -> JobSpec {
    let params = SamplingParams {
        temperature_millionths: 1_500_000,
        top_p_millionths: 990_000,
        top_k: 200,
        sampling_key: [seed; 32],
    };
    let prompt_ids = (0..prompt as u32).map(|i| (i * 37 + u32::from(seed)) % 256).collect();
    JobSpec { job_id: [seed; 16], prompt_ids, max_tokens, params, stop_ids: vec![] }
}

fn collect(mut handle: JobHandle) -> (Vec<TokenOut>, JobEvent) {
    let mut tokens = Vec::new();
    loop {
        match handle.next().unwrap() {
            JobEvent::Token(token) => tokens.push(token),
            end => return (tokens, end),
        }
    }
}

fn run(model: &Arc<Model>, options: EngineOptions, spec: &JobSpec) -> (Vec<TokenOut>, JobEvent) {
    collect(Engine::start(Arc::clone(model), options).submit(spec.clone()).unwrap())
}

fn ids(tokens: &[TokenOut]) -> Vec<u32> {
    tokens.iter().map(|t| t.id).collect()
}

#[test]
fn every_type_backend_and_thread_count_gives_the_same_and_verifies() {
    for kind in KINDS {
        for separate_head in [false, true] {
            let synthetic = SyntheticModel { separate_head, ..SyntheticModel::small(kind) };
            let job = spec(5, 90, 12);
            let expected =
                run(&synthetic.load(Backend::Scalar), EngineOptions { threads: 1, ..OPTIONS }, &job);
            for backend in [Backend::Scalar, Backend::Avx2, Backend::Avx512, Backend::Neon] {
                if !backend.is_available() {
                    continue;
                }
                let model = synthetic.load(backend);
                // The reference is slow; its own one-thread run is what all are compared with.
                let counts: &[usize] = if backend == Backend::Scalar { &[2] } else { &[1, 2, 3] };
                for threads in counts.iter().copied() {
                    assert_eq!(
                        run(&model, EngineOptions { threads, ..OPTIONS }, &job),
                        expected,
                        "{kind:?} {backend:?} {threads}"
                    );
                }
                let head = expected.0.last().unwrap().chain;
                let verdict = verify(&model, 2, &job, &ids(&expected.0), &head).unwrap();
                assert_eq!(verdict, Verdict::Identical { chain_head: head }, "{kind:?} {backend:?}");
            }
        }
    }
}

#[test]
fn every_architecture_runs_the_same_on_every_backend_and_verifies() {
    for architecture in ["llama", "qwen2", "qwen3"] {
        let synthetic = SyntheticModel {
            architecture,
            rope_factors: architecture == "llama",
            head_dim: 32,
            ..SyntheticModel::small(TensorType::Q8_0)
        };
        let job = spec(4, 100, 16);
        let expected = run(&synthetic.load(Backend::Scalar), EngineOptions { threads: 1, ..OPTIONS }, &job);
        for backend in
            [Backend::Avx2, Backend::Avx512, Backend::Neon].into_iter().filter(|b| b.is_available())
        {
            let model = synthetic.load(backend);
            assert_eq!(run(&model, OPTIONS, &job), expected, "{architecture} {backend:?}");
            let head = expected.0.last().unwrap().chain;
            let verdict = verify(&model, 2, &job, &ids(&expected.0), &head).unwrap();
            assert_eq!(verdict, Verdict::Identical { chain_head: head });
        }
    }
}

#[test]
fn a_job_in_company_is_the_job_alone() {
    let model = fastest(TensorType::Q4_1);
    let jobs: Vec<JobSpec> = (0..5).map(|i| spec(i, 1 + 40 * i as usize, 30 + u32::from(i))).collect();
    let alone: Vec<_> = jobs.iter().map(|job| run(&model, OPTIONS, job)).collect();
    let engine = Engine::start(Arc::clone(&model), OPTIONS);
    let handles: Vec<JobHandle> = jobs.iter().map(|job| engine.submit(job.clone()).unwrap()).collect();
    for (handle, alone) in handles.into_iter().zip(alone) {
        assert_eq!(collect(handle), alone);
    }
    let metrics = engine.metrics();
    assert_eq!((metrics.jobs_ended_total, metrics.jobs_running, metrics.kv_pages_used), (5, 0, 0));
    assert_eq!(metrics.prompt_tokens_total, jobs.iter().map(|j| j.prompt_ids.len() as u64).sum::<u64>());
}

#[test]
fn cancelled_at_any_token_the_prefix_is_valid() {
    let model = fastest(TensorType::Q8_0);
    let job = spec(9, 70, 60);
    let (whole, _) = run(&model, OPTIONS, &job);
    let engine = Engine::start(Arc::clone(&model), OPTIONS);
    for cut in 0..8 {
        let mut handle = engine.submit(job.clone()).unwrap();
        let canceller = handle.canceller();
        let mut tokens = Vec::new();
        for _ in 0..cut {
            let Some(JobEvent::Token(token)) = handle.next() else { panic!("ended before {cut}") };
            tokens.push(token);
        }
        canceller.cancel();
        let (more, end) = collect(handle);
        tokens.extend(more);
        assert_eq!(tokens, whole[..tokens.len()]);
        let JobEvent::Done { finish, chain_head } = end else { panic!("{end:?}") };
        assert!(finish == Finish::Cancelled || tokens.len() == whole.len());
        let verdict = verify(&model, 1, &job, &ids(&tokens), &chain_head).unwrap();
        assert_eq!(verdict, Verdict::Identical { chain_head });
    }
}

#[test]
fn re_execution_finds_every_change() {
    let model = fastest(TensorType::Q4_1);
    let job = spec(2, 90, 40);
    let (tokens, _) = run(&model, OPTIONS, &job);
    let (ids, head) = (ids(&tokens), tokens.last().unwrap().chain);
    let check = |job: &JobSpec, ids: &[u32], head: &[u8; 32]| verify(&model, 2, job, ids, head).unwrap();
    for at in [0, 1, 17, ids.len() - 1] {
        let mut changed = ids.clone();
        changed[at] = (changed[at] + 1) % 256;
        let expected = Verdict::Differs { index: at as u32, expected: ids[at], claimed: changed[at] };
        assert_eq!(check(&job, &changed, &head), expected);
        changed[at] = 5_000_000;
        assert!(matches!(check(&job, &changed, &head), Verdict::Differs { index, .. } if index == at as u32));
        // The head of a prefix is not the head of the whole.
        assert!(matches!(check(&job, &ids[..at], &head), Verdict::HeadDiffers { .. }));
        let prefix_head = tokens[at].chain;
        assert_eq!(check(&job, &ids[..=at], &prefix_head), Verdict::Identical { chain_head: prefix_head });
    }
    let differs = |job: &JobSpec| !matches!(check(job, &ids, &head), Verdict::Identical { .. });
    let change = |f: fn(&mut JobSpec)| {
        let mut job = job.clone();
        f(&mut job);
        job
    };
    assert!(!differs(&job));
    assert!(differs(&change(|j| j.job_id[0] ^= 1)));
    assert!(differs(&change(|j| j.prompt_ids[3] ^= 1)));
    assert!(differs(&change(|j| j.params.sampling_key[0] ^= 1)));
    assert!(differs(&change(|j| j.params.sampling_key[31] ^= 1)));
    assert!(differs(&change(|j| j.params.temperature_millionths += 1)));
    assert!(differs(&change(|j| j.params.top_p_millionths -= 1)));
    assert!(differs(&change(|j| j.params.top_k -= 1)));
    assert!(differs(&change(|j| j.stop_ids.push(255))));
    assert!(differs(&change(|j| j.max_tokens += 1)));
    let other = SyntheticModel { seed: 2, ..SyntheticModel::small(TensorType::Q4_1) }.load(Backend::Scalar);
    assert!(!matches!(verify(&other, 1, &job, &ids, &head).unwrap(), Verdict::Identical { .. }));
}

#[test]
fn nothing_may_follow_the_end() {
    let model = fastest(TensorType::Q4_1);
    let mut job = spec(3, 20, 30);
    let (tokens, end) = run(&model, OPTIONS, &job);
    assert!(matches!(end, JobEvent::Done { finish: Finish::Length, .. }), "{end:?}");
    let mut longer = ids(&tokens);
    longer.push(7);
    let verdict = verify(&model, 1, &job, &longer, &[0; 32]).unwrap();
    assert_eq!(verdict, Verdict::Differs { index: 30, expected: NO_TOKEN, claimed: 7 });
    // The same tokens with the tenth as a stop token.
    let stop = tokens[9].id;
    job.stop_ids.push(stop);
    let first = ids(&tokens).iter().position(|id| *id == stop).unwrap();
    let (stopped, end) = run(&model, OPTIONS, &job);
    assert_eq!(ids(&stopped), &ids(&tokens)[..=first]);
    assert!(matches!(end, JobEvent::Done { finish: Finish::Stop, .. }), "{end:?}");
    let verdict = verify(&model, 1, &job, &ids(&tokens), &[0; 32]).unwrap();
    assert_eq!(
        verdict,
        Verdict::Differs { index: first as u32 + 1, expected: NO_TOKEN, claimed: tokens[first + 1].id }
    );
}

#[test]
fn damaged_weights_fail_the_job_and_only_the_job() {
    // The embedding of token 7 has a scale of infinity: only prompts with token 7 touch it, but logits always do.
    let row_bytes = TensorType::Q4_1.row_bytes(64);
    let damage = vec![("token_embd.weight".to_owned(), 7 * row_bytes, vec![0x00, 0x7c])];
    let synthetic = SyntheticModel { damage, separate_head: true, ..SyntheticModel::small(TensorType::Q4_1) };
    let model = synthetic.load(Backend::from_environment().unwrap());
    let engine = Engine::start(Arc::clone(&model), OPTIONS);
    let mut good = spec(1, 100, 25);
    good.prompt_ids.iter_mut().for_each(|id| *id = 8 + *id % 200);
    good.params.temperature_millionths = 0;
    let mut bad = spec(2, 100, 25);
    bad.prompt_ids[80] = 7;
    bad.prompt_ids[..80].iter_mut().for_each(|id| *id = 9);
    let (first, second) = (engine.submit(good.clone()).unwrap(), engine.submit(bad.clone()).unwrap());
    assert_eq!(collect(second), (vec![], JobEvent::Failed(Error::NonFinite { position: 80 })));
    let (tokens, end) = collect(first);
    let JobEvent::Done { chain_head, .. } = end else { panic!("{end:?}") };
    assert_eq!(
        verify(&model, 1, &good, &ids(&tokens), &chain_head).unwrap(),
        Verdict::Identical { chain_head }
    );
    assert_eq!(verify(&model, 1, &bad, &[1], &[0; 32]), Err(Error::NonFinite { position: 80 }));
    // In every other tensor a NaN reaches every job.
    for name in [
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
        "attn_norm",
        "ffn_norm",
    ] {
        let damage = vec![(
            format!("blk.1.{name}.weight"),
            0,
            if name.ends_with("norm") { f32::NAN.to_le_bytes().to_vec() } else { vec![0xff, 0x7f] },
        )];
        let model = SyntheticModel { damage, ..SyntheticModel::small(TensorType::Q4_1) }
            .load(Backend::from_environment().unwrap());
        let (tokens, end) = run(&model, OPTIONS, &good);
        assert!(
            tokens.is_empty() && matches!(end, JobEvent::Failed(Error::NonFinite { .. })),
            "{name} {end:?}"
        );
    }
}

#[test]
fn wrong_jobs_and_full_queues_are_refused() {
    let model = fastest(TensorType::F16);
    let engine = Engine::start(Arc::clone(&model), OPTIONS);
    let refused = |change: fn(&mut JobSpec)| {
        let mut job = spec(1, 10, 10);
        change(&mut job);
        engine.submit(job).err().unwrap()
    };
    assert!(refused(|j| j.prompt_ids.clear()).to_string().contains("empty"));
    assert!(refused(|j| j.prompt_ids[0] = 9999).to_string().contains("9999"));
    assert!(refused(|j| j.max_tokens = 0).to_string().contains("max_tokens"));
    assert!(refused(|j| j.params.top_p_millionths = 0).to_string().contains("top_p"));
    assert!(refused(|j| j.params.temperature_millionths = u32::MAX).to_string().contains("temperature"));
    let error = Error::ContextExceeded { prompt_tokens: 10, max_tokens: 247, context_tokens: 256 };
    assert_eq!(refused(|j| j.max_tokens = 247), error);
    assert!(matches!(refused(|j| j.max_tokens = u32::MAX), Error::ContextExceeded { .. }));
}

#[test]
fn a_full_queue_is_busy_until_somebody_leaves() {
    // An engine whose scheduler never comes: what is submitted stays in the queue.
    let shared =
        Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), counters: Counters::default() });
    let model = fastest(TensorType::F16);
    let engine = Engine { model, options: OPTIONS, kv_pages_max: 12, shared, scheduler: None };
    let mut handles: Vec<JobHandle> = (0..5).map(|_| engine.submit(spec(1, 10, 10)).unwrap()).collect();
    let busy = Error::Busy { waiting: 5, queue_max: 2 };
    assert_eq!(engine.submit(spec(1, 10, 10)).err(), Some(busy.clone()));
    assert_eq!(engine.metrics().jobs_waiting, 5);
    handles.pop();
    handles.push(engine.submit(spec(1, 10, 10)).unwrap());
    assert_eq!(engine.submit(spec(1, 10, 10)).err(), Some(busy));
    engine.shared.fail(&Error::Stopped);
    assert_eq!(engine.submit(spec(1, 10, 10)).err(), Some(Error::Stopped));
    for handle in handles {
        assert_eq!(collect(handle), (vec![], JobEvent::Failed(Error::Stopped)));
    }
}

#[test]
fn the_end_of_the_engine_ends_every_job() {
    let engine = Engine::start(fastest(TensorType::F16), OPTIONS);
    let handles: Vec<JobHandle> = (0..5).filter_map(|i| engine.submit(spec(i, 10, 240)).ok()).collect();
    drop(engine);
    for handle in handles {
        let (_, end) = collect(handle);
        assert!(matches!(end, JobEvent::Done { .. } | JobEvent::Failed(Error::Stopped)), "{end:?}");
    }
}

#[test]
fn a_job_waits_for_its_pages_and_changes_no_bit_by_waiting() {
    let model = fastest(TensorType::Q4_1);
    // Three slots, but pages for two jobs of 250 tokens and a half.
    let tuning = EngineTuning { kv_pages: Some(10), ..EngineTuning::default() };
    let engine = Engine::start_tuned(Arc::clone(&model), OPTIONS, tuning);
    assert_eq!(engine.metrics().kv_pages_max, 10);
    let jobs: Vec<JobSpec> = (0..5).map(|i| spec(i, 60, 190)).collect();
    let alone: Vec<_> = jobs.iter().map(|job| run(&model, OPTIONS, job)).collect();
    let handles: Vec<JobHandle> = jobs.iter().map(|job| engine.submit(job.clone()).unwrap()).collect();
    let mut running_max = 0;
    while engine.metrics().jobs_ended_total < 5 {
        let metrics = engine.metrics();
        running_max = running_max.max(metrics.jobs_running);
        assert!(metrics.kv_pages_used <= 10 && metrics.jobs_running <= 2, "{metrics:?}");
        thread::yield_now();
    }
    assert_eq!(running_max, 2);
    for (handle, alone) in handles.into_iter().zip(alone) {
        assert_eq!(collect(handle), alone);
    }
    // What could never have its pages is refused, not queued.
    let error = Error::ContextExceeded { prompt_tokens: 100, max_tokens: 221, context_tokens: 256 };
    assert_eq!(engine.submit(spec(1, 100, 221)).err(), Some(error));
    let two = EngineTuning { kv_pages: Some(2), ..EngineTuning::default() };
    let engine = Engine::start_tuned(model, OPTIONS, two);
    let error = Error::ContextExceeded { prompt_tokens: 100, max_tokens: 29, context_tokens: 128 };
    assert_eq!(engine.submit(spec(1, 100, 29)).err(), Some(error));
    assert!(!collect(engine.submit(spec(1, 100, 28)).unwrap()).0.is_empty());
}

#[test]
fn a_handle_that_is_dropped_frees_its_slot() {
    let model = fastest(TensorType::F32);
    let engine = Engine::start(model, EngineOptions { jobs_max: 1, ..OPTIONS });
    for _ in 0..4 {
        drop(engine.submit(spec(1, 10, 240)).unwrap());
    }
    let (tokens, _) = collect(engine.submit(spec(1, 10, 5)).unwrap());
    assert!(!tokens.is_empty());
}

#[test]
fn eos_is_the_last_output_token_and_has_no_text() {
    let model = fastest(TensorType::Q4_1);
    assert_eq!(model.eos(), IM_END);
    assert_eq!(model.tokenizer().decode(&[104, IM_END]), "h");
}

#[test]
fn chunks_and_kept_prefixes_change_no_bit() {
    let model = fastest(TensorType::Q8_0);
    let jobs: Vec<JobSpec> = (0..4).map(|i| JobSpec { job_id: [i; 16], ..spec(7, 200, 30) }).collect();
    let tuned = |prefill_rows, prefix_pages| {
        let engine = Engine::start_tuned(
            Arc::clone(&model),
            OPTIONS,
            EngineTuning { prefill_rows, prefix_pages, kv_pages: None },
        );
        let outcomes: Vec<_> = jobs
            .iter()
            .map(|job| {
                let mut handle = engine.submit(job.clone()).unwrap();
                let mut events = Vec::new();
                events.extend(std::iter::from_fn(|| handle.next()));
                (events, handle.kv_roots())
            })
            .collect();
        (outcomes, engine.metrics())
    };
    let (expected, without) = tuned(64, 0);
    assert_eq!((without.prefix_tokens_reused_total, without.prefix_pages_kept), (0, 0));
    assert_eq!(expected[0].1.len(), 3, "229 positions are stored: three full pages");
    for (prefill_rows, prefix_pages) in [(1, 0), (7, 32), (63, 2), (64, 1), (4096, 32), (64, 32)] {
        let (found, metrics) = tuned(prefill_rows, prefix_pages);
        assert!(found == expected, "{prefill_rows} rows, {prefix_pages} pages");
        let reused = (prefix_pages.min(3) * 3 * 64) as u64;
        // Fewer pages than the prefix has are overwritten by its own later ones.
        assert!(metrics.prefix_pages_kept <= prefix_pages);
        assert!(prefix_pages < 3 || metrics.prefix_tokens_reused_total == reused, "{metrics:?}");
        assert_eq!(metrics.prompt_tokens_total, 800);
    }
}

#[test]
fn a_prefix_is_not_mistaken_for_another() {
    let model = fastest(TensorType::Q8_0);
    let engine = Engine::start(Arc::clone(&model), OPTIONS);
    let first = spec(7, 150, 10);
    collect(engine.submit(first.clone()).unwrap());
    for changed in [0, 63, 64, 127, 128, 149] {
        let mut job = first.clone();
        job.prompt_ids[changed] = (job.prompt_ids[changed] + 1) % 256;
        assert_eq!(collect(engine.submit(job.clone()).unwrap()), run(&model, OPTIONS, &job), "{changed}");
    }
    // A prompt that ends where a page ends: its last row is run all the same.
    let job = JobSpec { prompt_ids: first.prompt_ids[..128].to_vec(), ..first };
    assert_eq!(collect(engine.submit(job.clone()).unwrap()), run(&model, OPTIONS, &job));
}

#[test]
fn claimed_pages_are_checked() {
    let model = fastest(TensorType::Q4_1);
    let job = spec(2, 130, 20);
    let engine = Engine::start(Arc::clone(&model), OPTIONS);
    let mut handle = engine.submit(job.clone()).unwrap();
    let mut tokens = Vec::new();
    while let Some(event) = handle.next() {
        tokens.extend(match event {
            JobEvent::Token(token) => Some(token),
            _ => None,
        });
    }
    let mut claim = crate::verify::Claim {
        output_ids: ids(&tokens),
        chain_head: tokens.last().unwrap().chain,
        activations: vec![],
        kv_roots: handle.kv_roots(),
    };
    let check = |claim: &crate::verify::Claim| {
        crate::verify::verify_job(&model, 1, &job.clone().into(), claim, crate::verify::Level::Whole).unwrap()
    };
    assert_eq!(claim.kv_roots.len(), 2);
    assert!(check(&claim).is_identical());
    claim.kv_roots[1][0] ^= 1;
    assert_eq!(check(&claim).kv_page_differs, Some(1));
}

#[test]
fn a_draining_engine_finishes_what_it_has_and_takes_nothing_new() {
    let engine = Engine::start(fastest(TensorType::Q4_1), OPTIONS);
    let handles: Vec<JobHandle> = (1..4).map(|i| engine.submit(spec(i, 40, 30)).unwrap()).collect();
    engine.drain();
    assert_eq!(engine.submit(spec(9, 10, 10)).err(), Some(Error::Draining));
    let metrics = engine.metrics();
    assert_eq!((metrics.draining, metrics.jobs_running, metrics.jobs_ended_total), (true, 0, 3));
    assert!(metrics.busy_us_total > 0);
    for handle in handles {
        assert!(matches!(collect(handle).1, JobEvent::Done { finish: Finish::Length | Finish::Stop, .. }));
    }
}

#[test]
fn cancelled_in_the_middle_of_a_prompt_or_a_resumption_nothing_is_left() {
    let model = fastest(TensorType::Q4_1);
    let tuning = EngineTuning { prefill_rows: 1, prefix_pages: 0, kv_pages: None };
    let engine = Engine::start_tuned(Arc::clone(&model), OPTIONS, tuning);
    let job = spec(2, 150, 20);
    for steps in [0, 1, 63, 64, 65, 149] {
        let before = engine.metrics().steps_total;
        let handle = engine.submit(job.clone()).unwrap();
        while engine.metrics().steps_total < before + steps {
            std::hint::spin_loop();
        }
        handle.cancel();
        let (tokens, end) = collect(handle);
        let JobEvent::Done { chain_head, .. } = end else { panic!("{end:?}") };
        assert_eq!(
            verify(&model, 1, &job, &ids(&tokens), &chain_head),
            Ok(Verdict::Identical { chain_head })
        );
    }
    engine.drain();
    assert_eq!(engine.metrics().kv_pages_used, 0);
}

/// The chain of a fixed job on a fixed model: a change of any byte layout or rounding shows here.
#[test]
fn golden_chain() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/chain.txt");
    let model = fastest(TensorType::Q4_1);
    let hex = |bytes: &[u8; 32]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let job = spec(6, 70, 6);
    let (tokens, _) = run(&model, OPTIONS, &job);
    let mut text = format!(
        "# J on the synthetic Q4_1 model of kernels/src/synthetic.rs\nmodel: {}\nh_0: {}\n",
        hex(&model.id()),
        hex(&Chain::start(&job, &model.id()).head())
    );
    tokens
        .iter()
        .for_each(|t| text.push_str(&format!("token {} h_{}: {}\n", t.id, t.index + 1, hex(&t.chain))));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}
