//! Messages between gateway and worker, version 1: JSON on NATS subjects. Anybody's worker speaks them
//! (`specs/job-protocol.md`). Bodies travel sealed to the node's key.

use crate::id::{Hash32, JobId, NodeId, OperatorId};
use serde::{Deserialize, Serialize};

/// The protocol's version, in every message.
pub const JOB_PROTOCOL: u32 = 1;
/// How often a worker says it lives.
pub const HEARTBEAT_MS: u64 = 2_000;
/// Missed heartbeats after which a node takes no new jobs.
pub const HEARTBEATS_MISSED_MAX: u32 = 3;
/// How long a worker has to accept or refuse an offer.
pub const ACCEPT_MS_MAX: u64 = 2_000;

/// `job.<operator>.<node>.offer`
pub fn offer_subject(operator: &OperatorId, node: &NodeId) -> String {
    format!("job.{operator}.{node}.offer")
}

/// `job.<operator>.<node>.cancel`
pub fn cancel_subject(operator: &OperatorId, node: &NodeId) -> String {
    format!("job.{operator}.{node}.cancel")
}

/// `result.<operator>.<node>.<gateway>.<job>.<attempt>`: answer to the offer, then frames.
pub fn result_subject(
    operator: &OperatorId,
    node: &NodeId,
    gateway: &str,
    job: &JobId,
    attempt: u32,
) -> String {
    format!("result.{operator}.{node}.{gateway}.{job}.{attempt}")
}

/// `hb.<operator>.<node>`
pub fn heartbeat_subject(operator: &OperatorId, node: &NodeId) -> String {
    format!("hb.{operator}.{node}")
}

/// `receipt.<operator>.<job>.<attempt>`, captured by the stream `RECEIPTS`.
pub fn receipt_subject(operator: &OperatorId, job: &JobId, attempt: u32) -> String {
    format!("receipt.{operator}.{job}.{attempt}")
}

/// A job for one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobOffer {
    /// [`JOB_PROTOCOL`].
    pub protocol: u32,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The node it is for.
    pub node: NodeId,
    /// Token of the gateway, for result subjects: letters and digits.
    pub gateway: String,
    /// Name of the model on the rate card.
    pub model: String,
    /// SHA-256 of the weights it must be run on.
    pub weights: Hash32,
    /// When the job must have ended, microseconds UTC.
    pub deadline_us: u64,
    /// The body's salted commitment; the opened body must match.
    pub body_commitment: Hash32,
    /// [`JobBody`] as JSON in a libsodium sealed box to the node's key, base64 (standard alphabet, padded).
    pub sealed_body: String,
}

/// What a node must know to run the job. Its canonical bytes are committed to in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobBody {
    /// The job, so that a body cannot be replayed under another.
    pub job: JobId,
    /// Prompt token ids, chat template applied. Canonical for `re_executable` models.
    pub prompt_ids: Vec<u32>,
    /// The chat messages as the client sent them, for backends that tokenise themselves.
    pub messages: serde_json::Value,
    /// Bound on output tokens.
    pub max_tokens: u32,
    /// Millionths; 0 = argmax.
    pub temperature_millionths: u32,
    /// Millionths; 1 000 000 = off.
    pub top_p_millionths: u32,
    /// 0 = off.
    pub top_k: u32,
    /// The client's seed, when it gave one.
    pub seed: Option<u64>,
    /// Key of the sampling generator: [`sampling_key`] of seed, job and commit. Not part of the commitment, which
    /// stands in that very commit; anybody recomputes it.
    pub sampling_key: Hash32,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// What else steers the choice of tokens; absent when it changes nothing.
    #[serde(default, skip_serializing_if = "JobControls::is_default")]
    pub controls: JobControls,
    /// Salt of the commitments.
    pub salt: Hash32,
}

/// What steers the choice of tokens beyond temperature, top-p and top-k, and what is reported about it. The default changes
/// nothing: bodies with it have the bytes and the commitment of bodies from before there were controls.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct JobControls {
    /// Candidates below this share of the largest weight are left out, millionths; 0 = off.
    pub min_p_millionths: u32,
    /// Divides the logits of tokens that occurred, millionths; 1 000 000 = off.
    pub repetition_penalty_millionths: u32,
    /// Taken off a token's logit for each time it occurred in the output, millionths.
    pub frequency_penalty_millionths: i32,
    /// Taken off the logit of tokens that occurred in the output, millionths.
    pub presence_penalty_millionths: i32,
    /// Token and what is added to its logit, millionths; ascending by token.
    pub logit_bias: Vec<(u32, i32)>,
    /// What the output must look like.
    pub format: OutputFormat,
    /// Report log-probabilities of each token and of so many likely ones, 0 to 20. Changes no token: not committed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u8>,
    /// The client's `tools`, `tool_choice` and `parallel_tool_calls`, for backends that tokenise themselves; in `prompt_ids`
    /// they stand already. Not committed to, as `messages`.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub tools: serde_json::Value,
}

