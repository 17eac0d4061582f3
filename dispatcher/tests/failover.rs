//! A node that is gone: before the first text, in the middle of it, and a successor that answers something else.

mod network;

use ledger::query::JobStatus;
use network::worker::{Script, Worker};
use network::{Customer, Network, PRICE, SERVED, eventually, job_of};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TEXT: &str = "The lighthouse keeper counted seven ships before breakfast.";

struct Scene {
    network: Network,
    customer: Customer,
    scripts: Arc<Mutex<VecDeque<Script>>>,
    workers: Vec<Worker>,
    _gateway: dispatcher::Gateway,
}

/// Two nodes of two operators; whoever gets a job takes the next script.
async fn scene() -> Scene {
    let network = Network::start().await;
    let gateway = network.gateway().await;
    let scripts: Arc<Mutex<VecDeque<Script>>> = Arc::default();
    let mut workers = Vec::new();
    for number in [1, 2] {
        let owner = Customer::open(gateway.local_addr(), 0).await;
        workers.push(Worker::start_with(&owner, number, 4, scripts.clone()).await);
    }
    let customer = Customer::open(gateway.local_addr(), 1_000_000_000_000).await;
    Scene { network, customer, scripts, workers, _gateway: gateway }
}

impl Scene {
    fn play(&self, scripts: [Script; 2]) {
        self.scripts.lock().unwrap().extend(scripts);
    }
}

fn text_of(events: &[String]) -> String {
    let chunk = |event: &String| serde_json::from_str::<serde_json::Value>(event).ok();
    let content =
        |chunk: serde_json::Value| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    events.iter().filter_map(chunk).filter_map(content).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_before_the_first_text_is_replaced_at_once() {
    let scene = scene().await;
    scene.play([Script::DieAfter(TEXT, 0), Script::Say(TEXT)]);
    let begun = Instant::now();
    let answer = scene.customer.chat(json!({ "stream": true })).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "not by missing heartbeats: {:?}", begun.elapsed());
    let events = answer.events();
    assert_eq!(text_of(&events), TEXT);
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let view = scene.network.job(job_of(&answer)).await;
    assert_eq!(view.attempts.iter().map(|a| a.continues_at).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(view.charge.unwrap().attempt, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_told_on_its_own_subject_why_it_gets_no_jobs() {
    let scene = scene().await;
    let worker = &scene.workers[0];
    let told = || worker.told.lock().unwrap().last().cloned().unwrap_or_default();
    eventually("it is told that it is routed", || async { told()["why"][network::MODEL] == "eligible" })
        .await;
    // Whichever node is asked first, three failures come to each in the end.
    for _ in 0..3 {
        scene.scripts.lock().unwrap().extend([Script::Gap, Script::Gap]);
        scene.customer.chat(json!({ "stream": true })).await;
    }
    eventually("it is told that it waits", || async { told()["why"][network::MODEL] == "parked" }).await;
    assert_eq!(told()["node"], json!(worker.node));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_goes_on_in_the_middle_and_only_what_it_added_is_charged() {
    let scene = scene().await;
    scene.play([Script::DieAfter(TEXT, 3), Script::Say(TEXT)]);
    let answer = scene.customer.chat(json!({ "stream": true })).await;
    let events = answer.events();
    assert_eq!(text_of(&events), TEXT, "no letter twice, none missing");
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let job = job_of(&answer);
    let view = scene.network.job(job).await;
    assert_eq!(
        view.attempts.iter().map(|a| a.continues_at).collect::<Vec<_>>(),
        [0, 3],
        "the cut is in the log"
    );
    let charge = view.charge.unwrap();
    let all = SERVED.tokenizer.encode(TEXT).len() as u64;
    assert_eq!((charge.attempt, charge.output_units), (1, all - 3), "nobody signed for the first three");
    assert_eq!(charge.cost.0, PRICE * i128::from(view.input_units + all - 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_with_another_answer_is_not_passed_on() {
    let scene = scene().await;
    scene.play([Script::DieAfter(TEXT, 3), Script::Say("The lighthouse fell over.")]);
    let answer = scene.customer.chat(json!({ "stream": true })).await;
    let events = answer.events();
    assert!(TEXT.starts_with(&text_of(&events)), "{events:?}");
    assert!(events.iter().any(|event| event.contains("\"error\"")), "{events:?}");
    assert!(!events.iter().any(|event| event.contains("[DONE]")), "never a clean end: {events:?}");
    let job = job_of(&answer);
    eventually("the hold is released", || async { scene.network.job(job).await.status == JobStatus::Voided })
        .await;
    assert_eq!(scene.network.balance(scene.customer.account).await, (1_000_000_000_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_one_object_gets_one_answer_whole() {
    let scene = scene().await;
    scene.play([Script::DieAfter("Something else entirely, and then", 4), Script::Say(TEXT)]);
    let answer = scene.customer.chat(json!({})).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], TEXT);
    let view = scene.network.job(job_of(&answer)).await;
    assert_eq!(
        view.attempts.iter().map(|a| a.continues_at).collect::<Vec<_>>(),
        [0, 0],
        "it had nothing yet"
    );
}
