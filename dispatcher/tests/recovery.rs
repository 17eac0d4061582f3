//! The coordinator dies between the last token and the capture: the finished job is still charged, once, after its start.

mod network;

use dispatcher::Gateway;
use journal::auth::{Role, connect};
use ledger::query::JobStatus;
use network::worker::{Script, Worker};
use network::{Customer, Network, eventually, http};
use protocol::id::JobId;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

/// A gateway on a runtime of its own, so that it can be ended without a word.
struct Mortal {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
}

impl Mortal {
    async fn start(network: &Network) -> Mortal {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (url, credentials) =
            (network.server.url(), network.server.keys().credentials(Role::Gateway).clone());
        let nats = runtime.spawn(async move { connect(&url, &credentials).await.unwrap() }).await.unwrap();
        let options = network.options(nats);
        let (tell, told) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let gateway = Gateway::start(options).await.unwrap();
            let _ = tell.send(gateway.local_addr());
            std::future::pending::<()>().await;
            drop(gateway);
        });
        Mortal { address: told.await.unwrap(), runtime }
    }

    async fn kill(self) {
        tokio::task::spawn_blocking(move || self.runtime.shutdown_timeout(Duration::from_secs(5)))
            .await
            .unwrap();
    }
}

async fn stream_until(customer: &Customer, needle: &str) -> JobId {
    let body = network::chat(json!({ "stream": true })).to_string();
    let path = "/v1/chat/completions";
    let mut stream =
        http::send(customer.address, "POST", path, Some(&customer.key), &[], body.as_bytes()).await;
    let head = http::read_until(&mut stream, needle).await;
    // The connection stays open: the client did not leave.
    std::mem::forget(stream);
    head.split("x-counterfoil-job-id: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap()
}

/// What reached the client is written a few milliseconds later.
async fn until_noted(customer: &Customer, job: JobId) {
    let tokens = network::SERVED.tokenizer.encode("one two three").len();
    let path = format!("/v1/jobs/{job}");
    eventually("progress is written", || async {
        customer.get(&path).await.json()["delivered_output_tokens"] == tokens
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_answer_is_captured_after_the_coordinator_died() {
    let network = Network::start().await;
    let mortal = Mortal::start(&network).await;
    let customer = Customer::open(mortal.address, 10_000_000).await;
    let worker = Worker::start(&Customer::open(mortal.address, 0).await, 1, 4).await;
    worker.then(Script::ReceiptToStreamOnly("one two three"));
    let job = stream_until(&customer, "three").await;
    until_noted(&customer, job).await;
    mortal.kill().await;
    assert_eq!(network.job(job).await.status, JobStatus::Running);
    let gateway = network.gateway().await;
    eventually("it is captured", || async { network.job(job).await.status == JobStatus::Captured }).await;
    let charge = network.job(job).await.charge.unwrap();
    assert_eq!(charge.output_units as usize, network::SERVED.tokenizer.encode("one two three").len());
    let shown =
        http::request(gateway.local_addr(), "GET", &format!("/v1/receipts/{job}"), None, &[], b"").await;
    assert_eq!(shown.status, 200, "{}", shown.text());
    assert_eq!(network.open_jobs().await, 0);
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_answer_is_charged_for_what_was_delivered() {
    let network = Network::start().await;
    let mortal = Mortal::start(&network).await;
    let customer = Customer::open(mortal.address, 10_000_000).await;
    let worker = Worker::start(&Customer::open(mortal.address, 0).await, 1, 4).await;
    worker.then(Script::VanishAfter(3));
    let job = stream_until(&customer, "three").await;
    until_noted(&customer, job).await;
    mortal.kill().await;
    let gateway = network.gateway().await;
    assert_eq!(
        network.job(job).await.status,
        JobStatus::Running,
        "no receipt came: the hold waits for its deadline"
    );
    assert!(worker.cancels.lock().unwrap().contains(&job) || network.open_jobs().await == 1);
    gateway.shutdown().await;
}