/// What an output must look like.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputFormat {
    /// Anything.
    #[default]
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that satisfies a schema.
    JsonSchema {
        /// The schema's text.
        schema: String,
    },
}

impl Default for JobControls {
    fn default() -> JobControls {
        JobControls {
            min_p_millionths: 0,
            repetition_penalty_millionths: 1_000_000,
            frequency_penalty_millionths: 0,
            presence_penalty_millionths: 0,
            logit_bias: Vec::new(),
            format: OutputFormat::Text,
            logprobs: None,
            tools: serde_json::Value::Null,
        }
    }
}

impl JobControls {
    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        *self == JobControls::default()
    }

    /// Whether no token can come out otherwise than without controls.
    pub fn changes_nothing(&self) -> bool {
        JobControls { logprobs: None, tools: serde_json::Value::Null, ..self.clone() }.is_default()
    }

    /// The bytes that follow a body's others in its commitment; none where the controls change nothing.
    fn committed_bytes(&self) -> Vec<u8> {
        if self.changes_nothing() {
            return Vec::new();
        }
        let mut bytes = b"controls".to_vec();
        bytes.extend_from_slice(&self.min_p_millionths.to_le_bytes());
        bytes.extend_from_slice(&self.repetition_penalty_millionths.to_le_bytes());
        bytes.extend_from_slice(&self.frequency_penalty_millionths.to_le_bytes());
        bytes.extend_from_slice(&self.presence_penalty_millionths.to_le_bytes());
        bytes.extend_from_slice(&(self.logit_bias.len() as u32).to_le_bytes());
        for (id, bias) in &self.logit_bias {
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&bias.to_le_bytes());
        }
        let (format, schema) = match &self.format {
            OutputFormat::Text => (0u32, ""),
            OutputFormat::JsonObject => (1, ""),
            OutputFormat::JsonSchema { schema } => (2, schema.as_str()),
        };
        bytes.extend_from_slice(&format.to_le_bytes());
        bytes.extend_from_slice(&(schema.len() as u32).to_le_bytes());
        bytes.extend_from_slice(schema.as_bytes());
        bytes
    }
}

impl JobBody {
    /// The bytes that the body commitment covers: every field that fixes the output, in fixed order, little-endian,
    /// each list with its length. `messages` and `salt` are left out: the first does not fix the output, the second is the key.
    /// Controls come last, where they change anything.
    pub fn committed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96 + 4 * self.prompt_ids.len());
        bytes.extend_from_slice(&self.job.0);
        bytes.extend_from_slice(&(self.prompt_ids.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crate::commitment::token_bytes(&self.prompt_ids));
        for number in [self.max_tokens, self.temperature_millionths, self.top_p_millionths, self.top_k] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.push(u8::from(self.seed.is_some()));
        bytes.extend_from_slice(&self.seed.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&(self.stop.len() as u32).to_le_bytes());
        for text in &self.stop {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&self.controls.committed_bytes());
        bytes
    }

    /// The salted commitment of this body.
    pub fn commitment(&self) -> Hash32 {
        crate::commitment::commit(crate::commitment::Committed::Body, &self.salt.0, &self.committed_bytes())
    }
}

/// The sampling generator's key: from the client's seed alone when it gave one, else from the job's id and the hash of
/// the commit that holds its `HoldPlaced`, which neither worker nor gateway can choose.
pub fn sampling_key(seed: Option<u64>, job: &JobId, commit: &Hash32) -> Hash32 {
    let mut hasher = blake3::Hasher::new_derive_key("counterfoil sampling key 1");
    match seed {
        Some(seed) => hasher.update(b"seed").update(&seed.to_le_bytes()),
        None => hasher.update(b"job ").update(&job.0).update(&commit.0),
    };
    Hash32(*hasher.finalize().as_bytes())
}

/// What a worker publishes on the result subject.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ResultMessage {
    /// The job was taken; first message, within [`ACCEPT_MS_MAX`].
    Accept {
        /// The attempt.
        attempt: u32,
    },
    /// The job was refused; first and last message.
    Nak {
        /// The attempt.
        attempt: u32,
        /// Why.
        reason: NakReason,
        /// For people.
        detail: String,
    },
    /// Some tokens.
    Frame(Frame),
    /// The answer ended; the receipt follows here and on the receipt subject.
    Done {
        /// Number of frames before it.
        seq: u64,
        /// Signed receipt, canonical CBOR, base64.
        receipt: String,
    },
    /// The job failed on the node.
    Failed {
        /// Number of frames before it.
        seq: u64,
        /// For people; never the prompt.
        detail: String,
    },
}

