//! Keeps the node table fed: heartbeats from NATS, registrations from the ledger. A node that is not known, or was not
//! looked up for a while, is looked up when it beats.

use crate::clock::now_us;
use crate::gateway::Shared;
use crate::router::{NodeSpec, Reason};
use async_nats::{Message, Subscriber};
use futures::StreamExt;
use journal::SubmitError;
use ledger::query::{self, NodeView};
use protocol::id::{NodeId, OperatorId};
use protocol::job_message::{Heartbeat, JOB_PROTOCOL};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Every worker's heartbeats.
pub(crate) const HEARTBEATS: &str = "hb.*.*";
/// How long a node's registration is believed before the ledger is asked again.
const REGISTRATION_US: u64 = 10_000_000;
/// Longest heartbeat.
const HEARTBEAT_BYTES_MAX: usize = 64 * 1024;
/// Nodes whose look-up is remembered.
const LOOKED_UP_MAX: usize = 100_000;

impl From<NodeView> for NodeSpec {
    fn from(view: NodeView) -> Self {
        NodeSpec {
            node: view.node,
            operator: view.operator,
            models: view.models,
            slots: view.slots,
            sealing_key: view.sealing_key,
        }
    }
}

/// Takes every node that is registered now.
pub(crate) async fn load(shared: &Shared) -> Result<(), SubmitError> {
    let nodes = shared.client.read(query::nodes).await?;
    let mut table = shared.table();
    let now = now_us();
    nodes.into_iter().filter(|node| !node.retired).for_each(|node| table.register(node.into(), now));
    Ok(())
}

/// Looks one node up and takes what its registration says.
pub(crate) async fn refresh(shared: &Shared, node: NodeId) -> Result<(), SubmitError> {
    let view = shared.client.read(move |state| query::node(state, node)).await?;
    let mut table = shared.table();
    match view {
        Some(view) if !view.retired => table.register(view.into(), now_us()),
        Some(_) | None => table.retire(&node),
    }
    Ok(())
}

/// Takes heartbeats until the subscription ends.
pub(crate) async fn listen(shared: Arc<Shared>, mut subscription: Subscriber) {
    let mut looked_up: HashMap<NodeId, u64> = HashMap::new();
    let mut challenged: HashSet<NodeId> = HashSet::new();
    let mut told: HashMap<NodeId, Vec<(String, Reason)>> = HashMap::new();
    while let Some(message) = subscription.next().await {
        let Some((operator, beat)) = parse(&message) else { continue };
        let now = now_us();
        let stale = looked_up.get(&beat.node).is_none_or(|at| now > at.saturating_add(REGISTRATION_US));
        if stale {
            if looked_up.len() >= LOOKED_UP_MAX {
                looked_up.clear();
            }
            looked_up.insert(beat.node, now);
            if let Err(error) = refresh(&shared, beat.node).await {
                tracing::warn!(target: "roster", node = %beat.node, %error, "registration not looked up");
            }
        }
        let known = shared.table().heartbeat(&operator, &beat, now);
        if known {
            shared.slot_freed.notify_waiters();
            challenge(&shared, &mut challenged, beat.node);
            tell(&shared, &mut told, &operator, &beat.node, now).await;
        } else {
            // It may be registered before its next beat.
            looked_up.remove(&beat.node);
        }
    }
}

/// A node that is seen for the first time gets a challenge, where the network makes any.
fn challenge(shared: &Shared, challenged: &mut HashSet<NodeId>, node: NodeId) {
    if let Some(newcomers) = &shared.newcomers
        && challenged.len() < LOOKED_UP_MAX
        && challenged.insert(node)
        && newcomers.try_send(node).is_err()
    {
        challenged.remove(&node);
    }
}

/// Tells a node on its own subject why it is or is not routed, when that changed: `job.<operator>.<node>.standing`.
async fn tell(
    shared: &Shared,
    told: &mut HashMap<NodeId, Vec<(String, Reason)>>,
    operator: &OperatorId,
    node: &NodeId,
    now: u64,
) {
    let why = shared.table().why_all(node, now);
    if told.get(node) == Some(&why) {
        return;
    }
    if told.len() >= LOOKED_UP_MAX {
        told.clear();
    }
    let by_model: serde_json::Map<String, serde_json::Value> =
        why.iter().map(|(model, reason)| (model.clone(), serde_json::json!(reason))).collect();
    told.insert(*node, why);
    let payload = serde_json::json!({ "protocol": JOB_PROTOCOL, "node": node, "why": by_model }).to_string();
    let subject = format!("job.{operator}.{node}.standing");
    if let Err(error) = shared.nats.publish(subject, payload.into()).await {
        tracing::warn!(target: "roster", %node, %error, "node not told its standing");
    }
}

/// `hb.<operator>.<node>`: the server lets only that operator publish there, so the subject says who it is.
fn parse(message: &Message) -> Option<(OperatorId, Heartbeat)> {
    if message.payload.len() > HEARTBEAT_BYTES_MAX {
        return None;
    }
    let mut tokens = message.subject.split('.').skip(1);
    let operator = tokens.next()?.parse().ok()?;
    let node: NodeId = tokens.next()?.parse().ok()?;
    let beat: Heartbeat = serde_json::from_slice(&message.payload).ok()?;
    (beat.protocol == JOB_PROTOCOL && beat.node == node).then_some((operator, beat))
}
