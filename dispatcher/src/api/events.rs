//! `GET /v1/events`: an account's balance and its jobs as they change, as server-sent events. Each is made from committed
//! state; what happens between two looks is told in one. Must not: keep a client's backlog.

use super::auth;
use super::error::ApiError;
use super::refusals;
use super::serving::event_stream;
use crate::access::keys::MONEY_SCOPES;
use crate::clock::now_us;
use crate::gateway::{Shared, until_raised};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use ledger::query;
use protocol::id::{AccountId, JobId};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Looks are at least so far apart: a busy log does not make a look a commit.
const LOOK_MS_MIN: u64 = 100;
/// How long a stream may be silent before a comment goes out.
const KEEP_ALIVE_MS: u64 = 10_000;

/// What was seen at the last look.
struct Watch {
    shared: Arc<Shared>,
    account: AccountId,
    balance: Value,
    open: BTreeSet<JobId>,
    is_first: bool,
}

/// The call. The first event is the balance as it is; it never ends by itself.
pub(crate) async fn follow(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let account = auth::caller_with_any(&shared, &headers, &MONEY_SCOPES)?.account;
    let watch = Watch { shared, account, balance: Value::Null, open: BTreeSet::new(), is_first: true };
    let frames = futures::stream::unfold(watch, |mut watch| async move {
        let frame = watch.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), watch))
    });
    Ok(event_stream(Body::from_stream(frames)))
}

impl Watch {
    /// The next frames; `None` when the gateway stops or the log cannot be read.
    async fn next(&mut self) -> Option<Bytes> {
        let mut position = self.shared.client.position();
        let mut stopping = self.shared.stopping.subscribe();
        loop {
            position.borrow_and_update();
            let frames = self.look().await.ok()?;
            if !frames.is_empty() {
                return Some(Bytes::from(frames));
            }
            let silence = Duration::from_millis(KEEP_ALIVE_MS);
            tokio::select! {
                () = until_raised(&mut stopping) => return None,
                changed = tokio::time::timeout(silence, position.changed()) => match changed {
                    Ok(changed) => changed.ok()?,
                    Err(_) => return Some(Bytes::from_static(super::answer::KEEP_ALIVE)),
                },
            }
            let pause = Duration::from_millis(LOOK_MS_MIN);
            let _ = tokio::time::timeout(pause, until_raised(&mut stopping)).await;
        }
    }

    async fn look(&mut self) -> Result<Vec<u8>, ApiError> {
        let (account, now) = (self.account, now_us());
        let known: Vec<JobId> = self.open.iter().copied().collect();
        let read = self.shared.client.read(move |state| {
            let assets = query::assets(state);
            let balances: Vec<Value> = query::balance(state, account, now)
                .iter()
                .filter_map(|balance| {
                    let asset = assets.get(balance.asset.0 as usize)?;
                    let decimal =
                        |amount: protocol::amount::Amount| amount.to_decimal_string(asset.ledger_scale);
                    Some(json!({
                        "asset": asset.symbol,
                        "available": decimal(balance.available),
                        "held": decimal(balance.held),
                        "total": decimal(balance.total),
                    }))
                })
                .collect();
            let jobs = query::open_jobs(state);
            let open: Vec<Value> = jobs
                .iter()
                .filter(|job| job.account == account)
                .map(|job| json!({ "job": job.job, "status": job.status, "model": job.model }))
                .collect();
            let ids: BTreeSet<JobId> =
                jobs.iter().filter(|job| job.account == account).map(|job| job.job).collect();
            let ended: Vec<Value> = known
                .iter()
                .filter(|job| !ids.contains(job))
                .filter_map(|job| query::job(state, *job))
                .map(|job| {
                    let scale = assets.get(job.asset.0 as usize).map_or(0, |asset| asset.ledger_scale);
                    let charge = job.charge.as_ref();
                    let cost = charge.map(|charge| charge.cost.to_decimal_string(scale));
                    json!({ "job": job.job, "status": job.status, "model": job.model, "cost": cost,
                            "input_tokens": charge.map(|c| c.input_units),
                            "output_tokens": charge.map(|c| c.output_units) })
                })
                .collect();
            (state.next_leaf(), Value::from(balances), open, ids, ended)
        });
        let (size, balances, open, ids, ended) =
            read.await.map_err(|error| refusals::api_error(&self.shared, error, None))?;
        let mut frames = Vec::new();
        let mut say = |kind: &str, mut data: Value| {
            data["at_size"] = json!(size);
            frames.extend_from_slice(format!("event: {kind}\nid: {size}\ndata: {data}\n\n").as_bytes());
        };
        for job in open {
            let id: Option<JobId> = job["job"].as_str().and_then(|text| text.parse().ok());
            if id.is_some_and(|id| !self.open.contains(&id)) {
                say("job", job);
            }
        }
        ended.into_iter().for_each(|job| say("job", job));
        if self.is_first || balances != self.balance {
            say("balance", json!({ "balances": balances }));
        }
        self.is_first = false;
        self.balance = balances;
        self.open = ids;
        Ok(frames)
    }
}