/// Why a node refuses a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NakReason {
    /// No slot free.
    Busy,
    /// It is leaving.
    Draining,
    /// It does not serve that model or those weights.
    Model,
    /// The body does not open or does not match its commitment.
    Body,
    /// The request is outside what the backend can do.
    Unsupported,
}

/// A few tokens. Sequence numbers are contiguous from 0; a gap means loss.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frame {
    /// Position among the attempt's frames.
    pub seq: u64,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Their text, whole characters only; may lag behind the ids.
    pub text: String,
    /// Digest chain after the last of these ids.
    pub chain: Hash32,
    /// Log-probabilities of these ids, where the body asks for them: one entry an id, or none. Informative: not signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprobs>,
}

/// Log-probabilities at temperature 1 of one output token and of the likeliest in its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenLogprobs {
    /// The token.
    pub id: u32,
    /// Its own, in millionths of a natural logarithm.
    pub millionths: i32,
    /// Tokens with theirs, the likeliest first.
    pub top: Vec<(u32, i32)>,
}

/// Published on `job.<operator>.<node>.cancel`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cancel {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
}

/// Published on `hb.<operator>.<node>` every [`HEARTBEAT_MS`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// [`JOB_PROTOCOL`].
    pub protocol: u32,
    /// The node.
    pub node: NodeId,
    /// Grows by one.
    pub seq: u64,
    /// Jobs running now.
    pub inflight: u32,
    /// Jobs it can run at once.
    pub slots: u32,
    /// Loaded models by their names on the rate card.
    pub models: Vec<String>,
    /// No new jobs.
    pub draining: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> JobBody {
        JobBody {
            job: JobId([5; 16]),
            prompt_ids: vec![1, 2, 3],
            messages: serde_json::Value::Null,
            max_tokens: 4,
            temperature_millionths: 0,
            top_p_millionths: 1_000_000,
            top_k: 0,
            seed: Some(7),
            sampling_key: Hash32([9; 32]),
            stop: vec!["END".into()],
            controls: JobControls::default(),
            salt: Hash32([8; 32]),
        }
    }

    /// Golden: what workers and auditors compute, with and without controls.
    #[test]
    fn committed_bytes_of_a_body_without_controls_are_those_of_version_1() {
        let hex = data_encoding::HEXLOWER.encode(&body().committed_bytes());
        let expected = "0505050505050505050505050505050503000000010000000200000003000000\
                        040000000000000040420f0000000000010700000000000000\
                        0100000003000000454e44";
        assert_eq!(hex, expected);
        let text = serde_json::to_string(&body()).unwrap();
        assert!(!text.contains("controls"), "{text}");
        assert_eq!(serde_json::from_str::<JobBody>(&text).unwrap(), body());
    }

    #[test]
    fn every_control_that_can_change_a_token_is_committed_to() {
        let check = |change: fn(&mut JobControls), matters: bool| {
            let mut other = body();
            change(&mut other.controls);
            assert_ne!(other.controls, JobControls::default());
            assert_eq!(other.commitment() != body().commitment(), matters, "{:?}", other.controls);
            let text = serde_json::to_string(&other).unwrap();
            assert_eq!(serde_json::from_str::<JobBody>(&text).unwrap(), other);
        };
        check(|c| c.min_p_millionths = 1, true);
        check(|c| c.repetition_penalty_millionths = 1, true);
        check(|c| c.frequency_penalty_millionths = -1, true);
        check(|c| c.presence_penalty_millionths = 1, true);
        check(|c| c.logit_bias = vec![(3, -5)], true);
        check(|c| c.format = OutputFormat::JsonObject, true);
        check(|c| c.format = OutputFormat::JsonSchema { schema: "{}".into() }, true);
        check(|c| c.logprobs = Some(0), false);
        check(|c| c.tools = serde_json::json!({ "tools": [] }), false);
    }

    #[test]
    fn a_frame_without_logprobs_reads_as_before() {
        let frame =
            Frame { seq: 0, ids: vec![1], text: "a".into(), chain: Hash32([0; 32]), logprobs: vec![] };
        let text = serde_json::to_string(&ResultMessage::Frame(frame)).unwrap();
        assert!(!text.contains("logprobs"), "{text}");
        assert!(serde_json::from_str::<ResultMessage>(&text).is_ok());
    }
}
