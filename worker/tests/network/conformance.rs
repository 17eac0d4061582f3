//! The conformance kit: our own worker passes every case; a worker that breaks the protocol is told what it broke.

use crate::gateway::{MODEL_NAME, NODE, Network, model, sealing_key};
use async_nats::ConnectOptions;
use futures::StreamExt;
use kernels::{ChatMessage, prompt_ids};
use protocol::id::{Hash32, SealingKey};
use protocol::job_message::{
    Frame, Heartbeat, JOB_PROTOCOL, JobOffer, ResultMessage, heartbeat_subject, result_subject,
};
use protocol::rate::ProofClass;
use std::sync::Arc;
use std::time::Duration;
use worker::conformance::{CaseVerdict, ConformanceOptions, examine};

fn options(network: &Network, sealing_key: SealingKey) -> ConformanceOptions {
    let prompt = "Count from one to a hundred in words.".to_owned();
    let message = ChatMessage { role: "user".into(), content: prompt.clone() };
    ConformanceOptions {
        nats: network.gateway.clone(),
        operator: network.operator.public_key().parse().unwrap(),
        node: NODE,
        sealing_key,
        model: MODEL_NAME.to_owned(),
        weights: Hash32(model().id()),
        proof_class: ProofClass::ReExecutable,
        prompt_ids: prompt_ids(model().tokenizer(), model().template(), &[message]).unwrap(),
        prompt,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_worker_passes_every_case() {
    let network = Network::start().await;
    let worker = network.worker(2).await;
    let found = examine(options(&network, sealing_key(&worker))).await.unwrap();
    let bad: Vec<_> = found.cases.iter().filter(|case| case.verdict != CaseVerdict::Passed).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(found.cases.len() >= 20 && found.holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_breaks_the_protocol_hears_what_it_broke() {
    let network = Network::start().await;
    sloppy(&network).await;
    let found = examine(options(&network, SealingKey([9; 32]))).await.unwrap();
    let verdict =
        |name: &str| found.cases.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("{name}"));
    assert!(!found.holds());
    let beats = verdict("heartbeats come and count");
    assert!(beats.detail.contains("seq went from 7 to 7"), "{beats:?}");
    assert_eq!(verdict("an offer is accepted first and in time").verdict, CaseVerdict::Passed);
    let frames = verdict("frames are contiguous and bounded");
    assert!(frames.detail.contains("frame 1 came where 0 was due"), "{frames:?}");
    let end = verdict("the end counts its frames");
    assert!(end.detail.contains("done says 9 frames"), "{end:?}");
    assert_eq!(verdict("the receipt is signed by the operator").verdict, CaseVerdict::Failed);
    let other = verdict("another model is refused");
    assert!(other.detail.contains("expected nak Model"), "{other:?}");
    assert_eq!(verdict("a gateway name that is no token is not answered").verdict, CaseVerdict::Passed);
}

/// Takes whatever it is offered, begins to count at one, ends with a receipt that is none.
async fn sloppy(network: &Network) {
    let options = network.worker_options(1);
    let pair = Arc::new(nkeys::KeyPair::from_seed(&network.operator.seed().unwrap()).unwrap());
    let operator = network.operator.public_key();
    let client = ConnectOptions::with_jwt(options.operator_jwt, move |nonce| {
        let pair = pair.clone();
        async move { pair.sign(&nonce).map_err(async_nats::AuthError::new) }
    })
    .custom_inbox_prefix(format!("_INBOX_{operator}"))
    .connect(options.nats_url)
    .await
    .unwrap();
    let operator = operator.parse().unwrap();
    let mut offers = client.subscribe(format!("job.{operator}.{NODE}.*")).await.unwrap();
    client.flush().await.unwrap();
    let beating = client.clone();
    tokio::spawn(async move {
        let mut beats = tokio::time::interval(Duration::from_millis(500));
        loop {
            beats.tick().await;
            let models = vec![MODEL_NAME.to_owned()];
            let beat = Heartbeat {
                protocol: JOB_PROTOCOL,
                node: NODE,
                seq: 7,
                inflight: 0,
                slots: 100,
                models,
                draining: false,
            };
            let payload = serde_json::to_vec(&beat).unwrap();
            let _ = beating.publish(heartbeat_subject(&operator, &NODE), payload.into()).await;
        }
    });
    tokio::spawn(async move {
        while let Some(message) = offers.next().await {
            let Ok(offer) = serde_json::from_slice::<JobOffer>(&message.payload) else { continue };
            if offer.gateway.contains('.') {
                continue;
            }
            let subject = result_subject(&operator, &NODE, &offer.gateway, &offer.job, offer.attempt);
            let frame = Frame {
                seq: 1,
                ids: vec![5],
                text: String::new(),
                chain: Hash32([0; 32]),
                logprobs: Vec::new(),
            };
            for said in [
                ResultMessage::Accept { attempt: offer.attempt },
                ResultMessage::Frame(frame),
                ResultMessage::Done { seq: 9, receipt: "bm90aGluZw==".into() },
            ] {
                client.publish(subject.clone(), serde_json::to_vec(&said).unwrap().into()).await.unwrap();
            }
        }
    });
}
