//! The charging rule on every kind of end: what was delivered and verified, never more.

use super::*;
use crate::relay::transcript::{Detokenise, Mark};
use ed25519_dalek::{Signer, SigningKey};
use protocol::commitment::{Committed, commit, token_bytes};
use protocol::id::{NodeId, OperatorId};
use protocol::job_message::Frame;
use protocol::rate::ProofClass;

const SALT: Hash32 = Hash32([4; 32]);

struct Letters;
impl Detokenise for Letters {
    fn push(&mut self, id: u32) -> String {
        char::from_u32(id).map(String::from).unwrap_or_default()
    }
    fn finish(&mut self) -> String {
        String::new()
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn dispatched() -> Dispatched {
    Dispatched {
        job: JobId([1; 16]),
        attempt: 0,
        node: NodeId([2; 16]),
        operator: OperatorId(key().verifying_key().to_bytes()),
        body: Hash32([3; 32]),
        weights: Hash32([5; 32]),
        proof_class: ProofClass::ReExecutable,
        input_units: 7,
        output_units_max: 10,
    }
}

/// Six tokens in three frames of two.
fn transcript() -> Transcript {
    let mut transcript = Transcript::new(Box::new(Letters), vec![], 10);
    for (seq, ids) in [[97, 98], [99, 100], [101, 102]].into_iter().enumerate() {
        let chain = Hash32([2 * (seq as u8 + 1); 32]);
        transcript
            .push(&Frame { seq: seq as u64, ids: ids.to_vec(), text: String::new(), chain, logprobs: vec![] })
            .unwrap();
    }
    transcript
}

fn receipt(tokens: usize, finish: Finish) -> Receipt {
    let d = dispatched();
    let ids = &transcript().ids()[..tokens].to_vec();
    Receipt {
        version: 1,
        job: d.job,
        attempt: 0,
        node: d.node,
        operator: d.operator,
        weights: d.weights,
        numerics: "counterfoil-numerics-1".to_owned(),
        proof_class: d.proof_class,
        body: d.body,
        input_tokens: 7,
        output_tokens: tokens as u64,
        output: commit(Committed::Output, &SALT.0, &token_bytes(ids)),
        chain_head: Hash32([tokens as u8; 32]),
        finish,
        started_us: 0,
        ended_us: 0,
        backend: String::new(),
    }
}

fn answered(delivered: u64, cut: Option<Cut>) -> Answered {
    let mark = Mark { count: delivered, chain: Hash32([delivered as u8; 32]) };
    let any_text = delivered > 0;
    Answered { receipt: vec![1], delivered: (delivered > 0).then_some(mark), any_text, cut }
}

/// Charging rule, worker's count, gateway's count, first byte of the chain's head.
fn check(
    answered: &Answered,
    worker: usize,
    delivery: Delivery,
) -> Result<(Charge, u64, u64, u8), VoidReason> {
    check_after(0, answered, worker, delivery)
}

/// The same for an attempt that went on after so many tokens.
fn check_after(
    cut: u64,
    answered: &Answered,
    worker: usize,
    delivery: Delivery,
) -> Result<(Charge, u64, u64, u8), VoidReason> {
    match bill(answered, &receipt(worker, Finish::Stop), &transcript(), delivery, cut) {
        Bill::Charge(s) => Ok((s.charge, s.worker_units, s.gateway_units, s.chain_head.0[0])),
        Bill::Void(why) => Err(why),
    }
}

#[test]
fn the_smaller_count_of_what_was_delivered_is_charged() {
    use Delivery::{Stream, Whole};
    assert_eq!(check(&answered(6, None), 6, Stream), Ok((Charge::Completed, 6, 6, 6)));
    assert_eq!(check(&answered(6, None), 6, Whole), Ok((Charge::Completed, 6, 6, 6)));
    assert_eq!(check(&answered(6, None), 4, Stream), Ok((Charge::Completed, 4, 6, 4)));
    assert_eq!(check(&answered(4, Some(Cut::Stop)), 6, Stream), Ok((Charge::Completed, 6, 4, 4)));
    assert_eq!(check(&answered(2, Some(Cut::ClientGone)), 6, Stream), Ok((Charge::ClientGone, 6, 2, 2)));
    assert_eq!(check(&answered(2, Some(Cut::Shutdown)), 4, Stream), Ok((Charge::ClientGone, 4, 2, 2)));
}

#[test]
fn what_came_before_its_cut_is_not_an_attempts_own() {
    use Delivery::Stream;
    assert_eq!(check_after(2, &answered(6, None), 6, Stream), Ok((Charge::Completed, 6, 6, 6)));
    assert_eq!(check_after(6, &answered(6, None), 6, Stream), Err(VoidReason::NoUsage));
    let left = answered(4, Some(Cut::ClientGone));
    assert_eq!(
        check_after(4, &left, 6, Stream),
        Err(VoidReason::ClientGone),
        "it left while it was repeated"
    );
}

#[test]
fn nothing_delivered_is_not_charged() {
    use Delivery::{Stream, Whole};
    assert_eq!(check(&answered(0, None), 6, Stream), Err(VoidReason::NoUsage));
    assert_eq!(check(&answered(6, None), 0, Stream), Err(VoidReason::NoUsage));
    assert_eq!(check(&answered(0, Some(Cut::ClientGone)), 6, Stream), Err(VoidReason::ClientGone));
    assert_eq!(check(&answered(6, Some(Cut::ClientGone)), 6, Whole), Err(VoidReason::ClientGone));
    assert_eq!(check(&answered(6, Some(Cut::Shutdown)), 6, Whole), Err(VoidReason::NoUsage));
    let silent = Answered { any_text: false, ..answered(6, None) };
    assert_eq!(check(&silent, 6, Stream), Err(VoidReason::NoUsage), "tokens without a word of text");
}

#[test]
fn ends_that_a_node_may_not_declare() {
    let signed = |receipt: &Receipt| receipt.sign(|bytes| key().sign(bytes).to_bytes()).to_bytes();
    let verify = |receipt: &Receipt, frames: u64, cut: Option<Cut>| {
        let (bytes, transcript) = (signed(receipt), transcript());
        let ended = Ended { receipt: &bytes, frames, transcript: &transcript, cut };
        super::verify(ended, &dispatched(), &SALT).map(drop)
    };
    assert_eq!(verify(&receipt(6, Finish::Stop), 3, None), Ok(()));
    assert!(verify(&receipt(6, Finish::Stop), 4, None).unwrap_err().contains("4 frames, 3 came"));
    assert!(verify(&receipt(6, Finish::Length), 3, None).unwrap_err().contains("below its bound"));
    assert!(verify(&receipt(4, Finish::Cancelled), 3, None).unwrap_err().contains("nobody"));
    assert_eq!(verify(&receipt(4, Finish::Cancelled), 3, Some(Cut::ClientGone)), Ok(()));
}
