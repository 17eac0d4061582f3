//! Whether a receipt stands for what this gateway saw. Pure; every rule here can only lower a charge or refuse it.

use crate::relay::transcript::Transcript;
use ledger::query::JobView;
use protocol::commitment::{Committed, commit, token_bytes};
use protocol::id::{Hash32, JobId, NodeId, OperatorId};
use protocol::rate::{ModelRate, ProofClass};
use protocol::receipt::{Receipt, ReceiptError, SignedReceipt};

/// What the log says about the attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dispatched {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The node it was given to.
    pub node: NodeId,
    /// That node's owner, who must have signed.
    pub operator: OperatorId,
    /// The body's commitment.
    pub body: Hash32,
    /// SHA-256 of the weights on the rate card.
    pub weights: Hash32,
    /// Proof class on the rate card.
    pub proof_class: ProofClass,
    /// Prompt tokens that are held for.
    pub input_units: u64,
    /// Bound on output tokens.
    pub output_units_max: u64,
}

impl Dispatched {
    /// The last attempt of a job, pinned to its own card's rate.
    pub fn of(view: &JobView, rate: &ModelRate) -> Option<Dispatched> {
        let attempt = u32::try_from(view.attempts.len()).ok()?.checked_sub(1)?;
        let last = view.attempts.last()?;
        Some(Dispatched {
            job: view.job,
            attempt,
            node: last.node,
            operator: last.operator,
            body: last.body,
            weights: rate.weights,
            proof_class: rate.proof_class,
            input_units: view.input_units,
            output_units_max: view.output_units_max,
        })
    }
}

/// Why a receipt does not stand: nothing is charged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptFault {
    /// Not a receipt, or not signed by the operator it names.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// A field is not what the job was dispatched with.
    #[error("receipt's {field} is not the dispatched job's")]
    Differs {
        /// Which field.
        field: &'static str,
    },
    /// It claims tokens that never came.
    #[error("receipt claims {claimed} output tokens; {seen} came")]
    Unseen {
        /// Signed.
        claimed: u64,
        /// Seen.
        seen: u64,
    },
    /// Its output is not the one that was relayed.
    #[error("receipt's output commitment or digest chain is not that of the {0} tokens that came")]
    Output(u64),
}

/// Opens a receipt and compares it with what the job was dispatched with. Says nothing about the output.
pub fn open(bytes: &[u8], dispatched: &Dispatched) -> Result<Receipt, ReceiptFault> {
    let receipt = SignedReceipt::open(bytes)?;
    let Dispatched { job, attempt, node, operator, body, weights, proof_class, .. } = dispatched;
    let fields = [
        ("version", receipt.version == 1),
        ("job", receipt.job == *job),
        ("attempt", receipt.attempt == *attempt),
        ("node", receipt.node == *node),
        ("operator", receipt.operator == *operator),
        ("body", receipt.body == *body),
        ("weights", receipt.weights == *weights),
        ("proof class", receipt.proof_class == *proof_class),
        ("input count", receipt.input_tokens == dispatched.input_units),
        ("output count", receipt.output_tokens <= dispatched.output_units_max),
    ];
    match fields.iter().find(|(_, equal)| !equal) {
        Some((field, _)) => Err(ReceiptFault::Differs { field }),
        None => Ok(receipt),
    }
}

