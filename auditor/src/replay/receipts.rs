//! Receipts: what the worker signed, against what the log charged.

use super::judge::Judge;
use super::world::World;
use crate::checks::CheckKind;
use crate::copy::LogCopy;
use protocol::event::job::UsageCaptured;
use protocol::event::{Event, EventBody};
use protocol::rate::ProofClass;
use protocol::receipt::{Receipt, SignedReceipt};

/// Checks the receipt of a charge, after the charge was folded.
pub(crate) fn check(copy: &LogCopy, world: &World, judge: &mut Judge, event: &Event) {
    const KIND: CheckKind = CheckKind::ReceiptSignatures;
    let EventBody::UsageCaptured(charge) = &event.body else { return };
    let Some(bytes) = copy.receipt(&charge.job) else {
        let words = format!("the receipt of {} (leaf {}) is not in the copy", charge.job, event.header.leaf);
        judge.checks().of(KIND).inconclusive(words);
        return;
    };
    let hash = SignedReceipt::hash(&bytes);
    if charge.part.is_some_and(|part| part.open) && hash != charge.receipt {
        let words = format!(
            "the receipt of a part of {} (leaf {}) was replaced by a later one",
            charge.job, event.header.leaf
        );
        judge.checks().of(KIND).inconclusive(words);
        return;
    }
    if !judge.equal(KIND, "the receipt's bytes hash to what the log has", charge.receipt, hash) {
        return;
    }
    match SignedReceipt::open(&bytes) {
        Ok(receipt) => compare(world, judge, charge, &receipt),
        Err(error) => {
            judge.fail(KIND, format!("signed by {}", charge.operator), &error, "the receipt does not stand")
        }
    }
}

fn compare(world: &World, judge: &mut Judge, charge: &UsageCaptured, receipt: &Receipt) {
    const KIND: CheckKind = CheckKind::Receipts;
    judge.equal(KIND, "the receipt is of the job", charge.job, receipt.job);
    judge.equal(KIND, "the receipt is of the attempt", charge.attempt, receipt.attempt);
    judge.equal(KIND, "the receipt is of the node", charge.node, receipt.node);
    judge.equal(CheckKind::ReceiptSignatures, "the paid operator signed", charge.operator, receipt.operator);
    let claimed = receipt.output_tokens;
    judge.equal(KIND, "output tokens are the receipt's", claimed, charge.output_units_worker);
    let input = receipt.input_tokens;
    judge.require(
        KIND,
        format_args!("at most the receipt's {input} prompt tokens"),
        charge.input_units,
        || charge.input_units <= input,
    );
    // A shorter billed prefix has an earlier head, which the gateway saw and the receipt does not carry.
    if charge.output_units_worker.min(charge.output_units_gateway) == receipt.output_tokens {
        judge.equal(KIND, "the chain head is the receipt's", receipt.chain_head, charge.chain_head);
    }
    let Some(job) = world.jobs.get(&charge.job).filter(|job| job.is_charged()) else { return };
    if let Some(attempt) = job.attempts.get(charge.attempt as usize) {
        judge.equal(KIND, "the receipt is of the dispatched body", attempt.body, receipt.body);
    }
    if let Some(rate) = world.rate(job.card_version, &job.model) {
        judge.equal(KIND, "the receipt is of the priced weights", rate.weights, receipt.weights);
        judge.require(KIND, "the receipt has the proof class that was paid for", &receipt.numerics, || {
            rate.proof_class == ProofClass::Attested || receipt.proof_class == ProofClass::ReExecutable
        });
    }
}
