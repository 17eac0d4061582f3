//! The loops of a node: its subjects, its heartbeat.

use crate::error::WorkerError;
use crate::node::Node;
use async_nats::connection::State;
use async_nats::{Client, Subscriber};
use futures::StreamExt;
use protocol::job_message::{HEARTBEAT_MS, cancel_subject, offer_subject};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Subscribes to the node's subjects; the client repeats it after each reconnect. One subscription for both, because
/// only then a cancel never overtakes its offer.
pub(crate) async fn subscribe(client: &Client, node: &Node) -> Result<Subscriber, WorkerError> {
    let subjects = format!("job.{}.{}.*", node.operator(), node.id);
    client
        .subscribe(subjects)
        .await
        .map_err(|e| WorkerError::Nats(format!("subscribing to the node's subjects: {e}")))
}

/// Hands messages to the node until the connection is closed for good.
pub(crate) async fn listen(mut messages: Subscriber, node: Arc<Node>) {
    let offers = offer_subject(&node.operator(), &node.id);
    let cancels = cancel_subject(&node.operator(), &node.id);
    while let Some(message) = messages.next().await {
        match message.subject.as_str() {
            subject if subject == offers => node.handle_offer(&message.payload).await,
            subject if subject == cancels => node.handle_cancel(&message.payload),
            subject if subject.ends_with(".standing") => node.handle_standing(&message.payload),
            // A later version of the protocol may say more here.
            subject => tracing::debug!(target: "worker", subject, "not a subject of this version"),
        }
    }
}

/// Says every [`HEARTBEAT_MS`], and at once when draining begins, that the node lives.
pub(crate) async fn beat(client: Client, node: Arc<Node>, mut draining: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut may_change = true;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            changed = draining.changed(), if may_change => may_change = changed.is_ok(),
        }
        // Heartbeats of a time without connection would arrive late and say nothing true.
        if client.connection_state() == State::Connected {
            node.publish_heartbeat().await;
        }
    }
}