/// Compares the receipt's output with the tokens that came.
pub fn compare_output(receipt: &Receipt, transcript: &Transcript, salt: &Hash32) -> Result<(), ReceiptFault> {
    let seen = transcript.ids().len() as u64;
    let claimed = receipt.output_tokens;
    if claimed > seen {
        return Err(ReceiptFault::Unseen { claimed, seen });
    }
    let prefix = &transcript.ids()[..claimed as usize];
    let output = commit(Committed::Output, &salt.0, &token_bytes(prefix));
    let chain_fits = claimed == 0 || transcript.chain_at(claimed) == Some(receipt.chain_head);
    if output != receipt.output || !chain_fits {
        return Err(ReceiptFault::Output(claimed));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::transcript::Detokenise;
    use ed25519_dalek::{Signer, SigningKey};
    use protocol::job_message::Frame;
    use protocol::receipt::Finish;

    struct Silent;
    impl Detokenise for Silent {
        fn push(&mut self, _: u32) -> String {
            String::new()
        }
        fn finish(&mut self) -> String {
            String::new()
        }
    }

    const SALT: Hash32 = Hash32([4; 32]);

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

    fn receipt(ids: &[u32]) -> Receipt {
        let d = dispatched();
        Receipt {
            version: 1,
            job: d.job,
            attempt: d.attempt,
            node: d.node,
            operator: d.operator,
            weights: d.weights,
            numerics: "counterfoil-numerics-1".to_owned(),
            proof_class: d.proof_class,
            body: d.body,
            input_tokens: 7,
            output_tokens: ids.len() as u64,
            output: commit(Committed::Output, &SALT.0, &token_bytes(ids)),
            chain_head: Hash32([ids.len() as u8; 32]),
            finish: Finish::Stop,
            started_us: 1,
            ended_us: 2,
            backend: "test".to_owned(),
        }
    }

    fn signed(receipt: &Receipt) -> Vec<u8> {
        receipt.sign(|bytes| key().sign(bytes).to_bytes()).to_bytes()
    }

    fn seen(frames: &[&[u32]]) -> Transcript {
        let mut transcript = Transcript::new(Box::new(Silent), vec![], 10);
        let mut count = 0;
        for (seq, ids) in frames.iter().enumerate() {
            count += ids.len() as u8;
            let chain = Hash32([count; 32]);
            let frame =
                Frame { seq: seq as u64, ids: ids.to_vec(), text: String::new(), chain, logprobs: vec![] };
            transcript.push(&frame).unwrap();
        }
        transcript
    }

    #[test]
    fn a_true_receipt_stands() {
        let receipt = open(&signed(&receipt(&[1, 2, 3])), &dispatched()).unwrap();
        assert_eq!(compare_output(&receipt, &seen(&[&[1, 2], &[3]]), &SALT), Ok(()));
    }

    #[test]
    fn a_shorter_receipt_stands_for_its_prefix_at_a_frames_end() {
        let shorter = receipt(&[1, 2]);
        assert_eq!(compare_output(&shorter, &seen(&[&[1, 2], &[3]]), &SALT), Ok(()));
        assert_eq!(compare_output(&shorter, &seen(&[&[1, 2, 3]]), &SALT), Err(ReceiptFault::Output(2)));
        assert_eq!(compare_output(&receipt(&[]), &seen(&[]), &SALT), Ok(()));
    }

    #[test]
    fn a_lying_worker_gets_nothing() {
        let transcript = seen(&[&[1, 2], &[3]]);
        let more = receipt(&[1, 2, 3, 4]);
        let unseen = ReceiptFault::Unseen { claimed: 4, seen: 3 };
        assert_eq!(compare_output(&more, &transcript, &SALT), Err(unseen));
        assert_eq!(compare_output(&receipt(&[1, 2, 9]), &transcript, &SALT), Err(ReceiptFault::Output(3)));
        let other_salt = compare_output(&receipt(&[1, 2, 3]), &transcript, &Hash32([0; 32]));
        assert_eq!(other_salt, Err(ReceiptFault::Output(3)));
        let chain = Receipt { chain_head: Hash32([9; 32]), ..receipt(&[1, 2, 3]) };
        assert_eq!(compare_output(&chain, &transcript, &SALT), Err(ReceiptFault::Output(3)));
    }

    #[test]
    fn every_field_is_compared() {
        let check = |field: &str, change: fn(&mut Receipt)| {
            let mut receipt = receipt(&[1]);
            change(&mut receipt);
            let error = open(&signed(&receipt), &dispatched()).unwrap_err().to_string();
            assert!(error.contains(&format!("receipt's {field} is not")), "{field}: {error}");
        };
        check("version", |r| r.version = 2);
        check("job", |r| r.job.0[0] ^= 1);
        check("attempt", |r| r.attempt = 1);
        check("node", |r| r.node.0[0] ^= 1);
        check("body", |r| r.body.0[0] ^= 1);
        check("weights", |r| r.weights.0[0] ^= 1);
        check("proof class", |r| r.proof_class = ProofClass::Attested);
        check("input count", |r| r.input_tokens = 8);
        check("output count", |r| r.output_tokens = 11);
    }

    #[test]
    fn another_operators_signature_or_a_flipped_byte_does_not_open() {
        let mut bytes = signed(&receipt(&[1]));
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(matches!(open(&bytes, &dispatched()), Err(ReceiptFault::Receipt(_))));
        let other = SigningKey::from_bytes(&[2; 32]);
        let mut foreign = receipt(&[1]);
        foreign.operator = OperatorId(other.verifying_key().to_bytes());
        let bytes = foreign.sign(|b| other.sign(b).to_bytes()).to_bytes();
        assert_eq!(open(&bytes, &dispatched()), Err(ReceiptFault::Differs { field: "operator" }));
    }
}
