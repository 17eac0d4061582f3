//! `worker doctor`: tries everything a worker needs, one check after another, and says what to do. Takes no jobs.

use crate::connection::{ConnectRequest, EVENTS_WAITING_MAX, connect_once};
use crate::error::WorkerError;
use crate::keys::NodeKey;
use crate::receipt::now_us;
use crate::worker::{self, BackendOptions, WorkerOptions};
use async_nats::{Client, Event};
use protocol::id::{JobId, NodeId, OperatorId};
use protocol::job_message::{cancel_subject, offer_subject, result_subject};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

/// How long one answer of the server may take.
const ANSWER_MS_MAX: u64 = 3_000;
/// Clock difference that is fine.
const SKEW_MS_MAX: u64 = 1_000;

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Works, but not well.
    Warning,
    /// The worker will not work.
    Failed,
    /// Could not be looked at.
    Inconclusive,
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// Short and constant: `configuration`, `data_dir`, `connection`, `permissions`, `clock`, `slots`, `model NAME`.
    pub name: String,
    /// What it found.
    pub verdict: Verdict,
    /// In words.
    pub detail: String,
    /// What to do; empty when there is nothing to do.
    pub remedy: String,
}

/// All checks, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diagnosis {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// The gravest verdict: failed, then inconclusive, then warning.
    pub fn verdict(&self) -> Verdict {
        let has = |verdict| self.checks.iter().any(|check| check.verdict == verdict);
        let gravest = [Verdict::Failed, Verdict::Inconclusive, Verdict::Warning];
        gravest.into_iter().find(|verdict| has(*verdict)).unwrap_or(Verdict::Passed)
    }

    fn add(
        &mut self,
        name: impl Into<String>,
        verdict: Verdict,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.checks.push(Check { name: name.into(), verdict, detail: detail.into(), remedy: remedy.into() });
    }
}

/// Runs every check; each is tried even when an earlier one failed, unless it needs that one.
pub async fn examine(options: &WorkerOptions) -> Diagnosis {
    let mut diagnosis = Diagnosis { checks: Vec::new() };
    match worker::check(options) {
        Ok(()) => {
            diagnosis.add("configuration", Verdict::Passed, format!("{} nodes", options.nodes.len()), "")
        }
        Err(error) => diagnosis.add(
            "configuration",
            Verdict::Failed,
            error.to_string(),
            "correct the configuration file",
        ),
    }
    check_data_dir(options, &mut diagnosis);
    check_server(options, &mut diagnosis).await;
    check_slots(options, &mut diagnosis);
    check_models(options, &mut diagnosis).await;
    diagnosis
}

fn check_data_dir(options: &WorkerOptions, diagnosis: &mut Diagnosis) {
    let keys = || {
        std::fs::create_dir_all(&options.data_dir).map_err(|e| WorkerError::file(&options.data_dir, e))?;
        options
            .nodes
            .iter()
            .map(|node| Ok((node.id, NodeKey::open_or_create(&options.data_dir, &node.id)?.public())))
            .collect()
    };
    match keys() {
        Ok::<Vec<_>, WorkerError>(keys) => {
            let keys: Vec<String> = keys.iter().map(|(node, key)| format!("{node} seals to {key}")).collect();
            diagnosis.add("data_dir", Verdict::Passed, keys.join("; "), "");
        }
        Err(error) => {
            let remedy = "give this user the directory (data_dir), with mode 700 and its files with mode 600";
            diagnosis.add("data_dir", Verdict::Failed, error.to_string(), remedy);
        }
    }
}

