//! The job protocol's cases against anybody's worker: the kit plays the gateway, sends real offers to one node and says what of
//! `specs/job-protocol.md` does not hold, with the section. It needs the credentials of a gateway and the node's public key.
//! Must not: know how a worker is built.

mod cases;
mod link;

use link::{Link, Taken};
use protocol::id::{Hash32, NodeId, OperatorId, SealingKey};
use protocol::job_message::ACCEPT_MS_MAX;
use protocol::rate::ProofClass;
use serde::Serialize;
use std::time::Duration;

/// Longest time that one answer may take.
pub const ANSWER_MS_MAX: u64 = 60_000;
/// Time for something that must not come.
const QUIET_MS: u64 = 700;
/// Longest time for a first message; a later one than the protocol allows is told from none.
const FIRST_WORD_MS_MAX: u64 = 2 * ACCEPT_MS_MAX;
/// Length of the answer that is looked at most closely.
const WHOLE_TOKENS: u32 = 24;

/// What the kit is given.
#[derive(Clone, Debug)]
pub struct ConformanceOptions {
    /// Connected with the gateway's role.
    pub nats: async_nats::Client,
    /// The node's owner.
    pub operator: OperatorId,
    /// The node.
    pub node: NodeId,
    /// The public key that it opens bodies with.
    pub sealing_key: SealingKey,
    /// A model it serves, by its name on the price list.
    pub model: String,
    /// Its weights there.
    pub weights: Hash32,
    /// Its proof class there.
    pub proof_class: ProofClass,
    /// A prompt in tokens of that model, chat template applied.
    pub prompt_ids: Vec<u32>,
    /// The same prompt in words, for backends that tokenise themselves.
    pub prompt: String,
}

/// How a case came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseVerdict {
    /// As the protocol says.
    Passed,
    /// Not so.
    Failed,
    /// Could not be looked at; the detail says why.
    Skipped,
}

/// One case.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Case {
    /// Short and constant.
    pub name: &'static str,
    /// Section of `specs/job-protocol.md`.
    pub section: u8,
    /// What came out.
    pub verdict: CaseVerdict,
    /// What was expected and what came; empty when it passed.
    pub detail: String,
}

/// Every case, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Conformance {
    /// The cases.
    pub cases: Vec<Case>,
}

impl Conformance {
    /// Whether nothing failed.
    pub fn holds(&self) -> bool {
        self.cases.iter().all(|case| case.verdict != CaseVerdict::Failed)
    }
}

/// Why the cases could not be played.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// The connection, or its role.
    #[error(
        "NATS: {0}; the kit needs the credentials of a gateway (role gateway) of the network or the sandbox"
    )]
    Nats(String),
    /// The key.
    #[error("the node's sealing key: {0}; take `sealing_key` of GET /v1/nodes/<node>")]
    Key(String),
}

/// What a case says: nothing, what is wrong, or why it could not look.
pub(crate) enum Finding {
    Fine,
    Wrong(String),
    Skipped(String),
}

impl Finding {
    /// Fine when `holds`, else what is wrong.
    pub(crate) fn when(holds: bool, wrong: impl FnOnce() -> String) -> Finding {
        if holds { Finding::Fine } else { Finding::Wrong(wrong()) }
    }
}

/// Plays every case, one after another.
///
/// # Errors
/// [`ConformanceError`]: nothing can be said about the worker.
pub async fn examine(options: ConformanceOptions) -> Result<Conformance, ConformanceError> {
    let mut link = Link::open(options).await?;
    let mut cases = Vec::new();
    let mut note = |name, section, finding: Finding| {
        let (verdict, detail) = match finding {
            Finding::Fine => (CaseVerdict::Passed, String::new()),
            Finding::Wrong(detail) => (CaseVerdict::Failed, detail),
            Finding::Skipped(detail) => (CaseVerdict::Skipped, detail),
        };
        cases.push(Case { name, section, verdict, detail });
    };
    note("heartbeats come and count", 4, cases::heartbeats(&mut link).await);
    let mut job = link.job(WHOLE_TOKENS);
    let whole = link.offer(&mut job).await?;
    note("an offer is accepted first and in time", 5, cases::accepted(&whole));
    if whole.first.is_none() {
        return Ok(Conformance { cases });
    }
    note("frames are contiguous and bounded", 6, cases::frames(&whole, WHOLE_TOKENS as usize));
    note("the end counts its frames", 6, cases::end(&whole));
    note("the receipt says what was dispatched and sent", 8, cases::receipt(&link, &whole));
    note("the receipt is signed by the operator", 8, cases::signature(&link, &whole));
    note("the receipt reaches the stream", 8, cases::streamed(&mut link, &whole).await);
    note("fields that it does not know are ignored", 2, cases::unknown_fields(&mut link).await?);
    note("another model is refused", 5, cases::other_model(&mut link).await?);
    note("other weights are refused", 5, cases::other_weights(&mut link).await?);
    note("a body that does not match its commitment is refused", 5, cases::other_body(&mut link).await?);
    note("a body of another job is refused", 5, cases::replayed_body(&mut link).await?);
    note("a body that does not open is refused", 5, cases::closed_body(&mut link).await?);
    note("an offer is run once however often it comes", 5, cases::repeated(&mut link).await?);
    note("a gateway name that is no token is not answered", 3, cases::bad_gateway(&mut link).await?);
    note("garbage is ignored", 2, cases::garbage(&mut link).await?);
    note("a cancel of no job is ignored", 6, cases::cancel_of_nothing(&mut link).await?);
    note("a cancel ends the answer with a receipt", 6, cases::cancel(&mut link).await?);
    note("more jobs than slots are refused as busy", 5, cases::busy(&mut link).await?);
    note("after all that it still works", 6, cases::still_works(&mut link).await?);
    Ok(Conformance { cases })
}

pub(crate) fn quiet() -> Duration {
    Duration::from_millis(QUIET_MS)
}

pub(crate) fn first_word() -> Duration {
    Duration::from_millis(FIRST_WORD_MS_MAX)
}

pub(crate) fn patience() -> Duration {
    Duration::from_millis(ANSWER_MS_MAX)
}

/// The words of a nak, for comparing.
pub(crate) fn naked(taken: &Taken) -> Option<protocol::job_message::NakReason> {
    match taken.first.as_ref()?.1 {
        protocol::job_message::ResultMessage::Nak { reason, .. } => Some(reason),
        _ => None,
    }
}
