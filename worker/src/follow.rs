//! What the network books about this operator, as it happens: FEED's own subjects, which only this operator may read.
//! Must not: sum; what was before is not on a live subject.

use crate::connection::{ConnectRequest, EVENTS_WAITING_MAX, connect_once};
use crate::error::WorkerError;
use crate::worker::WorkerOptions;
use futures::{Stream, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;

/// Events from now on: the type and what it says. Ends with the connection.
///
/// # Errors
/// [`WorkerError::Nats`] when the broker cannot be reached or does not let this operator read.
pub async fn events(
    options: &WorkerOptions,
) -> Result<impl Stream<Item = (String, Value)> + Unpin + use<>, WorkerError> {
    let (sender, _) = mpsc::channel(EVENTS_WAITING_MAX);
    let request = ConnectRequest {
        url: &options.nats_url,
        key: &options.operator_key,
        jwt: &options.operator_jwt,
        name: "counterfoil worker earnings",
        events: sender,
    };
    let client = connect_once(&request).await.map_err(|e| WorkerError::Nats(e.to_string()))?;
    let subject = format!("feed.operator.{}.>", options.operator_key.operator());
    let messages = client.subscribe(subject).await.map_err(|e| WorkerError::Nats(e.to_string()))?;
    client.flush().await.map_err(|e| WorkerError::Nats(e.to_string()))?;
    // The client is kept with the stream: without it the connection would end.
    Ok(Box::pin(messages.map(move |message| {
        let _connected = &client;
        let kind = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
        (kind, serde_json::from_slice(&message.payload).unwrap_or(Value::Null))
    })))
}
