//! The one connection to NATS: the operator's JWT, its own inbox prefix, reconnecting for ever.

use crate::error::WorkerError;
use crate::keys::OperatorKey;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use std::time::Duration;
use tokio::sync::mpsc;

/// Connection events that may wait to be read; more are dropped (they are only for logs and the doctor).
pub(crate) const EVENTS_WAITING_MAX: usize = 64;
/// Between two attempts to reach the server for the first time.
const FIRST_CONNECT_RETRY_MS: u64 = 1_000;
/// Longest pause between attempts to reach it again.
const RECONNECT_MS_MAX: u64 = 2_000;

/// How and as whom to connect.
pub(crate) struct ConnectRequest<'a> {
    pub(crate) url: &'a str,
    pub(crate) key: &'a OperatorKey,
    pub(crate) jwt: &'a str,
    /// Shown in the server's connection list.
    pub(crate) name: &'a str,
    /// What the connection tells: losses, denials.
    pub(crate) events: mpsc::Sender<Event>,
}

/// One attempt.
pub(crate) async fn connect_once(request: &ConnectRequest<'_>) -> Result<Client, async_nats::ConnectError> {
    let (key, events) = (request.key.clone(), request.events.clone());
    ConnectOptions::with_jwt(request.jwt.trim().to_owned(), move |nonce| {
        let key = key.clone();
        async move { Ok(key.sign(&nonce).to_vec()) }
    })
    .name(request.name)
    .custom_inbox_prefix(format!("_INBOX_{}", request.key.operator()))
    .reconnect_delay_callback(|attempt| {
        Duration::from_millis((100u64 << attempt.min(5)).min(RECONNECT_MS_MAX))
    })
    .event_callback(move |event| {
        // A full queue means nobody reads; the connection must not wait for a log line.
        let _ = events.try_send(event);
        std::future::ready(())
    })
    .connect(request.url)
    .await
}

/// Tries until the server answers; gives up only when it refuses the credentials or the address is no address.
pub(crate) async fn connect(request: &ConnectRequest<'_>) -> Result<Client, WorkerError> {
    let mut retry = tokio::time::interval(Duration::from_millis(FIRST_CONNECT_RETRY_MS));
    loop {
        retry.tick().await;
        let error = match connect_once(request).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let url = request.url.to_owned();
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                return Err(WorkerError::Credentials { url, detail: error.to_string() });
            }
            ConnectErrorKind::ServerParse => {
                return Err(WorkerError::Options(format!(
                    "nats_url: expected nats://HOST:PORT, found {url:?}"
                )));
            }
            ConnectErrorKind::Dns
            | ConnectErrorKind::TimedOut
            | ConnectErrorKind::Tls
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => {
                tracing::warn!(target: "worker", %url, %error, "NATS server not reached; trying again");
            }
        }
    }
}
