//! A newcomer's first job is the network's own: a prompt that nobody could know, answered by the node, run again here. A node
//! that does not run the model it registered for is found before a customer's job reaches it twice. Unpaid, not in the log.
//! Must not: keep a node waiting; a node that is busy or gone is not judged.

use crate::access::{random_16, random_32};
use crate::clock::now_us;
use crate::delivery::judge::{self, Dispatched};
use crate::doors::Recheck;
use crate::gateway::{Shared, until_raised};
use crate::relay::Incoming;
use crate::relay::attempt::Pace;
use crate::relay::outgoing::{self, Address, OfferTerms};
use crate::relay::transcript::Transcript;
use crate::router::NodeSpec;
use crate::verifier::Charged;
use kernels::ChatMessage;
use ledger::query;
use protocol::id::{Hash32, JobId, NodeId};
use protocol::job_message::{JobBody, JobControls, ResultMessage, sampling_key};
use protocol::rate::{ModelRate, ProofClass};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Newcomers that may wait for their challenge; one that finds no place is challenged after the next start.
pub const WAITING_MAX: usize = 1_024;
/// Tokens of an answer: enough that nobody guesses them.
const TOKENS: u32 = 24;
/// How long an answer may take.
const ANSWER_MS_MAX: u64 = 60_000;

/// Challenges newcomers, one after another, until the coordinator stops.
pub(crate) async fn run(shared: Arc<Shared>, mut newcomers: mpsc::Receiver<NodeId>) {
    let mut stopping = shared.stopping.subscribe();
    loop {
        let node = tokio::select! {
            () = until_raised(&mut stopping) => return,
            node = newcomers.recv() => node,
        };
        let Some(node) = node else { return };
        let wait = Duration::from_millis(ANSWER_MS_MAX);
        match tokio::time::timeout(wait, challenge(&shared, node)).await {
            Ok(Ok(Some(charged))) => {
                if let Some(verifier) = &shared.verifier {
                    verifier.look_at(charged);
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(reason)) => tracing::info!(target: "challenge", %node, reason, "not challenged"),
            Err(_) => tracing::info!(target: "challenge", %node, "no answer in time"),
        }
    }
}

/// The node's answer, to be run again; `None` when none of its models can be.
async fn challenge(shared: &Shared, node: NodeId) -> Result<Option<Charged>, String> {
    let Some(spec) = shared.table().spec(&node) else { return Ok(None) };
    let Some(rate) = rate_of(shared, &spec).await? else { return Ok(None) };
    let body = body(shared, &rate)?;
    let job = body.job;
    let address = Address { operator: spec.operator, node, job, attempt: 0 };
    let mut inbox = shared.hub.open(job, 0, node, spec.operator);
    let terms = OfferTerms {
        gateway: &shared.name,
        model: &rate.model,
        weights: rate.weights,
        deadline_us: now_us().saturating_add(ANSWER_MS_MAX * 1_000),
        sealing_key: spec.sealing_key,
    };
    outgoing::offer(&shared.nats, &address, terms, &body).await.map_err(|e| e.to_string())?;
    let mut transcript = Transcript::new(shared.detokeniser(&rate.model), Vec::new(), u64::from(TOKENS));
    let mut pace = Pace::default();
    let receipt = loop {
        match inbox.next().await {
            Some(Incoming::Message(message)) => match *message {
                ResultMessage::Accept { .. } => {}
                ResultMessage::Frame(frame) => {
                    transcript.push(&frame).map_err(|e| e.to_string())?;
                    pace.note(transcript.ids().len() as u64);
                }
                ResultMessage::Done { receipt, .. } => break receipt,
                other @ (ResultMessage::Nak { .. } | ResultMessage::Failed { .. }) => {
                    return Err(format!("{other:?}"));
                }
            },
            Some(Incoming::NoResponders | Incoming::Malformed) | None => return Err("gone".to_owned()),
        }
    };
    if let Some((tokens, took_us)) = pace.tokens_and_us() {
        shared.table().note_pace(&node, tokens, took_us, now_us());
    }
    let dispatched = Dispatched {
        job,
        attempt: 0,
        node,
        operator: spec.operator,
        body: body.commitment(),
        weights: rate.weights,
        proof_class: rate.proof_class,
        input_units: body.prompt_ids.len() as u64,
        output_units_max: u64::from(TOKENS),
    };
    let receipt = data_encoding::BASE64.decode(receipt.as_bytes()).map_err(|e| e.to_string())?;
    let receipt = judge::open(&receipt, &dispatched).map_err(|e| e.to_string())?;
    judge::compare_output(&receipt, &transcript, &body.salt).map_err(|e| e.to_string())?;
    let output_ids = transcript.ids()[..receipt.output_tokens as usize].to_vec();
    let recheck = Recheck { job, weights: rate.weights, body, output_ids, chain_head: receipt.chain_head };
    Ok(Some(Charged { node, recheck, is_charged: false }))
}

/// The rate of the first of its models that can be run again and whose prompts this gateway can count.
async fn rate_of(shared: &Shared, spec: &NodeSpec) -> Result<Option<ModelRate>, String> {
    let models: Vec<String> =
        spec.models.iter().filter(|m| shared.models.contains_key(*m)).cloned().collect();
    let now = now_us();
    let read = shared.client.read(move |state| {
        let card = query::rate_card(state, now)?;
        let mut rates = models.iter().filter_map(|model| card.card.model(model));
        rates.find(|rate| rate.proof_class == ProofClass::ReExecutable).cloned()
    });
    read.await.map_err(|e| e.to_string())
}

/// A question with a number in it that nobody has seen, and a seed that nobody could choose.
fn body(shared: &Shared, rate: &ModelRate) -> Result<JobBody, String> {
    let served = shared.models.get(&rate.model).ok_or("a model without a tokenizer")?;
    let random = |e: crate::access::AccessError| e.to_string();
    let (job, chance) = (JobId(random_16().map_err(random)?), random_32().map_err(random)?);
    let number = u32::from_le_bytes([chance[0], chance[1], chance[2], 0]);
    let content = format!("Write a sentence about the number {number}.");
    let messages = serde_json::json!([{ "role": "user", "content": content }]);
    let asked = ChatMessage { role: "user".to_owned(), content };
    let prompt_ids =
        kernels::prompt_ids(&served.tokenizer, &served.template, &[asked]).map_err(|e| e.to_string())?;
    Ok(JobBody {
        job,
        prompt_ids,
        messages,
        max_tokens: TOKENS,
        temperature_millionths: 1_000_000,
        top_p_millionths: 1_000_000,
        top_k: 0,
        seed: None,
        sampling_key: sampling_key(None, &job, &Hash32(chance)),
        stop: Vec::new(),
        controls: JobControls::default(),
        salt: Hash32(random_32().map_err(random)?),
    })
}
