//! What may break: the server in the middle of a job, the worker before its receipt arrived.

use crate::gateway::{Job, Network, sealing_key, within};
use protocol::job_message::ResultMessage;
use protocol::receipt::SignedReceipt;
use std::time::Duration;
use worker::{Worker, WorkerHandle};

/// Waits for the worker's own view; there is nothing to subscribe to from outside.
async fn until(handle: &WorkerHandle, what: &str, condition: impl Fn(&worker::Status) -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    within(what, async {
        while !condition(&handle.status()) {
            tick.tick().await;
        }
    })
    .await;
}

async fn first_frame(network: &mut Network, job: &Job) {
    network.send(job).await;
    network.expect_accept(job).await;
    assert!(matches!(network.next_result(job).await, ResultMessage::Frame(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_of_a_job_still_gets_the_receipt() {
    let mut network = Network::start().await;
    let worker = network.worker(1).await;
    let handle = worker.handle();
    let job = Job::new(sealing_key(&worker), "Tell me a long story about a lighthouse.", 200);
    first_frame(&mut network, &job).await;
    network.server.kill().await.unwrap();
    until(&handle, "the job's end without a server", |s| s.nodes[0].inflight == 0 && s.receipts_unsent == 1)
        .await;
    network.server.restart().await.unwrap();
    let (subject, bytes) = network.next_receipt().await;
    assert!(subject.contains(&job.offer.job.to_string()), "{subject}");
    let receipt = SignedReceipt::open(&bytes).unwrap();
    assert_eq!(receipt.job, job.offer.job);
    until(&handle, "the acknowledgement", |s| s.receipts_unsent == 0 && s.connected).await;
    // And it takes jobs again without hands.
    let next = Job::new(sealing_key(&worker), "Hello", 4);
    network.send(&next).await;
    network.expect_accept(&next).await;
    network.answer_of(&next).await.checked_receipt(&next, &network);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_died_before_its_receipt_arrived_sends_it_after_its_restart() {
    let mut network = Network::start().await;
    let worker = network.worker(1).await;
    let handle = worker.handle();
    let sealing = sealing_key(&worker);
    let job = Job::new(sealing, "Tell me a long story about a lighthouse.", 60);
    first_frame(&mut network, &job).await;
    network.server.kill().await.unwrap();
    until(&handle, "the job's end without a server", |s| s.receipts_unsent == 1).await;
    drop(worker);
    drop(handle);
    network.server.restart().await.unwrap();
    let again = network.worker(1).await;
    assert_eq!(sealing_key(&again), sealing, "the node keeps its key");
    let (_, bytes) = network.next_receipt().await;
    assert_eq!(SignedReceipt::open(&bytes).unwrap().job, job.offer.job);
    until(&again.handle(), "the acknowledgement", |s| s.receipts_unsent == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_what_runs_and_takes_nothing_new() {
    let mut network = Network::start().await;
    let worker = network.worker(2).await;
    let handle = worker.handle();
    let job = Job::new(sealing_key(&worker), "Tell me a story about a mountain.", 40);
    let late = Job::new(sealing_key(&worker), "Hello", 4);
    let data_dir = network.dir.path().join("w");
    let running = tokio::spawn(worker.run());
    first_frame(&mut network, &job).await;
    let status = worker::control::ask(&data_dir, worker::control::Request::Status).await.unwrap();
    assert_eq!((status.draining, status.nodes[0].inflight, status.nodes[0].slots), (false, 1, 2));
    let status = worker::control::ask(&data_dir, worker::control::Request::Drain).await.unwrap();
    assert!(status.draining && handle.status().draining);
    network.send(&late).await;
    let mut frame_count = 1;
    let mut refused = false;
    use futures::StreamExt;
    loop {
        let message = within("results", network.results.next()).await.unwrap();
        let of_late = message.subject.contains(&late.offer.job.to_string());
        match serde_json::from_slice(&message.payload).unwrap() {
            ResultMessage::Nak { reason: protocol::job_message::NakReason::Draining, .. } if of_late => {
                refused = true
            }
            ResultMessage::Frame(_) if !of_late => frame_count += 1,
            ResultMessage::Done { seq, .. } if !of_late => {
                assert_eq!(seq, frame_count, "no frame was lost");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(refused, "the late offer is refused while the job still runs");
    let drained = within("the worker's end", running).await.unwrap().unwrap();
    assert_eq!(drained.receipts_unsent, 0);
    let (_, bytes) = network.next_receipt().await;
    assert_eq!(SignedReceipt::open(&bytes).unwrap().job, job.offer.job);
    let goodbye = within("a draining heartbeat", async {
        loop {
            let heartbeat = network.next_heartbeat().await;
            if heartbeat.draining && heartbeat.inflight == 0 {
                return heartbeat;
            }
        }
    });
    assert_eq!(goodbye.await.node, crate::gateway::NODE);
    // Everything it held is free again.
    drop(handle);
    let _next: Worker = network.worker(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_the_worker_ends_well() {
    let network = Network::start().await;
    let worker = network.worker(1).await;
    let mut signals = std::pin::pin!(worker::drain::on_signals(worker.handle()));
    assert!(futures::poll!(signals.as_mut()).is_pending(), "it listens");
    let pid = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = within("the worker's end", async {
        tokio::select! {
            ended = worker.run() => ended,
            second = signals => panic!("one signal was sent: {second:?}"),
        }
    });
    assert_eq!(ended.await.unwrap().receipts_unsent, 0);
}