async fn check_server(options: &WorkerOptions, diagnosis: &mut Diagnosis) {
    let (events, mut event_queue) = mpsc::channel(EVENTS_WAITING_MAX);
    let request = ConnectRequest {
        url: &options.nats_url,
        key: &options.operator_key,
        jwt: &options.operator_jwt,
        name: "counterfoil worker doctor",
        events,
    };
    let client = match connect_once(&request).await {
        Ok(client) => client,
        Err(error) => {
            let remedy = format!(
                "is {} the right address, is it reachable from here (outbound only), are seed and JWT from the same registration?",
                options.nats_url
            );
            diagnosis.add("connection", Verdict::Failed, error.to_string(), remedy);
            return;
        }
    };
    let server = client.server_info();
    diagnosis.add(
        "connection",
        Verdict::Passed,
        format!("{} as {}", options.nats_url, options.operator_key.operator()),
        "",
    );
    tracing::debug!(target: "worker", version = server.version, "server");
    if let Some(node) = options.nodes.first() {
        check_permissions(&client, options.operator_key.operator(), node.id, &mut event_queue, diagnosis)
            .await;
    }
    check_clock(&client, diagnosis).await;
}

/// Asks for what must be allowed, then for something that must not be: the server answers in order, so once it has denied
/// the last, it has had its say about all.
async fn check_permissions(
    client: &Client,
    operator: OperatorId,
    node: NodeId,
    events: &mut mpsc::Receiver<Event>,
    diagnosis: &mut Diagnosis,
) {
    let nobody = OperatorId([1; 32]);
    let (job, gateway) = (JobId([0; 16]), "doctor");
    let own = [offer_subject(&operator, &node), cancel_subject(&operator, &node)];
    let foreign = [offer_subject(&nobody, &node), "feed.log.>".to_owned()];
    // No gateway is called `doctor`: nobody hears the message that may be sent.
    let own_result = result_subject(&operator, &node, gateway, &job, 0);
    let foreign_result = result_subject(&nobody, &node, gateway, &job, 0);
    let mut subscribers = Vec::new();
    for subject in own.iter().chain(&foreign) {
        subscribers.push(client.subscribe(subject.clone()).await);
    }
    for subject in [&own_result, &foreign_result] {
        let _ = client.publish(subject.clone(), "".into()).await;
    }
    let _ = client.flush().await;
    let denials = denials_until(events, &foreign_result).await;
    let denied = |subject: &String| denials.iter().any(|denial| denial.contains(subject.as_str()));
    let missing: Vec<&String> = own.iter().chain([&own_result]).filter(|s| denied(s)).collect();
    let excess: Vec<&String> = foreign.iter().chain([&foreign_result]).filter(|s| !denied(s)).collect();
    if !missing.is_empty() {
        let remedy = "the JWT gives too little: ask the network for a new one for this operator key";
        diagnosis.add("permissions", Verdict::Failed, format!("denied: {missing:?}"), remedy);
    } else if !excess.is_empty() {
        let remedy =
            "this credential reaches subjects that are not this operator's: ask the network for a scoped JWT";
        diagnosis.add("permissions", Verdict::Failed, format!("not denied: {excess:?}"), remedy);
    } else {
        diagnosis.add("permissions", Verdict::Passed, "own subjects only", "");
    }
}

async fn denials_until(events: &mut mpsc::Receiver<Event>, last: &str) -> Vec<String> {
    let mut denials = Vec::new();
    let collect = async {
        while let Some(event) = events.recv().await {
            if let Event::ServerError(error) = event {
                let text = error.to_string();
                let is_last = text.contains(last);
                denials.push(text);
                if is_last {
                    return;
                }
            }
        }
    };
    // No denial at all is a finding too, and shows as a time-out here.
    let _ = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), collect).await;
    denials
}

async fn check_clock(client: &Client, diagnosis: &mut Diagnosis) {
    let asked_us = now_us();
    let request = client.request("$SYS.REQ.USER.INFO", "".into());
    let answer = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), request).await;
    let time = match answer {
        Ok(Ok(message)) => server_time_us(&message.payload),
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(server_us) = time else {
        let remedy = "compare with another clock (`timedatectl`, `chronyc tracking`), or ask the network to allow $SYS.REQ.USER.INFO";
        diagnosis.add("clock", Verdict::Inconclusive, "the server did not tell its time", remedy);
        return;
    };
    // The server looked at its clock at some moment between question and answer.
    let skew_us =
        if server_us < asked_us { asked_us - server_us } else { server_us.saturating_sub(now_us()) };
    let detail = format!("{} ms beside the server's", skew_us / 1_000);
    if skew_us / 1_000 <= SKEW_MS_MAX {
        diagnosis.add("clock", Verdict::Passed, detail, "");
    } else {
        let remedy = "set this machine's clock (run an NTP client): deadlines of jobs are judged by it";
        diagnosis.add("clock", Verdict::Failed, detail, remedy);
    }
}

