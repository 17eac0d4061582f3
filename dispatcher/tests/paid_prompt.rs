//! Paid prompts over HTTP with a worker on NATS and the ledger behind: what is answered, what is charged, what is not.

mod network;

use ledger::query::JobStatus;
use network::worker::{Script, Worker};
use network::{ADMIN_KEY, AUDIT_SECRET, Customer, Network, PRICE, eventually, http, job_of};
use protocol::id::JobId;
use protocol::job_message::NakReason;
use serde_json::{Value, json};

const CREDIT: i128 = 10_000_000;

struct Scene {
    network: Network,
    gateway: dispatcher::Gateway,
    customer: Customer,
    worker: Worker,
}

async fn scene() -> Scene {
    let network = Network::start().await;
    let gateway = network.gateway().await;
    let owner = Customer::open(gateway.local_addr(), 0).await;
    let customer = Customer::open(gateway.local_addr(), CREDIT).await;
    let worker = Worker::start(&owner, 1, 4).await;
    Scene { network, gateway, customer, worker }
}

fn tokens(text: &str) -> i128 {
    network::SERVED.tokenizer.encode(text).len() as i128
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_is_answered_charged_and_proved() {
    let Scene { network, gateway, customer, worker } = scene().await;
    worker.then(Script::Say("Hello canary-answer!"));
    let answer = customer.chat(json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["choices"][0]["message"]["content"], "Hello canary-answer!");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let output = tokens("Hello canary-answer!");
    let input = i128::from(body["usage"]["prompt_tokens"].as_u64().unwrap());
    assert_eq!(i128::from(body["usage"]["completion_tokens"].as_u64().unwrap()), output);
    let cost = (input + output) * PRICE;
    assert_eq!(network.balance(customer.account).await, (CREDIT - cost, 0));
    assert_eq!(answer.header("x-counterfoil-lane"), Some("prepaid"));
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    let job = job_of(&answer);
    let view = network.job(job).await;
    assert_eq!((view.status, view.charge.as_ref().unwrap().cost.0), (JobStatus::Captured, cost));

    let shown = customer.get(&format!("/v1/jobs/{job}")).await.json();
    assert_eq!(shown["charge"]["cost"]["base_units"], cost.to_string());
    let receipt =
        http::request(customer.address, "GET", &format!("/v1/receipts/{job}"), None, &[], b"").await.json();
    assert_eq!(receipt["receipt"]["output_tokens"], output as u64);
    assert_eq!(receipt["hash"], json!(view.charge.unwrap().receipt));
    let path = format!("/v1/audit/contents/{job}");
    assert_eq!(customer.get(&path).await.status, 401, "the customer's key is no auditor's");
    let sealed = http::request(customer.address, "GET", &path, Some(ADMIN_KEY), &[], b"").await;
    let contents: Value =
        serde_json::from_slice(&dispatcher::seal::open(&AUDIT_SECRET, &sealed.body).unwrap()).unwrap();
    assert_eq!(contents["output_ids"].as_array().unwrap().len() as i128, output);
    assert!(contents["body"]["messages"].to_string().contains("canary-prompt"));
    let lines =
        http::request(customer.address, "GET", "/v1/audit/receipts", Some(ADMIN_KEY), &[], b"").await.text();
    assert_eq!(lines.lines().count(), 1);

    gateway.shutdown().await;
    for file in std::fs::read_dir(network.access_dir()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for canary in [b"canary-prompt", b"canary-answer"] {
            assert!(!bytes.windows(canary.len()).any(|w| w == canary), "contents in the clear on disk");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_role_content_finish_usage_done() {
    let Scene { network, customer, worker, gateway } = scene().await;
    worker.then(Script::Say("One two."));
    let answer = customer.chat(json!({ "stream": true, "stream_options": { "include_usage": true } })).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let events = answer.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "One two.");
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
    let usage = &chunks[chunks.len() - 1]["usage"];
    assert_eq!(i128::from(usage["completion_tokens"].as_u64().unwrap()), tokens("One two."));
    assert_eq!(network.job(job_of(&answer)).await.status, JobStatus::Captured);

    worker.then(Script::Say("Alpha beta gamma"));
    let answer = customer.chat(json!({ "stop": " gamma" })).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Alpha beta");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_by_name() {
    let Scene { network: _network, customer, gateway, .. } = scene().await;
    let address = customer.address;
    let check = |answer: http::Answer, status: u16, code: &str, param: Value| {
        assert_eq!(answer.status, status, "{}", answer.text());
        let error = answer.json()["error"].clone();
        assert_eq!((error["code"].as_str(), &error["param"]), (Some(code), &param), "{error}");
        assert!(error["message"].is_string() && error["type"].is_string());
        assert!(answer.header("x-request-id").is_some());
        answer
    };
    let chat = |extra: Value| network::chat(extra);
    let path = "/v1/chat/completions";
    check(http::post(address, path, None, &chat(json!({}))).await, 401, "invalid_api_key", Value::Null);
    check(
        http::post(address, path, Some("cf_no"), &chat(json!({}))).await,
        401,
        "invalid_api_key",
        Value::Null,
    );
    check(customer.chat(json!({ "model": "gpt-9" })).await, 404, "model_not_found", json!("model"));
    check(customer.chat(json!({ "store": true })).await, 400, "unsupported_parameter", json!("store"));
    check(
        customer.chat(json!({ "max_tokens": 5000 })).await,
        400,
        "context_length_exceeded",
        json!("messages"),
    );
    let raw = |body: Vec<u8>| {
        let key = customer.key.clone();
        async move { http::request(address, "POST", path, Some(&key), &[], &body).await }
    };
    check(raw(b"{\"model\":".to_vec()).await, 400, "malformed_request", Value::Null);
    let poor = Customer::open(address, 0).await;
    check(http::post(address, "/v1/no", None, &json!({})).await, 404, "unknown_url", Value::Null);
    let get = http::request(address, "GET", path, None, &[], b"").await;
    check(get, 405, "method_not_allowed", Value::Null);
    let broke = check(poor.chat(json!({})).await, 402, "insufficient_credits", Value::Null);
    assert_eq!(broke.header("x-should-retry"), Some("false"));
    assert_eq!(broke.json()["error"]["available"]["amount"], "0");
    assert_eq!(broke.json()["error"]["limit_source"], "balance");
    let big = http::request(address, "POST", path, Some(&poor.key), &[], &vec![b' '; 20_000_000]).await;
    check(big, 413, "body_too_large", Value::Null);
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_node_it_is_503_and_nothing_is_held() {
    let network = Network::start().await;
    let gateway = network.gateway().await;
    let customer = Customer::open(gateway.local_addr(), CREDIT).await;
    let answer = customer.chat(json!({})).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (503, Some("no_node_available")));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(network.balance(customer.account).await, (CREDIT, 0));
    let ready = customer.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["nodes_online"]), (503, &json!(0)));
    assert_eq!(customer.get("/healthz").await.status, 200);
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_fails_in_the_middle_costs_nothing_and_is_never_a_clean_end() {
    let Scene { network, customer, worker, gateway } = scene().await;
    for script in [Script::FailAfter(3), Script::LieAboutCount, Script::LieAboutOutput] {
        let name = format!("{script:?}");
        worker.then(script);
        let answer = customer.chat(json!({ "stream": true })).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let events = answer.events();
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap_or(Value::Null);
        assert_eq!(last["error"]["code"], "node_failed", "{name}: {events:?}");
        assert_eq!(network.job(job_of(&answer)).await.status, JobStatus::Voided, "{name}");
        assert_eq!(network.balance(customer.account).await, (CREDIT, 0), "{name}");
    }
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_vanishes_in_the_middle_costs_nothing() {
    let Scene { network, customer, worker, gateway } = scene().await;
    worker.then(Script::VanishAfter(3));
    let answer = customer.chat(json!({ "stream": true })).await;
    let events = answer.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "node_failed", "{events:?}");
    assert_eq!(network.job(job_of(&answer)).await.status, JobStatus::Voided);
    assert_eq!(network.balance(customer.account).await, (CREDIT, 0));
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_text_another_node_takes_over() {
    let Scene { network, customer, worker, gateway } = scene().await;
    // One list for both: whichever is asked first fails, the other one answers.
    let owner = Customer::open(gateway.local_addr(), 0).await;
    let other = Worker::start_with(&owner, 2, 4, worker.scripts.clone()).await;
    for script in [Script::Nak(NakReason::Busy), Script::FailAfter(0), Script::Gap] {
        worker.then(script.clone());
        worker.then(Script::Say("Taken over."));
        let answer = customer.chat(json!({})).await;
        assert_eq!(answer.status, 200, "{script:?}: {}", answer.text());
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "Taken over.");
        let job = network.job(job_of(&answer)).await;
        assert_eq!((job.attempts.len(), job.charge.unwrap().attempt), (2, 1), "{script:?}");
        assert_ne!(job.attempts[0].node, job.attempts[1].node);
    }
    drop(other);
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_pays_what_was_delivered_and_the_node_stops() {
    let Scene { network, customer, worker, gateway } = scene().await;
    worker.then(Script::Slowly("one two three four five six seven eight nine ten", 200));
    let body = network::chat(json!({ "stream": true })).to_string();
    let mut stream = http::send(
        customer.address,
        "POST",
        "/v1/chat/completions",
        Some(&customer.key),
        &[],
        body.as_bytes(),
    )
    .await;
    let head = http::read_until(&mut stream, "three").await;
    let id = head.split("x-counterfoil-job-id: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let job: JobId = id.parse().unwrap();
    drop(stream);
    eventually("the hold is closed", || async { network.open_jobs().await == 0 }).await;
    assert!(worker.cancels.lock().unwrap().contains(&job));
    let charge = network.job(job).await.charge.expect("what was delivered is charged");
    assert!((3..=5).contains(&charge.output_units), "{charge:?}");
    assert_eq!(network.balance(customer.account).await, (CREDIT - charge.cost.0, 0));
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_at_once_on_a_balance_worth_three() {
    let Scene { network, gateway, worker, .. } = scene().await;
    let rich = Customer::open(gateway.local_addr(), CREDIT).await;
    let quote =
        http::post(rich.address, "/v1/quote", Some(&rich.key), &network::chat(json!({}))).await.json();
    let worst: i128 = quote["projected_cost"]["base_units"].as_str().unwrap().parse().unwrap();
    let customer = Customer::open(gateway.local_addr(), worst * 3 + worst / 2).await;
    for _ in 0..16 {
        worker.then(Script::Slowly("one two three four", 300));
    }
    let answers = futures::future::join_all((0..16).map(|_| customer.chat(json!({})))).await;
    let of = |status: u16| answers.iter().filter(|a| a.status == status).count();
    assert_eq!((of(200), of(402)), (3, 13));
    let (available, held) = network.balance(customer.account).await;
    assert!(available >= 0 && held == 0);
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_request_is_charged_once() {
    let Scene { network, customer, worker, gateway } = scene().await;
    worker.then(Script::Say("Only once."));
    let send = |body: Value, key: &'static str| {
        let (address, api_key) = (customer.address, customer.key.clone());
        async move {
            let headers = [("idempotency-key", key)];
            let body = body.to_string();
            http::request(address, "POST", "/v1/chat/completions", Some(&api_key), &headers, body.as_bytes())
                .await
        }
    };
    let first = send(network::chat(json!({})), "order-1").await;
    let again = send(network::chat(json!({})), "order-1").await;
    assert_eq!((first.status, again.status), (200, 200), "{}", again.text());
    assert_eq!(job_of(&first), job_of(&again));
    assert_eq!(again.header("x-counterfoil-replayed"), Some("true"));
    let text = |a: &http::Answer| a.json()["choices"][0]["message"]["content"].clone();
    assert_eq!((text(&first), &first.json()["usage"]), (text(&again), &again.json()["usage"]));
    let cost = network.job(job_of(&first)).await.charge.unwrap().cost.0;
    assert_eq!(network.balance(customer.account).await, (CREDIT - cost, 0));
    let other = send(network::chat(json!({ "max_tokens": 5 })), "order-1").await;
    assert_eq!((other.status, other.header("x-should-retry")), (409, Some("false")));
    worker.then(Script::Slowly("one two three", 200));
    let (running, meanwhile) = tokio::join!(send(network::chat(json!({})), "order-2"), async {
        eventually("the first one runs", || async { network.open_jobs().await == 1 }).await;
        send(network::chat(json!({})), "order-2").await
    });
    assert_eq!((running.status, meanwhile.status), (200, 200), "the second waits for the first");
    assert_eq!((job_of(&running), text(&running)), (job_of(&meanwhile), text(&meanwhile)));
    assert_eq!(meanwhile.header("x-counterfoil-replayed"), Some("true"));
    gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_ends_streams_with_an_error_and_charges_what_was_delivered() {
    let Scene { network, customer, worker, gateway } = scene().await;
    worker.then(Script::Slowly("one two three four five six seven eight nine ten", 200));
    let body = network::chat(json!({ "stream": true })).to_string();
    let mut stream = http::send(
        customer.address,
        "POST",
        "/v1/chat/completions",
        Some(&customer.key),
        &[],
        body.as_bytes(),
    )
    .await;
    let head = http::read_until(&mut stream, "two").await;
    let (rest, ()) = tokio::join!(http::read_until(&mut stream, "\"stopping\""), gateway.shutdown());
    assert!(!rest.contains("[DONE]"));
    let id = head.split("x-counterfoil-job-id: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let view = network.job(id.parse().unwrap()).await;
    assert_eq!(view.status, JobStatus::Captured);
}

/// Whoever runs a network reads its state from `/metrics`; no key, account or text stands there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_the_state_and_nobodys_business() {
    let Scene { network, gateway, customer, worker } = scene().await;
    worker.then(Script::Say("Hello canary-answer!"));
    assert_eq!(customer.chat(json!({})).await.status, 200);
    assert_eq!(customer.get("/v1/nothing").await.status, 404);
    let events = network.client().position().borrow().leaf;
    let scraped = http::request(customer.address, "GET", "/metrics", None, &[], b"").await;
    assert!(scraped.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = scraped.text();
    let value = |name: &str| -> f64 {
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("{name} is missing:\n{text}"))
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse()
            .unwrap()
    };
    assert!(value("counterfoil_log_events") >= events as f64);
    assert_eq!(value("counterfoil_nodes_online"), 1.0);
    assert_eq!(value("counterfoil_log_stopped"), 0.0);
    assert_eq!(value("counterfoil_http_answers_total{class=\"4xx\"}"), 1.0);
    assert!(value("counterfoil_http_answer_seconds_count") >= 2.0);
    assert!(text.trim_end().ends_with("# EOF"));
    for secret in ["canary", &customer.account.to_string(), &customer.key] {
        assert!(!text.contains(secret), "{secret}");
    }
    gateway.shutdown().await;
}

/// A key made with a cap never spends more than it, holds included; the account's other keys do not feel it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capped_key_stops_at_its_cap() {
    let Scene { network, gateway, customer, worker } = scene().await;
    let cap = json!({ "name": "app", "scopes": ["inference"], "spend_cap": { "amount": "0.0005" } });
    let made = http::post(customer.address, "/v1/keys", Some(&customer.key), &cap).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.json()["key"]["id"].as_str().unwrap().to_owned();
    assert!(made.json()["key"]["spender"].as_str().unwrap().starts_with("spend_"));
    let capped = Customer { key: made.json()["api_key"].as_str().unwrap().to_owned(), ..customer.clone() };
    // The worst case of one token is within the cap, that of many is not.
    worker.then(Script::Say("Hello!"));
    let small = capped.chat(json!({ "max_tokens": tokens("Hello!") as u64 })).await;
    assert_eq!(small.status, 200, "{}", small.text());
    let before = network.balance(customer.account).await;
    let large = capped.chat(json!({ "max_tokens": 1_000 })).await;
    assert_eq!(large.status, 402, "{}", large.text());
    assert_eq!(large.json()["error"]["code"], "spend_cap_reached");
    assert_eq!(large.header("x-should-retry"), Some("false"));
    assert_eq!(network.balance(customer.account).await, before, "a refused request holds nothing");
    let path = format!("/v1/keys/{id}/spend_cap");
    let lifted = http::request(
        customer.address,
        "PUT",
        &path,
        Some(&customer.key),
        &[("content-type", "application/json")],
        br#"{"amount": null}"#,
    )
    .await;
    assert_eq!(lifted.status, 200, "{}", lifted.text());
    worker.then(Script::Say("Hello!"));
    assert_eq!(capped.chat(json!({ "max_tokens": 1_000 })).await.status, 200);
    gateway.shutdown().await;
}
