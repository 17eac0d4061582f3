//! OpenAI's calls beyond a plain chat: what arrives at a worker, in which form the answer comes back, what is charged.
//! The worker's side is scripted; the same against a real model is in the end-to-end tests.

mod network;

use ledger::query::JobStatus;
use network::worker::{Script, Worker};
use network::{Customer, Network, PRICE, eventually, http, job_of};
use protocol::job_message::OutputFormat;
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

impl Scene {
    async fn post(&self, path: &str, body: Value) -> http::Answer {
        http::post(self.customer.address, path, Some(&self.customer.key), &body).await
    }

    async fn spent(&self) -> i128 {
        let (available, held) = self.network.balance(self.customer.account).await;
        assert_eq!(held, 0);
        CREDIT - available
    }
}

fn data(answer: &http::Answer) -> Vec<Value> {
    let text = answer.text();
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_control_arrives_sealed_and_committed_to() {
    let scene = scene().await;
    scene.worker.then(Script::Say("{}"));
    let schema = json!({ "name": "x", "schema": { "type": "object" } });
    let answer = scene
        .customer
        .chat(json!({
            "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "seed": 11,
            "presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": { "42": -1 },
            "response_format": { "type": "json_schema", "json_schema": schema }, "stop": ["X"],
        }))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = scene.worker.bodies.lock().unwrap().pop().unwrap();
    assert_eq!((body.temperature_millionths, body.top_p_millionths, body.top_k), (500_000, 250_000, 7));
    assert_eq!((body.seed, body.stop), (Some(11), vec!["X".to_owned()]));
    let controls = body.controls;
    assert_eq!((controls.min_p_millionths, controls.presence_penalty_millionths), (125_000, 500_000));
    assert_eq!(
        (controls.frequency_penalty_millionths, controls.logit_bias),
        (-500_000, vec![(42, -1_000_000)])
    );
    assert!(matches!(controls.format, OutputFormat::JsonSchema { .. }));
    let bias = scene.customer.chat(json!({ "logit_bias": { "4000000": 1 } })).await;
    assert_eq!((bias.status, &bias.json()["error"]["param"]), (400, &json!("logit_bias")));
    scene.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_choices_are_several_jobs_with_seeds_of_their_own() {
    let scene = scene().await;
    for text in ["one", "two", "three"] {
        scene.worker.then(Script::Say(text));
    }
    let answer = scene.customer.chat(json!({ "n": 3, "seed": 5 })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let choices = body["choices"].as_array().unwrap();
    let mut texts: Vec<&str> = choices.iter().map(|c| c["message"]["content"].as_str().unwrap()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["one", "three", "two"]);
    let indices: Vec<u64> = choices.iter().map(|c| c["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2]);
    let mut seeds: Vec<Option<u64>> = scene.worker.bodies.lock().unwrap().iter().map(|b| b.seed).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [Some(5), Some(6), Some(7)]);
    let total = i128::from(body["usage"]["total_tokens"].as_u64().unwrap());
    assert_eq!(scene.spent().await, total * PRICE, "what is billed is what usage says");
    assert_eq!(answer.header("x-counterfoil-job-id").unwrap().split(',').count(), 3);

    for text in ["one", "two"] {
        scene.worker.then(Script::Say(text));
    }
    let stream = scene.customer.chat(json!({ "n": 2, "stream": true })).await;
    assert!(stream.text().ends_with("data: [DONE]\n\n"));
    let ends = data(&stream).iter().filter(|c| c["choices"][0]["finish_reason"] == "stop").count();
    assert_eq!(ends, 2);

    // A balance that covers one of three admits none of them.
    let poor = Customer::open(scene.customer.address, 100 * PRICE).await;
    let refused = poor.chat(json!({ "n": 3 })).await;
    assert_eq!(refused.status, 402, "{}", refused.text());
    assert_eq!(scene.network.balance(poor.account).await, (100 * PRICE, 0));
    scene.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_choices_the_failed_ones_cost_nothing() {
    let scene = scene().await;
    scene.worker.then(Script::LieAboutCount);
    scene.worker.then(Script::Say("whole"));
    let answer = scene.customer.chat(json!({ "n": 2 })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["choices"].as_array().unwrap().len(), 1);
    assert_eq!(body["choices"][0]["message"]["content"], "whole");
    assert_eq!(body["counterfoil"]["failed_choices"][0]["error"]["code"], "node_failed");
    let total = i128::from(body["usage"]["total_tokens"].as_u64().unwrap());
    assert_eq!(scene.spent().await, total * PRICE);
    scene.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_goes_on_from_its_text() {
    let scene = scene().await;
    scene.worker.then(Script::Say(" upon a time"));
    let ask = json!({ "model": network::MODEL, "prompt": "Once", "max_tokens": 8, "echo": true });
    let answer = scene.post("/v1/completions", ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        (&body["object"], &body["choices"][0]["text"]),
        (&json!("text_completion"), &json!("Once upon a time"))
    );
    let sent = scene.worker.bodies.lock().unwrap().pop().unwrap();
    assert_eq!(sent.prompt_ids, network::SERVED.tokenizer.encode("Once"), "no chat template");
    assert_eq!(sent.messages, json!("Once"));

    scene.worker.then(Script::Say("yes"));
    let ask = json!({ "model": network::MODEL, "prompt": sent.prompt_ids, "max_tokens": 4, "logprobs": 2 });
    let logprobs = scene.post("/v1/completions", ask).await.json()["choices"][0]["logprobs"].clone();
    assert_eq!((&logprobs["tokens"][0], &logprobs["token_logprobs"][0]), (&json!("yes"), &json!(-0.25)));
    assert_eq!(logprobs["text_offset"], json!([0]));

    scene.worker.then(Script::Say("a b"));
    let ask = json!({ "model": network::MODEL, "prompt": "Once", "max_tokens": 4, "stream": true });
    let stream = scene.post("/v1/completions", ask).await;
    let text: String = data(&stream).iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "a b");
    assert!(stream.text().ends_with("data: [DONE]\n\n"));
    let outside = json!({ "model": network::MODEL, "prompt": [4_000_000] });
    let outside = scene.post("/v1/completions", outside).await;
    assert_eq!((outside.status, &outside.json()["error"]["param"]), (400, &json!("prompt")));
    scene.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_an_object_or_numbered_events() {
    let scene = scene().await;
    scene.worker.then(Script::Say("Hello!"));
    let ask = json!({ "model": network::MODEL, "input": "hi", "instructions": "Be brief.", "max_output_tokens": 9 });
    let answer = scene.post("/v1/responses", ask.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["object"], &body["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(body["output"][0]["content"][0]["text"], "Hello!");
    let total = i128::from(body["usage"]["total_tokens"].as_u64().unwrap());
    assert_eq!(scene.spent().await, total * PRICE);

    scene.worker.then(Script::Say("Hello there!"));
    let mut streamed = ask.clone();
    streamed["stream"] = json!(true);
    let events = data(&scene.post("/v1/responses", streamed.clone()).await);
    let numbers: Vec<u64> = events.iter().map(|e| e["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events[0]["type"], "response.created");
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.completed"), &json!("completed"))
    );
    let text: String = events.iter().filter_map(|e| e["delta"].as_str()).collect();
    assert_eq!(text, "Hello there!");

    scene.worker.then(Script::FailAfter(2));
    let events = data(&scene.post("/v1/responses", streamed).await);
    assert_eq!(events.last().unwrap()["type"], "response.failed", "never a clean end");
    let mut remembered = ask;
    remembered["previous_response_id"] = json!("resp_1");
    let refused = scene.post("/v1/responses", remembered).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"], &refused.json()["error"]["code"]),
        (400, &json!("previous_response_id"), &json!("unsupported_parameter"))
    );
    scene.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demanded_call_comes_back_as_a_call() {
    let scene = scene().await;
    let tool = json!([{ "type": "function", "function": { "name": "weather", "parameters": {
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } } }]);
    for stream in [false, true] {
        scene.worker.then(Script::Say("{\"city\":\"Paris\"}"));
        let answer =
            scene.customer.chat(json!({ "tools": tool, "tool_choice": "required", "stream": stream })).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (function, reason) = if stream {
            let chunks = data(&answer);
            let call = chunks.iter().find_map(|c| c["choices"][0]["delta"].get("tool_calls").cloned());
            (
                call.unwrap()[0]["function"].clone(),
                chunks.last().unwrap()["choices"][0]["finish_reason"].clone(),
            )
        } else {
            let choice = answer.json()["choices"][0].clone();
            (choice["message"]["tool_calls"][0]["function"].clone(), choice["finish_reason"].clone())
        };
        assert_eq!(function, json!({ "name": "weather", "arguments": "{\"city\":\"Paris\"}" }));
        assert_eq!(reason, "tool_calls");
        let body = scene.worker.bodies.lock().unwrap().pop().unwrap();
        assert!(
            matches!(body.controls.format, OutputFormat::JsonSchema { .. }),
            "the worker can write nothing else"
        );
        assert_eq!(body.controls.tools["tool_choice"], "required");
    }
    scene.worker.then(Script::Say("Just text."));
    let free = scene.customer.chat(json!({ "tools": tool })).await.json();
    assert_eq!(free["choices"][0]["message"]["content"], "Just text.");
    assert_eq!(free["choices"][0]["finish_reason"], "stop");
    scene.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probabilities_reach_the_client_with_their_text() {
    let scene = scene().await;
    scene.worker.then(Script::Say("Hello"));
    let answer = scene.customer.chat(json!({ "logprobs": true, "top_logprobs": 2 })).await.json();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    let tokens: String = content.iter().map(|entry| entry["token"].as_str().unwrap()).collect();
    assert_eq!(tokens, "Hello");
    assert_eq!(
        (&content[0]["logprob"], content[0]["top_logprobs"].as_array().unwrap().len()),
        (&json!(-0.25), 2)
    );
    scene.worker.then(Script::Say("Hello"));
    assert_eq!(scene.customer.chat(json!({})).await.json()["choices"][0]["logprobs"], Value::Null);
    scene.gateway.shutdown().await;
}

/// Complaint I: an SDK that sends no key sends the same body again, marked as a retry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complaint_i_a_retry_without_a_key_is_billed_once() {
    let scene = scene().await;
    let send = |body: Value, retry: &'static str| {
        let (address, key) = (scene.customer.address, scene.customer.key.clone());
        async move {
            let headers = [("x-stainless-retry-count", retry)];
            let body = body.to_string();
            http::request(address, "POST", "/v1/chat/completions", Some(&key), &headers, body.as_bytes())
                .await
        }
    };
    // After the answer was committed: the same answer, one charge.
    scene.worker.then(Script::Say("Only once."));
    let first = send(network::chat(json!({ "seed": 1 })), "0").await;
    let cost = scene.spent().await;
    let again = send(network::chat(json!({ "seed": 1 })), "1").await;
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!((job_of(&first), scene.spent().await), (job_of(&again), cost));
    assert_eq!(again.header("x-counterfoil-replayed"), Some("true"));
    // Sent anew, not marked: a request of its own.
    scene.worker.then(Script::Say("Twice."));
    assert_ne!(job_of(&send(network::chat(json!({ "seed": 1 })), "0").await), job_of(&first));
    // In flight: the retry waits for the job that runs.
    scene.worker.then(Script::Slowly("one two three", 200));
    let before = scene.spent().await;
    let (running, meanwhile) = tokio::join!(send(network::chat(json!({ "seed": 2 })), "0"), async {
        eventually("the first one runs", || async { scene.network.open_jobs().await == 1 }).await;
        send(network::chat(json!({ "seed": 2 })), "1").await
    });
    assert_eq!((running.status, meanwhile.status), (200, 200));
    assert_eq!(job_of(&running), job_of(&meanwhile));
    let usage = i128::from(running.json()["usage"]["total_tokens"].as_u64().unwrap());
    assert_eq!(scene.spent().await, before + usage * PRICE);
    scene.gateway.shutdown().await;
}

/// Complaint I, after a cut: what was delivered is charged, and the retry is answered whole by a job of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complaint_i_a_retry_after_a_cut_is_answered_whole() {
    let scene = scene().await;
    scene.worker.then(Script::Slowly("one two three four five six seven eight nine ten", 200));
    let body = network::chat(json!({ "stream": true })).to_string();
    let (address, key) = (scene.customer.address, scene.customer.key.as_str());
    let path = "/v1/chat/completions";
    let mut stream = http::send(address, "POST", path, Some(key), &[], body.as_bytes()).await;
    http::read_until(&mut stream, "three").await;
    drop(stream);
    eventually("the hold is closed", || async { scene.network.open_jobs().await == 0 }).await;
    let cut = scene.spent().await;
    assert!(cut > 0, "what was delivered is charged");
    scene.worker.then(Script::Say("Whole."));
    let headers = [("x-stainless-retry-count", "1")];
    let again = http::request(address, "POST", path, Some(key), &headers, body.as_bytes()).await;
    let text: String =
        data(&again).iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!((text.as_str(), again.header("x-counterfoil-replayed")), ("Whole.", None));
    let job = scene.network.job(job_of(&again)).await;
    assert_eq!(job.status, JobStatus::Captured);
    assert_eq!(scene.spent().await, cut + job.charge.unwrap().cost.0);
    scene.gateway.shutdown().await;
}

/// Complaint H: a balance that runs out in the middle never goes below zero; the bound that the gateway chose is announced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complaint_h_a_bound_of_ours_is_announced_and_one_of_the_clients_is_kept() {
    let scene = scene().await;
    let free = network::chat(json!({ "max_tokens": null }));
    let quote = scene.post("/v1/quote", free.clone()).await.json();
    let input = i128::from(quote["input_tokens"].as_u64().unwrap());
    let poor = Customer::open(scene.customer.address, (input + 9) * PRICE).await;
    scene.worker.then(Script::Say("one two three four five six seven eight nine ten eleven twelve"));
    let answer = http::post(poor.address, "/v1/chat/completions", Some(&poor.key), &free).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-counterfoil-max-tokens"), Some("9"));
    assert_eq!(answer.json()["usage"]["completion_tokens"], 9);
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some((input + 9).to_string().as_str()));
    assert_eq!(scene.network.balance(poor.account).await, (0, 0));
    let fixed = poor.chat(json!({ "max_tokens": 10 })).await;
    let error = fixed.json()["error"].clone();
    assert_eq!((fixed.status, fixed.header("x-should-retry")), (402, Some("false")));
    assert_eq!((&error["soft_stop"], &error["code"]), (&json!(true), &json!("insufficient_credits")));
    assert!(error["offers"].is_array() && fixed.header("x-request-id").is_some());
    scene.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_does_what_it_was_made_for_and_no_more() {
    let scene = scene().await;
    let make = |body: Value| async { scene.post("/v1/keys", body).await };
    let key = |answer: &http::Answer| answer.json()["api_key"].as_str().unwrap().to_owned();
    let as_key = |key: String| Customer { key, ..scene.customer.clone() };
    let code = |answer: &http::Answer| answer.json()["error"]["code"].as_str().unwrap_or("").to_owned();

    let finance = make(json!({ "scopes": ["finance"] })).await;
    assert_eq!(finance.status, 201, "{}", finance.text());
    let finance = as_key(key(&finance));
    assert_eq!(finance.get("/v1/balance").await.status, 200);
    assert_eq!(code(&finance.chat(json!({})).await), "insufficient_scope");
    let unknown = make(json!({ "scopes": ["chat"], "models": ["gpt-9"] })).await;
    assert_eq!((unknown.status, code(&unknown).as_str()), (404, "model_not_found"));
    let chat = as_key(key(&make(json!({ "scopes": ["chat"], "models": [network::MODEL] })).await));
    assert_eq!(chat.chat(json!({})).await.status, 200);
    assert_eq!(code(&chat.get("/v1/balance").await), "insufficient_scope");
    let past = make(json!({ "expires_us": 1 })).await;
    assert_eq!((past.status, &past.json()["error"]["param"]), (400, &json!("expires_us")));
    let short = make(json!({ "scopes": ["read"], "expires_in_s": 1 })).await;
    let short = as_key(key(&short));
    eventually("the key has expired", || async { short.get("/v1/balance").await.status == 401 }).await;
    scene.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_job_runs_without_its_client() {
    let scene = scene().await;
    scene.worker.then(Script::Slowly("one two three", 50));
    let ask = json!({ "model": network::MODEL, "prompt": "Once", "max_tokens": 8 });
    let submitted = scene.post("/v1/jobs", ask).await;
    assert_eq!(submitted.status, 202, "{}", submitted.text());
    let job = submitted.json()["jobs"][0]["job"].as_str().unwrap().to_owned();
    let path = format!("/v1/jobs/{job}/answer");
    let early = scene.customer.get(&path).await;
    assert_eq!((early.status, &early.json()["error"]["code"]), (409, &json!("job_running")));
    eventually("the job has ended", || async { scene.network.open_jobs().await == 0 }).await;
    let answer = scene.customer.get(&path).await.json();
    assert_eq!(answer["text"], "one two three");
    let total = i128::from(answer["usage"]["total_tokens"].as_u64().unwrap());
    assert_eq!(scene.spent().await, total * PRICE);
    let stranger = Customer::open(scene.customer.address, 0).await;
    assert_eq!(stranger.get(&path).await.status, 404, "another's job is no job");
    scene.gateway.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_node_serves_says_so() {
    let scene = scene().await;
    let check = |answer: http::Answer, status: u16, code: &str| {
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{}",
            answer.text()
        );
        answer
    };
    let embed = json!({ "model": network::MODEL, "input": ["a", "b"], "encoding_format": "base64" });
    let refused = check(scene.post("/v1/embeddings", embed).await, 503, "no_node_available");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    check(
        scene.post("/v1/embeddings", json!({ "model": network::MODEL, "input": [] })).await,
        400,
        "invalid_value",
    );
    check(scene.post("/v1/embeddings", json!({ "model": "no", "input": "a" })).await, 404, "model_not_found");
    let image = json!({ "model": network::MODEL, "prompt": "a cat" });
    check(scene.post("/v1/images/generations", image).await, 400, "model_not_suitable");
    scene.gateway.shutdown().await;
}

/// Balance and jobs as they change, from committed state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_a_job_and_what_it_left() {
    let scene = scene().await;
    let (address, key) = (scene.customer.address, scene.customer.key.as_str());
    let mut events = http::send(address, "GET", "/v1/events", Some(key), &[], b"").await;
    http::read_until(&mut events, "event: balance").await;
    scene.worker.then(Script::Slowly("one two three four", 150));
    let (answer, seen) =
        tokio::join!(scene.customer.chat(json!({})), http::read_until(&mut events, "\"captured\""));
    assert_eq!(answer.status, 200);
    let job = job_of(&answer).to_string();
    let (running, captured) = (seen.find("\"running\""), seen.find("\"captured\""));
    assert!(seen.contains(&job) && running.is_some() && running < captured, "{seen}");
    drop(events);
    scene.gateway.shutdown().await;
}

/// An account that is closed: its keys work no more, and what it asked and got cannot be opened again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_account_is_shredded() {
    let scene = scene().await;
    assert_eq!(scene.customer.chat(json!({})).await.status, 200);
    let wrong = scene.post("/v1/accounts/close", json!({ "account": "acct_0" })).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["param"]), (400, &json!("account")));
    let closed = scene.post("/v1/accounts/close", json!({ "account": scene.customer.account })).await;
    assert_eq!(closed.status, 200, "{}", closed.text());
    assert_eq!(closed.json()["contents_shredded"], true);
    assert_eq!(scene.customer.get("/v1/balance").await.status, 401);
    scene.gateway.shutdown().await;
}

/// Complaint D: counts come from the model's own tokenizer, whatever the script of the text; nothing is guessed from bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complaint_d_code_and_other_scripts_are_counted_by_the_tokenizer() {
    let scene = scene().await;
    let mut before = 0;
    for text in ["你好，世界。こんにちは", "fn main() { println!(\"{:?}\", vec![0u8; 4]); }", "🦀🦀"]
    {
        scene.worker.then(Script::Say(text));
        let answer = scene.customer.chat(json!({})).await.json();
        assert_eq!(answer["choices"][0]["message"]["content"], text);
        let expected = network::SERVED.tokenizer.encode(text).len() as u64;
        assert_eq!(answer["usage"]["completion_tokens"], expected.min(32), "{text}");
        let spent = scene.spent().await;
        let total = i128::from(answer["usage"]["total_tokens"].as_u64().unwrap());
        assert_eq!(spent - before, total * PRICE, "{text}");
        before = spent;
    }
    scene.gateway.shutdown().await;
}

/// Complaint L: whatever is refused has a number to ask about, and says whether and when to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complaint_l_every_refusal_has_a_number_and_says_when_to_come_again() {
    let network = Network::start().await;
    let gateway = network.gateway().await;
    let customer = Customer::open(gateway.local_addr(), CREDIT).await;
    let nobody = customer.chat(json!({})).await;
    assert_eq!((nobody.status, nobody.header("retry-after")), (503, Some("2")));
    let poor = Customer::open(gateway.local_addr(), 0).await;
    let broke = poor.chat(json!({})).await;
    assert_eq!((broke.status, broke.header("x-should-retry")), (402, Some("false")));
    for answer in [nobody, broke, customer.get("/v1/no").await, customer.chat(json!({ "n": 0 })).await] {
        assert!(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{}", answer.status);
        assert!(answer.header("openai-processing-ms").is_some());
    }
    gateway.shutdown().await;
}