fn server_time_us(payload: &[u8]) -> Option<u64> {
    let answer: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let time = OffsetDateTime::parse(answer["server"]["time"].as_str()?, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000).ok()
}

fn check_slots(options: &WorkerOptions, diagnosis: &mut Diagnosis) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let slots: u32 = options.nodes.iter().map(|node| node.slots).sum();
    let threads = options.threads;
    let detail = format!("{slots} slots on {threads} threads, {cores} cores");
    if threads > cores {
        let remedy =
            format!("set threads to {cores}: more than the cores only makes them wait for each other");
        diagnosis.add("slots", Verdict::Warning, detail, remedy);
    } else if slots > 8 * threads {
        let remedy = format!(
            "{} slots or fewer: each job gets its share of the threads, and slow ones are routed around",
            8 * threads
        );
        diagnosis.add("slots", Verdict::Warning, detail, remedy);
    } else {
        diagnosis.add("slots", Verdict::Passed, detail, "");
    }
}

async fn check_models(options: &WorkerOptions, diagnosis: &mut Diagnosis) {
    let mut files: BTreeMap<&Path, &str> = BTreeMap::new();
    for model in options.nodes.iter().flat_map(|node| &node.models) {
        match &model.backend {
            BackendOptions::Builtin { path } => drop(files.entry(path).or_insert(&model.name)),
            BackendOptions::OpenAi(server) => {
                let check = format!("server of model {}", model.name);
                match crate::backend::openai::examine(server).await {
                    Ok(detail) => diagnosis.add(check, Verdict::Passed, detail, ""),
                    Err(detail) => diagnosis.add(
                        check,
                        Verdict::Failed,
                        detail,
                        "start it, or correct url and api_key_file",
                    ),
                }
            }
        }
    }
    for (path, name) in files {
        let owned = path.to_path_buf();
        let load = move || {
            let model = kernels::Model::load(&owned, kernels::LoadOptions::from_environment()?)?;
            Ok::<_, kernels::Error>((protocol::id::Hash32(model.id()), model.backend()))
        };
        let check = format!("model {name}");
        match tokio::task::spawn_blocking(load).await {
            Ok(Ok((weights, kernels))) => {
                diagnosis.add(check, Verdict::Passed, format!("sha256 {weights}, {kernels} kernels"), "");
            }
            Ok(Err(error)) => {
                let remedy = "fetch the file again (`counterfoil model pull`) and compare its SHA-256 with the rate card";
                diagnosis.add(check, Verdict::Failed, error.to_string(), remedy);
            }
            Err(error) => {
                diagnosis.add(check, Verdict::Failed, error.to_string(), "please report this as a bug")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_verdict_counts() {
        let mut diagnosis = Diagnosis { checks: Vec::new() };
        assert_eq!(diagnosis.verdict(), Verdict::Passed);
        for verdict in [Verdict::Passed, Verdict::Warning, Verdict::Inconclusive, Verdict::Failed] {
            diagnosis.add("x", verdict, "", "");
            assert_eq!(diagnosis.verdict(), verdict);
        }
        diagnosis.add("x", Verdict::Passed, "", "");
        assert_eq!(diagnosis.verdict(), Verdict::Failed);
    }

    #[test]
    fn the_servers_time_is_read() {
        let payload = br#"{"server":{"time":"2026-11-21T10:00:00.25Z"},"data":{}}"#;
        assert_eq!(server_time_us(payload), Some(1_795_255_200_250_000));
        assert_eq!(server_time_us(b"{}"), None);
    }
}
