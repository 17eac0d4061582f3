//! Offers and cancels: what this gateway sends to a node.

use crate::seal::{self, SealError};
use async_nats::Client;
use protocol::id::{Hash32, SealingKey};
use protocol::id::{JobId, NodeId, OperatorId};
use protocol::job_message::{
    Cancel, JOB_PROTOCOL, JobBody, JobOffer, cancel_subject, offer_subject, result_subject,
};

/// One attempt's addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The node's owner.
    pub operator: OperatorId,
    /// The node.
    pub node: NodeId,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
}

/// What an offer says beside its address.
#[derive(Clone, Copy, Debug)]
pub struct OfferTerms<'a> {
    /// Token of this gateway.
    pub gateway: &'a str,
    /// Name of the model.
    pub model: &'a str,
    /// SHA-256 of its weights.
    pub weights: Hash32,
    /// Microseconds UTC.
    pub deadline_us: u64,
    /// The node's key.
    pub sealing_key: SealingKey,
}

/// Why an offer did not leave.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// The node's key cannot be sealed to.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The body is no JSON (it always is) or the connection is gone.
    #[error("offer not sent: {0}")]
    Send(String),
}

/// Sends the offer. The result subject is its reply subject, so that the server itself answers there when nobody listens.
pub async fn offer(
    nats: &Client,
    to: &Address,
    terms: OfferTerms<'_>,
    body: &JobBody,
) -> Result<(), OfferError> {
    let send = |e: &dyn std::fmt::Display| OfferError::Send(e.to_string());
    let plain = serde_json::to_vec(body).map_err(|e| send(&e))?;
    let offer = JobOffer {
        protocol: JOB_PROTOCOL,
        job: to.job,
        attempt: to.attempt,
        node: to.node,
        gateway: terms.gateway.to_owned(),
        model: terms.model.to_owned(),
        weights: terms.weights,
        deadline_us: terms.deadline_us,
        body_commitment: body.commitment(),
        sealed_body: data_encoding::BASE64.encode(&seal::seal(&terms.sealing_key, &plain)?),
    };
    let payload = serde_json::to_vec(&offer).map_err(|e| send(&e))?;
    let reply = result_subject(&to.operator, &to.node, terms.gateway, &to.job, to.attempt);
    let subject = offer_subject(&to.operator, &to.node);
    nats.publish_with_reply(subject, reply, payload.into()).await.map_err(|e| send(&e))
}

/// No job has this id: a cancel for it asks only whether anybody listens. Who does ignores it, as every cancel of a job that it
/// does not run; when nobody does, the server says so at the attempt's result subject.
const NOBODYS_JOB: JobId = JobId([0; 16]);

/// Asks the server whether anybody listens at the node's subject.
pub async fn ask_for_anybody(nats: &Client, to: &Address, gateway: &str) {
    let Ok(payload) = serde_json::to_vec(&Cancel { job: NOBODYS_JOB, attempt: 0 }) else { return };
    let reply = result_subject(&to.operator, &to.node, gateway, &to.job, to.attempt);
    let subject = cancel_subject(&to.operator, &to.node);
    if let Err(error) = nats.publish_with_reply(subject, reply, payload.into()).await {
        tracing::warn!(target: "relay", job = %to.job, %error, "not asked whether the node is there");
    }
}

/// Tells the node to stop. Lost cancels do no harm: the deadline ends the job.
pub async fn cancel(nats: &Client, to: &Address) {
    let message = Cancel { job: to.job, attempt: to.attempt };
    let Ok(payload) = serde_json::to_vec(&message) else { return };
    if let Err(error) = nats.publish(cancel_subject(&to.operator, &to.node), payload.into()).await {
        tracing::warn!(target: "relay", job = %to.job, attempt = to.attempt, %error, "cancel not sent");
    }
}
