//! A node that misbehaves: stands between us and anvil and spoils its answers on demand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::transports::http::reqwest;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use contracts::{Chain, ChainConfig, Deployment};
use serde_json::{Value, json};

use crate::world::{CHAIN_ID, POLL_INTERVAL_MS, World};

/// What the proxy does to answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Logs of ranges are left out.
    Gaps,
    /// Every log comes twice, in the wrong order.
    TwiceBackwards,
    /// The node serves another chain.
    OtherChain,
    /// Answers come late.
    Late(Duration),
    /// No answer but an error.
    Down,
}

#[derive(Clone)]
pub struct Proxy {
    fault: Arc<Mutex<Fault>>,
    node: String,
    client: reqwest::Client,
    url: String,
}

impl Proxy {
    pub async fn start(world: &World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let client = contracts::http_client().no_proxy().build().expect("a client");
        let fault = Arc::new(Mutex::new(Fault::None));
        let proxy = Self { fault, node: world.anvil.rpc_url(), client, url };
        let router = Router::new().route("/", post(answer)).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        proxy
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().expect("nobody panics with it") = fault;
    }

    /// The world's contracts, seen through this proxy.
    pub async fn deployment(&self, world: &World) -> Deployment {
        let config = ChainConfig {
            rpc_url: self.url.clone(),
            chain_id: CHAIN_ID,
            confirmations: world.chain.config().confirmations,
            poll_interval_ms: POLL_INTERVAL_MS,
        };
        let chain = Chain::connect(config).await.expect("the proxy answers");
        Deployment::open(chain, world.deployment.manifest().clone()).await.expect("the same contracts")
    }
}

async fn answer(State(proxy): State<Proxy>, body: Bytes) -> Result<String, StatusCode> {
    let fault = *proxy.fault.lock().expect("nobody panics with it");
    if let Fault::Late(wait) = fault {
        tokio::time::sleep_until(tokio::time::Instant::now() + wait).await;
    }
    if fault == Fault::Down {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let asked: Value = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let sent = proxy.client.post(&proxy.node).header("content-type", "application/json").body(body);
    let answer = sent.send().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let text = answer.text().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let mut answer: Value = serde_json::from_str(&text).map_err(|_| StatusCode::BAD_GATEWAY)?;
    spoil(fault, &asked, &mut answer);
    Ok(answer.to_string())
}

fn spoil(fault: Fault, asked: &Value, answer: &mut Value) {
    let is_range = asked["params"][0].get("fromBlock").is_some();
    match (fault, asked["method"].as_str()) {
        (Fault::Gaps, Some("eth_getLogs")) if is_range => answer["result"] = json!([]),
        (Fault::TwiceBackwards, Some("eth_getLogs")) => {
            if let Some(logs) = answer["result"].as_array_mut() {
                let again = logs.clone();
                logs.extend(again);
                logs.reverse();
            }
        }
        (Fault::OtherChain, Some("eth_chainId")) => answer["result"] = json!("0x1"),
        (Fault::OtherChain, Some("eth_getBlockByNumber")) if answer["result"].is_object() => {
            answer["result"]["hash"] = json!(format!("0x{}", "ab".repeat(32)));
        }
        _ => {}
    }
}
