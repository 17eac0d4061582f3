//! From a receipt to a charge. A verified receipt is stored before its capture is asked for, so that a coordinator that
//! dies in between captures it at its next start. Must not: price (the ledger does).

pub mod judge;
pub mod recovery;

use crate::access::contents::Contents;
use crate::access::settling::{Charge, Settlement, SettlementRecord};
use crate::doors::Recheck;
use crate::gateway::Shared;
use crate::job::{Delivery, Job};
use crate::relay::attempt::{Answered, Cut, Ended};
use crate::relay::transcript::Transcript;
use crate::verifier::Charged;
use journal::{Outcome, SubmitError};
use judge::Dispatched;
use ledger::command::{Capture, Command, CommandBody, Void};
use protocol::EventBody;
use protocol::amount::Amount;
use protocol::event::Actor;
use protocol::event::hold::VoidReason;
use protocol::event::job::{Outcome as ChargingRule, UsageCaptured};
use protocol::id::{Hash32, IdempotencyKey, JobId};
use protocol::rate::ProofClass;
use protocol::receipt::{Finish, Receipt, SignedReceipt};
use std::time::Duration;

/// First pause before a command whose fate is unknown is asked for again; doubles.
const RETRY_MS_FIRST: u64 = 50;
/// How often it is asked for again.
const RETRIES_MAX: u32 = 8;

/// A whole answer, charged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// OpenAI's word for how it ended.
    pub reason: &'static str,
    /// Prompt tokens billed.
    pub input_units: u64,
    /// Output tokens billed.
    pub output_units: u64,
    /// What it cost, base units.
    pub cost: Amount,
    /// BLAKE3 of the signed receipt.
    pub receipt: Option<Hash32>,
}

/// What an answer comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bill {
    /// This is charged.
    Charge(Settlement),
    /// Nothing is.
    Void(VoidReason),
}

/// Judges a declared end against what was dispatched and what came.
pub fn verify(ended: Ended<'_>, dispatched: &Dispatched, salt: &Hash32) -> Result<Receipt, String> {
    let (came, transcript) = (ended.transcript.frames(), ended.transcript);
    if ended.frames != came {
        return Err(format!("the node sent {} frames, {came} came", ended.frames));
    }
    let receipt = judge::open(ended.receipt, dispatched).map_err(|e| e.to_string())?;
    judge::compare_output(&receipt, transcript, salt).map_err(|e| e.to_string())?;
    match receipt.finish {
        Finish::Cancelled if ended.cut.is_none() => Err("cancelled, but nobody had cancelled it".to_owned()),
        Finish::Length if receipt.output_tokens < dispatched.output_units_max => {
            Err("ended for length below its bound".to_owned())
        }
        Finish::Stop | Finish::Length | Finish::Cancelled => Ok(receipt),
    }
}

/// The charging rule (`specs/job-protocol.md`, "What is charged"): the smaller of both counts, of what reached the client.
/// Counts are from the answer's beginning; of an attempt that went on after `cut` tokens, those before are not its own.
pub fn bill(
    answered: &Answered,
    receipt: &Receipt,
    transcript: &Transcript,
    delivery: Delivery,
    cut: u64,
) -> Bill {
    let left = matches!(answered.cut, Some(Cut::ClientGone | Cut::Shutdown));
    let delivered = match (left, delivery) {
        // Somebody who waited for one whole object and left has got nothing.
        (true, Delivery::Whole) => 0,
        _ => answered.delivered.map_or(0, |mark| mark.count),
    };
    let billed = delivered.min(receipt.output_tokens);
    let nothing =
        if answered.cut == Some(Cut::ClientGone) { VoidReason::ClientGone } else { VoidReason::NoUsage };
    if billed <= cut || !answered.any_text {
        return Bill::Void(nothing);
    }
    // Both counts are frame ends, so the smaller one is.
    let Some(chain_head) = transcript.chain_at(billed) else { return Bill::Void(VoidReason::ReceiptInvalid) };
    Bill::Charge(Settlement {
        job: receipt.job,
        attempt: receipt.attempt,
        charge: if left { Charge::ClientGone } else { Charge::Completed },
        input_units: receipt.input_tokens,
        worker_units: receipt.output_tokens,
        gateway_units: delivered,
        receipt: SignedReceipt::hash(&answered.receipt),
        chain_head,
    })
}

