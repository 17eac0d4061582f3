//! Messages between this gateway and workers: one wildcard subscription for every answer, a map to the attempts that wait
//! for them, offers and cancels out. Must not: money, the log.

pub mod attempt;
pub mod outgoing;
pub mod transcript;

use async_nats::{Client, StatusCode, Subscriber};
use futures::StreamExt;
use protocol::id::{JobId, NodeId, OperatorId};
use protocol::job_message::ResultMessage;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Messages of one attempt that may wait for its relay; a relay that falls further behind has lost the attempt.
pub const MESSAGES_WAITING_MAX: usize = 4_096;
/// Longest message on a result subject.
pub const RESULT_BYTES_MAX: usize = 256 * 1024;

/// What comes in for one attempt.
#[derive(Debug)]
pub enum Incoming {
    /// The worker's message.
    Message(Box<ResultMessage>),
    /// Nobody listens at the node's subject.
    NoResponders,
    /// Not a message of the protocol: the node's fault.
    Malformed,
}

struct Route {
    node: NodeId,
    operator: OperatorId,
    sender: mpsc::Sender<Incoming>,
}

/// Who waits for which attempt.
#[derive(Clone, Default)]
pub struct Hub {
    /// Held for one look-up; never across an await.
    routes: Arc<Mutex<HashMap<(JobId, u32), Route>>>,
}

/// An attempt's messages; the route is closed when this is dropped.
pub struct Inbox {
    hub: Hub,
    key: (JobId, u32),
    receiver: mpsc::Receiver<Incoming>,
}

impl Inbox {
    /// The next message; `None` when the relay fell too far behind.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.receiver.recv().await
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.hub.lock().remove(&self.key);
    }
}

impl Hub {
    /// Opens the route of an attempt. To be done before its offer goes out.
    pub fn open(&self, job: JobId, attempt: u32, node: NodeId, operator: OperatorId) -> Inbox {
        let (sender, receiver) = mpsc::channel(MESSAGES_WAITING_MAX);
        self.lock().insert((job, attempt), Route { node, operator, sender });
        Inbox { hub: self.clone(), key: (job, attempt), receiver }
    }

    /// Hands a message to the attempt its subject names; only its own node's subject counts.
    pub(crate) fn deliver(&self, subject: &str, incoming: Incoming) {
        let Some((operator, node, key)) = parse_subject(subject) else { return };
        let mut routes = self.lock();
        let Some(route) = routes.get(&key) else { return };
        if (route.node, route.operator) != (node, operator) {
            return;
        }
        if route.sender.try_send(incoming).is_err() {
            // The relay sees the end of its channel and ends the attempt; a silent drop would be a gap.
            routes.remove(&key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(JobId, u32), Route>> {
        self.routes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// `result.<operator>.<node>.<gateway>.<job>.<attempt>`
fn parse_subject(subject: &str) -> Option<(OperatorId, NodeId, (JobId, u32))> {
    let mut tokens = subject.split('.');
    let mut next = || tokens.next();
    if next()? != "result" {
        return None;
    }
    let (operator, node) = (next()?.parse().ok()?, next()?.parse().ok()?);
    next()?;
    let key = (next()?.parse().ok()?, next()?.parse().ok()?);
    tokens.next().is_none().then_some((operator, node, key))
}

/// Subscribes to every answer for this gateway.
pub(crate) async fn subscribe(
    nats: &Client,
    gateway: &str,
) -> Result<Subscriber, async_nats::SubscribeError> {
    nats.subscribe(format!("result.*.*.{gateway}.>")).await
}

/// Hands out what the subscription brings, until it ends.
pub(crate) async fn distribute(hub: Hub, mut subscription: Subscriber) {
    while let Some(message) = subscription.next().await {
        let incoming = if message.status == Some(StatusCode::NO_RESPONDERS) {
            Incoming::NoResponders
        } else if message.payload.len() > RESULT_BYTES_MAX {
            Incoming::Malformed
        } else {
            serde_json::from_slice(&message.payload)
                .map_or(Incoming::Malformed, |message| Incoming::Message(Box::new(message)))
        };
        hub.deliver(&message.subject, incoming);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::job_message::result_subject;

    const JOB: JobId = JobId([1; 16]);
    const NODE: NodeId = NodeId([2; 16]);
    const OPERATOR: OperatorId = OperatorId([3; 32]);

    #[tokio::test]
    async fn only_the_nodes_own_subject_reaches_the_attempt() {
        let hub = Hub::default();
        let mut inbox = hub.open(JOB, 0, NODE, OPERATOR);
        let other = OperatorId([4; 32]);
        for subject in [
            result_subject(&other, &NODE, "gw", &JOB, 0),
            result_subject(&OPERATOR, &NodeId([9; 16]), "gw", &JOB, 0),
            result_subject(&OPERATOR, &NODE, "gw", &JOB, 1),
            format!("{}.more", result_subject(&OPERATOR, &NODE, "gw", &JOB, 0)),
            "result".to_owned(),
        ] {
            hub.deliver(&subject, Incoming::Malformed);
        }
        hub.deliver(&result_subject(&OPERATOR, &NODE, "gw", &JOB, 0), Incoming::NoResponders);
        assert!(matches!(inbox.next().await, Some(Incoming::NoResponders)));
        drop(inbox);
        assert!(hub.lock().is_empty());
    }

    #[tokio::test]
    async fn a_relay_that_falls_behind_loses_the_attempt_and_not_a_frame() {
        let hub = Hub::default();
        let mut inbox = hub.open(JOB, 0, NODE, OPERATOR);
        let subject = result_subject(&OPERATOR, &NODE, "gw", &JOB, 0);
        for _ in 0..=MESSAGES_WAITING_MAX {
            hub.deliver(&subject, Incoming::Malformed);
        }
        let mut got = 0;
        while inbox.next().await.is_some() {
            got += 1;
        }
        assert_eq!(got, MESSAGES_WAITING_MAX);
    }
}
