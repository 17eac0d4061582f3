//! `counterfoil node`: what the network says about a node, as its operator would ask.

use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use protocol::id::NodeId;
use serde_json::Value;
use std::process::ExitCode;

/// Verbs of `counterfoil node`.
#[derive(clap::Subcommand)]
pub enum Node {
    /// The one reason why a node is or is not routed, a line a model. Example: counterfoil node why node_...
    Why(Asked),
}

/// Which node, and whom to ask.
#[derive(clap::Args)]
pub struct Asked {
    /// The node's id.
    node: NodeId,
    /// Base URL of a gateway.
    #[arg(long, env = "COUNTERFOIL_GATEWAY", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    gateway: String,
}

impl Node {
    /// Runs the verb.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        match self {
            Node::Why(asked) => why(&asked, output),
        }
    }
}

fn why(asked: &Asked, output: Output) -> Result<ExitCode> {
    let node = fetch(&asked.gateway, &asked.node)?;
    let empty = serde_json::Map::new();
    let reasons = node["why"].as_object().unwrap_or(&empty);
    let lines: Vec<String> = reasons.iter().map(|(model, why)| format!("{model}: {}", words(why))).collect();
    let standing = &node["standing"];
    let mut text = lines.join("\n");
    if let (Some(jobs), Some(capacity)) = (standing["inflight"].as_u64(), standing["capacity"].as_u64()) {
        let percent = |value: &Value| value.as_u64().map_or(0, |ppm| ppm / 10_000);
        text.push_str(&format!(
            "\n{jobs} of {capacity} jobs ({} declared, the first week allows {} %), {} % good ends in 14 days",
            standing["declared"], percent(&standing["ramp_ppm"]), percent(&standing["good_ppm"]),
        ));
    }
    let all_routed = reasons.values().all(|why| why == "eligible");
    output.result(&text, &node);
    Ok(if all_routed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// `GET /v1/nodes/{node}`.
pub fn fetch(gateway: &str, node: &NodeId) -> Result<Value> {
    let url = format!("{}/v1/nodes/{node}", gateway.trim_end_matches('/'));
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent
        .get(&url)
        .call()
        .with_context(|| format!("{url}: is a gateway there? (--gateway URL)"))
        .context(Failure::Inconclusive)?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    if status != 200 {
        let message = body["error"]["message"].as_str().unwrap_or(&text).to_owned();
        bail!("{url}: {status}: {message}");
    }
    Ok(body)
}

/// A reason with what to do about it.
fn words(why: &Value) -> String {
    let code = why.as_str().unwrap_or_default();
    let advice = match code {
        "eligible" => "nothing stands against it",
        "not_registered" => "no gateway knows it: POST /v1/nodes",
        "never_seen" => "no heartbeat came yet: does the worker run? (counterfoil worker doctor)",
        "heartbeat_missed" => "its heartbeats stopped: does the worker run, is it connected?",
        "draining" => "it said that it is leaving: start the worker again when it has ended",
        "model_not_registered" => "its registration does not list the model: POST /v1/nodes again",
        "model_not_loaded" => "its heartbeat does not list the model: is it in the worker's configuration?",
        "refuted" => "an answer came out different when it was run again: the administration decides",
        "parked" => "three failures within a minute: it waits 15 seconds, then one job decides",
        "probing" => "that one job is out",
        "below_floor" => {
            "it sustained less than 5 tokens a second: it gets what nobody else can take, and a probe a minute"
        }
        "full" => "every slot that it may have now is taken",
        "reserved" => "the free slots are kept for another lane",
        "tried" => "this request tried it already",
        _ => "see specs/job-protocol.md, Standing",
    };
    format!("{code} ({advice})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_the_router_has_its_words() {
        for reason in dispatcher::router::Reason::ALL {
            let text = words(&Value::from(reason.code()));
            assert!(!text.contains("see specs"), "{text}");
        }
    }
}