/// Stores and captures a verified answer, or releases its hold.
///
/// # Errors
/// The log or the store did not take it; what was stored is captured at the next start.
pub(crate) async fn settle(
    shared: &Shared,
    job: &Job,
    answered: Answered,
    receipt: &Receipt,
    transcript: &Transcript,
    cut: u64,
) -> Result<Finished, SettleError> {
    let reason = match (answered.cut, receipt.finish) {
        (Some(Cut::Stop), _) | (_, Finish::Stop) => "stop",
        (_, Finish::Length | Finish::Cancelled) => "length",
    };
    let settlement = match bill(&answered, receipt, transcript, job.delivery, cut) {
        Bill::Charge(settlement) => settlement,
        Bill::Void(why) => {
            void(shared, job.id, why).await?;
            return Ok(Finished {
                reason,
                input_units: 0,
                output_units: 0,
                cost: Amount::ZERO,
                receipt: None,
            });
        }
    };
    let output_ids = transcript.ids()[..receipt.output_tokens as usize].to_vec();
    let contents = Contents {
        version: 1,
        body: job.body.clone(),
        attempt: receipt.attempt,
        output_ids: Some(output_ids.clone()),
        finish: Some(receipt.finish),
    };
    let contents = shared.store.seal_contents(job.account, &shared.audit_sealing_key, &contents)?;
    let record = SettlementRecord {
        settlement: settlement.clone(),
        signed_receipt: answered.receipt,
        contents: Some(contents),
    };
    shared.store.begin_settlement(record).await?;
    let captured = capture(shared, &settlement).await?;
    if let Some(verifier) =
        shared.verifier.as_ref().filter(|_| job.rate.proof_class == ProofClass::ReExecutable)
    {
        // Drawn now: the receipt is signed and booked, and nobody could have known.
        verifier.offer(shared.draw(), || charged(job, receipt, output_ids));
    }
    Ok(Finished {
        reason,
        input_units: captured.input_units,
        output_units: captured.output_units,
        cost: captured.cost,
        receipt: Some(settlement.receipt),
    })
}

fn charged(job: &Job, receipt: &Receipt, output_ids: Vec<u32>) -> Charged {
    let recheck = Recheck {
        job: job.id,
        weights: job.rate.weights,
        body: job.body.clone(),
        output_ids,
        chain_head: receipt.chain_head,
    };
    Charged { node: receipt.node, recheck, is_charged: true }
}

/// Why a settlement is not known to stand.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The log.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The store.
    #[error(transparent)]
    Access(#[from] crate::access::AccessError),
    /// The log answered something else than a capture.
    #[error("the log's answer to a capture holds no usage_captured: report this as a bug")]
    NoCapture,
}

/// Asks for the capture of a stored settlement and forgets it once it is committed.
pub(crate) async fn capture(shared: &Shared, settlement: &Settlement) -> Result<UsageCaptured, SettleError> {
    let Settlement { job, attempt, .. } = *settlement;
    let body = Capture {
        job,
        attempt,
        outcome: match settlement.charge {
            Charge::Completed => ChargingRule::Completed,
            Charge::ClientGone => ChargingRule::ClientGone,
        },
        input_units: settlement.input_units,
        output_units_worker: settlement.worker_units,
        output_units_gateway: settlement.gateway_units,
        receipt: settlement.receipt,
        chain_head: settlement.chain_head,
        part: None,
    };
    let key = IdempotencyKey::internal("capture", &[&job.0, &attempt.to_le_bytes()]);
    let outcome = submit_until_known(shared, command(key, body)).await?;
    shared.store.end_settlement(job).await?;
    let captured = outcome.events.into_iter().find_map(|event| match event.body {
        EventBody::UsageCaptured(captured) => Some(captured),
        _ => None,
    });
    captured.ok_or(SettleError::NoCapture)
}

/// Releases a job's hold. One that is closed already stays as it is.
pub(crate) async fn void(shared: &Shared, job: JobId, reason: VoidReason) -> Result<(), SettleError> {
    let key = IdempotencyKey::internal("void", &[&job.0]);
    match submit_until_known(shared, command(key, Void { job, reason })).await {
        Ok(_) | Err(SubmitError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    shared.store.end_settlement(job).await?;
    Ok(())
}

/// Submits under one key until the log has said yes or no, or has stopped.
pub(crate) async fn submit_until_known(shared: &Shared, command: Command) -> Result<Outcome, SubmitError> {
    let mut pause_ms = RETRY_MS_FIRST;
    for _ in 0..RETRIES_MAX {
        match shared.client.submit(command.clone()).await {
            Err(SubmitError::Unknown | SubmitError::Overloaded) => {
                // A commit means that the queue has moved; without one there is a longer pause each time.
                let mut position = shared.client.position();
                let pause = Duration::from_millis(pause_ms);
                let _ = tokio::time::timeout(pause, position.changed()).await;
                pause_ms *= 2;
            }
            answer => return answer,
        }
    }
    shared.client.submit(command).await
}

/// A command of the gateway's own.
pub(crate) fn command(key: IdempotencyKey, body: impl Into<CommandBody>) -> Command {
    Command::new(key, Actor::Gateway, body)
}

#[cfg(test)]
mod tests;
