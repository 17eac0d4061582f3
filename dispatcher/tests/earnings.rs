//! Earn and spend with one account: what a node earned from credit that no vault backs buys its owner's own prompts.

mod network;

use network::worker::{Script, Worker};
use network::{Customer, Network, PRICE, http};
use serde_json::{Value, json};

const CREDIT: i128 = 10_000_000;

fn base_units(value: &Value) -> i128 {
    value["base_units"].as_str().expect("text").parse().expect("a number")
}

async fn take(owner: &Customer, body: Value) -> http::Answer {
    http::post(owner.address, "/v1/earnings/take", Some(&owner.key), &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_earned_is_spendable_at_once() {
    let network = Network::start().await;
    let gateway = network.gateway().await;
    let owner = Customer::open(gateway.local_addr(), 0).await;
    let customer = Customer::open(gateway.local_addr(), CREDIT).await;
    assert_eq!(owner.get("/v1/earnings").await.json()["earnings"], json!([]), "no operator, nothing earned");
    let worker = Worker::start(&owner, 1, 4).await;
    assert_eq!(take(&owner, json!({})).await.status, 400, "nothing was earned yet");
    worker.then(Script::Say(
        "one two three four five six seven eight nine ten one two three four five six seven eight nine ten",
    ));
    assert_eq!(customer.chat(json!({})).await.status, 200);
    let cost = CREDIT - network.balance(customer.account).await.0;
    let share = cost * 4 / 5;

    let earned = owner.get("/v1/earnings").await.json();
    assert_eq!(base_units(&earned["earnings"][0]["takeable"]), share);
    assert_eq!(earned["earnings"][0]["takeable_by_backing"].as_array().map(Vec::len), Some(1));
    assert_eq!(network.balance(owner.account).await, (0, 0), "not yet");
    assert_eq!(take(&owner, json!({ "amount": "1" })).await.json()["error"]["code"], "more_than_earned");
    for wrong in ["0", "-0.000004", "much"] {
        assert_eq!(take(&owner, json!({ "amount": wrong })).await.status, 400, "{wrong}");
    }

    let part = take(&owner, json!({ "amount": "0.000004" })).await;
    assert_eq!((part.status, base_units(&part.json()["taken"])), (201, PRICE), "{}", part.text());
    let rest = take(&owner, json!({})).await;
    assert_eq!((rest.status, base_units(&rest.json()["taken"])), (201, share - PRICE), "{}", rest.text());
    assert_eq!(network.balance(owner.account).await, (share, 0));
    assert_eq!(take(&owner, json!({})).await.status, 400, "it is taken once");

    // The owner's own prompt, paid with it; the smallest bound, because so little was earned.
    worker.then(Script::Say("one"));
    let own = owner.chat(json!({ "max_tokens": 1, "messages": [{ "role": "user", "content": "Hi" }] })).await;
    let left = network.balance(owner.account).await.0;
    match own.status {
        200 => assert!(left < share, "it was charged"),
        status => panic!("{status}: {} (of {share})", own.text()),
    }
    gateway.shutdown().await;
}
