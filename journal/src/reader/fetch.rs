//! One batch of messages by direct get (ADR-31): no consumer, nothing on the server changes, so that every role which may
//! read can read. Must not: decide what a missing message means.

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use std::time::Duration;

/// Messages per request.
const FETCH_COMMITS_MAX: u64 = 256;
/// Bytes per request, well under the server's 64 MB pending limit.
const FETCH_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How long the next message of a batch may take.
const FETCH_WAIT: Duration = Duration::from_secs(3);
/// Status of the message that ends a batch.
const STATUS_END: u16 = 204;
/// Status when there is no message at or after the sequence.
const STATUS_NOT_FOUND: u16 = 404;

#[derive(Serialize)]
struct BatchRequest<'a> {
    seq: u64,
    batch: u64,
    max_bytes: u64,
    next_by_subj: &'a str,
}

/// What a fetch gave.
pub(super) enum Fetched {
    /// Messages with their sequences; at least one.
    Commits(Vec<(u64, Bytes)>),
    /// Nothing at or after the sequence.
    Nothing,
}

/// Messages from sequence `first` to at most `last`.
pub(super) async fn fetch(client: &Client, stream: &str, first: u64, last: u64) -> Result<Fetched, String> {
    let batch = (last - first).saturating_add(1).min(FETCH_COMMITS_MAX);
    let request = BatchRequest { seq: first, batch, max_bytes: FETCH_BYTES_MAX, next_by_subj: ">" };
    let payload = serde_json::to_vec(&request).map_err(|e| e.to_string())?;
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.map_err(|e| e.to_string())?;
    let subject = format!("$JS.API.DIRECT.GET.{stream}");
    client.publish_with_reply(subject, inbox, payload.into()).await.map_err(|e| e.to_string())?;
    let mut commits = Vec::new();
    loop {
        let next = tokio::time::timeout(FETCH_WAIT, replies.next()).await;
        let message = match next {
            Ok(Some(message)) => message,
            // What came whole is good; the rest is asked for again.
            Ok(None) | Err(_) if !commits.is_empty() => return Ok(Fetched::Commits(commits)),
            Ok(None) => return Err("the connection was closed".to_owned()),
            Err(_) => return Err("no answer in time".to_owned()),
        };
        match message.status.map(|status| status.as_u16()) {
            None => {
                let headers = message.headers.unwrap_or_default();
                let sequence = sequence_of(&headers).ok_or("a message without its sequence")?;
                if sequence <= last {
                    commits.push((sequence, message.payload));
                }
                if sequence >= last || commits.len() as u64 == batch {
                    return Ok(done(commits));
                }
            }
            Some(STATUS_END | STATUS_NOT_FOUND) => return Ok(done(commits)),
            Some(status) => {
                let words = message.description.unwrap_or_default();
                return Err(format!("status {status} {words}"));
            }
        }
    }
}

fn done(commits: Vec<(u64, Bytes)>) -> Fetched {
    if commits.is_empty() { Fetched::Nothing } else { Fetched::Commits(commits) }
}

fn sequence_of(headers: &HeaderMap) -> Option<u64> {
    headers.get("Nats-Sequence")?.as_str().parse().ok()
}
