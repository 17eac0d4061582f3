//! Jobs in good order: the answer, refusals, cancel, stop texts.

use crate::gateway::{Job, Network, model, random, sealing_key};
use kernels::{Verdict, verify};
use protocol::id::Hash32;
use protocol::job_message::{NakReason, ResultMessage, receipt_subject, sampling_key};
use protocol::receipt::Finish;
use std::time::Instant;
use worker::backend::job_request;

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_becomes_frames_and_a_receipt_that_anybody_can_re_execute() {
    let mut network = Network::start().await;
    let worker = network.worker(2).await;
    let job = Job::new(sealing_key(&worker), "Name three colours.", 24);
    network.send(&job).await;
    network.expect_accept(&job).await;
    let answer = network.answer_of(&job).await;
    let receipt = answer.checked_receipt(&job, &network);
    assert!(matches!(receipt.finish, Finish::Stop | Finish::Length));
    assert_eq!(answer.frames[0].ids.len(), 1, "the first token leaves alone, at once");
    assert!(answer.frames.iter().all(|frame| frame.ids.len() <= 8));
    assert_eq!(answer.text(), model().tokenizer().decode(&answer.ids()));
    assert!(answer.text().contains("Red"), "{}", answer.text());

    let (subject, stored) = network.next_receipt().await;
    let operator = network.operator.public_key().parse().unwrap();
    assert_eq!(subject, receipt_subject(&operator, &job.offer.job, 1));
    assert_eq!(stored, answer.signed, "the stream has the same bytes as Done");

    // The claim is checked, not believed: one token changed and re-execution says which.
    let mut forged = answer.ids();
    forged[2] ^= 1;
    let verdict = verify(model(), 1, &job_request(&job.body).spec, &forged, &receipt.chain_head.0).unwrap();
    assert!(matches!(verdict, Verdict::Differs { index: 2, .. }), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sampling_with_a_seed_and_a_stop_text_verifies_as_a_prefix() {
    let mut network = Network::start().await;
    let worker = network.worker(1).await;
    let mut job = Job::new(sealing_key(&worker), "Count from one to ten in words, separated by commas.", 60);
    job.body.temperature_millionths = 700_000;
    job.body.top_p_millionths = 900_000;
    job.body.top_k = 40;
    job.body.seed = Some(11);
    job.body.sampling_key = sampling_key(Some(11), &job.body.job, &Hash32([0; 32]));
    job.body.stop = vec![", ".into(), "\n".into()];
    job.commit_and_seal();
    network.send(&job).await;
    network.expect_accept(&job).await;
    let answer = network.answer_of(&job).await;
    let receipt = answer.checked_receipt(&job, &network);
    assert!(!answer.text().contains(", ") && !answer.text().contains('\n'), "{:?}", answer.text());
    let whole = model().tokenizer().decode(&answer.ids());
    assert!(whole.starts_with(&answer.text()), "{whole:?}");
    if whole.contains(", ") || whole.contains('\n') {
        assert_eq!(receipt.finish, Finish::Stop);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_refused_with_its_reason() {
    let mut network = Network::start().await;
    let worker = network.worker(1).await;
    let fresh = || Job::new(sealing_key(&worker), "Hello", 4);
    let mut cases: Vec<(NakReason, Job)> = Vec::new();
    let mut mismatch = fresh();
    mismatch.body.prompt_ids.push(1);
    mismatch.seal();
    cases.push((NakReason::Body, mismatch));
    let mut replayed = fresh();
    replayed.body.job = protocol::id::JobId(random());
    replayed.commit_and_seal();
    cases.push((NakReason::Body, replayed));
    let mut unknown = fresh();
    unknown.offer.model = "gpt-17".into();
    cases.push((NakReason::Model, unknown));
    let mut other_weights = fresh();
    other_weights.offer.weights = Hash32([1; 32]);
    cases.push((NakReason::Model, other_weights));
    let mut late = fresh();
    late.offer.deadline_us = 1;
    cases.push((NakReason::Unsupported, late));
    let mut long = fresh();
    long.body.max_tokens = 1_000_000;
    long.commit_and_seal();
    cases.push((NakReason::Unsupported, long));
    for (expected, job) in &cases {
        network.send(job).await;
        match network.next_result(job).await {
            ResultMessage::Nak { attempt: 1, reason, .. } => assert_eq!(reason, *expected),
            other => panic!("expected {expected:?}, got {other:?}"),
        }
    }
    // None of that cost a slot, and a refused attempt may be offered again, corrected.
    let (_, mut corrected) = cases.swap_remove(2);
    corrected.offer.model = crate::gateway::MODEL_NAME.into();
    network.send(&corrected).await;
    network.expect_accept(&corrected).await;
    network.answer_of(&corrected).await.checked_receipt(&corrected, &network);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_stops_at_once_and_the_prefix_verifies() {
    let mut network = Network::start().await;
    let worker = network.worker(1).await;
    let job = Job::new(sealing_key(&worker), "Tell me a very long story about the sea.", 2_000);
    network.send(&job).await;
    network.expect_accept(&job).await;
    let mut frames = Vec::new();
    while frames.len() < 4 {
        match network.next_result(&job).await {
            ResultMessage::Frame(frame) => frames.push(frame),
            other => panic!("{other:?}"),
        }
    }
    // The only slot is taken.
    let second = Job::new(sealing_key(&worker), "Hello", 4);
    network.send(&second).await;
    let busy = network.next_result(&second).await;
    assert!(matches!(busy, ResultMessage::Nak { reason: NakReason::Busy, .. }), "{busy:?}");

    let cancelled = Instant::now();
    network.cancel(&job).await;
    let receipt = loop {
        match network.next_result(&job).await {
            ResultMessage::Frame(frame) => frames.push(frame),
            ResultMessage::Done { receipt, .. } => break receipt,
            other => panic!("{other:?}"),
        }
    };
    let took = cancelled.elapsed();
    let signed = data_encoding::BASE64.decode(receipt.as_bytes()).unwrap();
    let answer = crate::gateway::Answer { frames, signed };
    let receipt = answer.checked_receipt(&job, &network);
    assert_eq!(receipt.finish, Finish::Cancelled);
    assert!(receipt.output_tokens < 2_000);
    println!("cancel to receipt: {took:?} at {} tokens", receipt.output_tokens);

    // The slot is free at once; a cancel for a job that is over changes nothing.
    network.cancel(&job).await;
    let third = Job::new(sealing_key(&worker), "Hello", 4);
    network.send(&third).await;
    network.expect_accept(&third).await;
    network.answer_of(&third).await.checked_receipt(&third, &network);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_side_by_side_and_a_repeated_offer_runs_once() {
    let mut network = Network::start().await;
    let worker = network.worker(4).await;
    let job = Job::new(sealing_key(&worker), "Name three colours.", 16);
    network.send(&job).await;
    network.send(&job).await;
    network.expect_accept(&job).await;
    let alone = network.answer_of(&job).await;
    alone.checked_receipt(&job, &network);

    let mut others: Vec<Job> =
        (0..3).map(|_| Job::new(sealing_key(&worker), "Name three colours.", 16)).collect();
    for other in &mut others {
        network.send(other).await;
    }
    // Results interleave: read one job after another on its own subscription order.
    let mut messages = std::collections::HashMap::<String, Vec<ResultMessage>>::new();
    let done = |messages: &std::collections::HashMap<String, Vec<ResultMessage>>| {
        messages.values().filter(|m| matches!(m.last(), Some(ResultMessage::Done { .. }))).count()
    };
    use futures::StreamExt;
    while done(&messages) < 3 {
        let message = crate::gateway::within("results", network.results.next()).await.unwrap();
        let parsed = serde_json::from_slice(&message.payload).unwrap();
        assert!(
            !message.subject.contains(&job.offer.job.to_string()),
            "the repeated offer ran again: {parsed:?}"
        );
        messages.entry(message.subject.to_string()).or_default().push(parsed);
    }
    for list in messages.values() {
        let text: String = list
            .iter()
            .filter_map(|m| match m {
                ResultMessage::Frame(frame) => Some(frame.text.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(text, alone.text(), "company does not change the output");
    }
}
