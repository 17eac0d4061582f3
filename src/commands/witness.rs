//! `counterfoil witness`: be a checkpoint witness for somebody else's log, or ask the witnesses of a policy to cosign one's
//! own. The protocol is c2sp.org/tlog-witness; who cosigns what is the journal's.

use crate::commands::interrupted;
use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use journal::transparency::witness::{ADD_CHECKPOINT, Answer, Collected, Cosigner, Refusal, collect};
use protocol::checkpoint::{NOTE_BYTES_MAX, Policy};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest wait for one witness.
const WITNESS_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Verbs of `counterfoil witness`.
#[derive(clap::Subcommand)]
pub enum Witness {
    /// Cosign checkpoints of the logs in a policy. Example: counterfoil witness run --name w.example/one --data witness --policy logs.policy
    Run(Run),
    /// Ask the policy's witnesses to cosign the newest checkpoint, once or for ever. Example: counterfoil witness collect --data data --policy auditor.policy --every 10
    Collect(Collect),
}

/// See [`Witness::Run`].
#[derive(clap::Args)]
pub struct Run {
    /// The witness's name, a URL without scheme; part of its key.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where its key and its memory are. A witness that lost its memory is retired, not started again.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The logs it cosigns for, as a policy: `log <key>` lines and `quorum none`.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:7190", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Print the line for policies and end.
    #[arg(long)]
    print_key: bool,
}

/// See [`Witness::Collect`].
#[derive(clap::Args)]
pub struct Collect {
    /// The log's data directory; the network may be running.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The policy whose witnesses are asked, each at its URL.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Again after so many seconds, until Ctrl-C.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
}

impl Witness {
    /// Runs the verb.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        match self {
            Witness::Run(run) => run.run(output),
            Witness::Collect(collect) => collect.run(output),
        }
    }
}

fn policy(path: &Path) -> Result<Policy> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Policy::parse(&text).with_context(|| path.display().to_string()).context(Failure::Usage)
}

impl Run {
    fn run(self, output: Output) -> Result<ExitCode> {
        let cosigner = Cosigner::open(&self.data, &self.name, policy(&self.policy)?)?;
        let key = cosigner.key().to_string();
        if self.print_key {
            output.result(&key, &json!({ "key": key }));
            return Ok(ExitCode::SUCCESS);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind(self.listen).await;
            let listener = listener.with_context(|| format!("{}: cannot listen", self.listen))?;
            let address = listener.local_addr()?;
            let text = format!("witness {key}\nlistening on http://{address}/{ADD_CHECKPOINT}");
            output.result(&text, &json!({"key": key, "url": format!("http://{address}")}));
            let app = Router::new()
                .route(&format!("/{ADD_CHECKPOINT}"), post(add_checkpoint))
                .layer(DefaultBodyLimit::max(2 * NOTE_BYTES_MAX))
                .with_state(Arc::new(Mutex::new(cosigner)));
            axum::serve(listener, app).with_graceful_shutdown(interrupted()).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// One at a time: the head is checked, remembered and cosigned under this lock, which is held across a write to disk.
async fn add_checkpoint(State(cosigner): State<Arc<Mutex<Cosigner>>>, body: String) -> Response {
    let answer = tokio::task::spawn_blocking(move || {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut cosigner = cosigner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cosigner.add_checkpoint(&body, now_s)
    });
    let plain = "text/plain; charset=utf-8";
    match answer.await {
        Ok(Ok(line)) => ([(header::CONTENT_TYPE, plain)], line).into_response(),
        Ok(Err(refusal)) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let kind = match refusal {
                Refusal::Conflict { .. } => "text/x.tlog.size",
                _ => plain,
            };
            (status, [(header::CONTENT_TYPE, kind)], format!("{refusal}\n")).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Collect {
    fn run(self, output: Output) -> Result<ExitCode> {
        let policy = policy(&self.policy)?;
        if policy.quorum.witnesses().next().is_none() {
            let none = anyhow::anyhow!("{}: no witness lines; there is nobody to ask", self.policy.display());
            return Err(none.context(Failure::Usage));
        }
        let Some(every) = self.every else {
            let collected = self.once(&policy)?;
            say(&collected, output);
            return Ok(if collected.is_quorum { ExitCode::SUCCESS } else { ExitCode::from(3) });
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async move {
            let this = Arc::new((self, policy));
            let mut ticks = tokio::time::interval(Duration::from_secs(every));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut last = None;
            let mut stop = std::pin::pin!(interrupted());
            loop {
                tokio::select! {
                    () = &mut stop => return Ok(ExitCode::SUCCESS),
                    _ = ticks.tick() => {
                        let asked = this.clone();
                        let collected = tokio::task::spawn_blocking(move || asked.0.once(&asked.1)).await?;
                        match collected {
                            Ok(collected) if last.as_ref() != Some(&collected) => {
                                say(&collected, output);
                                last = Some(collected);
                            }
                            Ok(_) => {}
                            Err(error) => tracing::warn!(target: "witness", %error, "nothing was collected"),
                        }
                    }
                }
            }
        })
    }

    fn once(&self, policy: &Policy) -> Result<Collected> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(WITNESS_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        let agent: ureq::Agent = config.into();
        let post = |url: &str, body: &str| -> Result<Answer, String> {
            let mut response = agent.post(url).send(body).map_err(|e| e.to_string())?;
            let status = response.status().as_u16();
            let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
            Ok(Answer { status, body: body.map_err(|e| e.to_string())? })
        };
        Ok(collect(&self.data.join("tlog"), policy, &post)?)
    }
}

fn say(collected: &Collected, output: Output) {
    let Collected { checkpoint, cosigned, refused, is_quorum } = collected;
    let mut text = format!(
        "size {} root {}: cosigned by {}, {}",
        checkpoint.size,
        checkpoint.root,
        cosigned.len(),
        if *is_quorum { "the quorum holds" } else { "not the quorum" }
    );
    for (name, reason) in refused {
        text.push_str(&format!("\n  {name}: {reason}"));
    }
    let refused: Vec<_> =
        refused.iter().map(|(name, reason)| json!({"name": name, "reason": reason})).collect();
    let value = json!({"size": checkpoint.size, "root": checkpoint.root.to_string(), "cosigned": cosigned,
        "refused": refused, "quorum": is_quorum});
    output.result(&text, &value);
}
