//! Makes and signs the receipt of one attempt. No I/O.

use crate::backend::BackendIdentity;
use crate::keys::OperatorKey;
use protocol::commitment::{Committed, commit, token_bytes};
use protocol::id::{Hash32, NodeId};
use protocol::job_message::{JobBody, JobOffer};
use protocol::receipt::{Finish, Receipt};

/// What came of an attempt.
pub(crate) struct Outcome {
    /// Output ids that were delivered in frames.
    pub(crate) output_ids: Vec<u32>,
    /// Digest chain after the last of them.
    pub(crate) chain_head: Hash32,
    pub(crate) finish: Finish,
    /// The worker's clock, microseconds UTC.
    pub(crate) started_us: u64,
    /// The worker's clock, microseconds UTC.
    pub(crate) ended_us: u64,
}

/// The attempt that a receipt is about.
pub(crate) struct Attempt<'a> {
    pub(crate) node: NodeId,
    pub(crate) offer: &'a JobOffer,
    pub(crate) body: &'a JobBody,
    pub(crate) backend: &'a BackendIdentity,
}

/// The signed receipt's canonical bytes.
pub(crate) fn signed_bytes(attempt: &Attempt<'_>, outcome: &Outcome, key: &OperatorKey) -> Vec<u8> {
    let output = token_bytes(&outcome.output_ids);
    let receipt = Receipt {
        version: 1,
        job: attempt.offer.job,
        attempt: attempt.offer.attempt,
        node: attempt.node,
        operator: key.operator(),
        weights: attempt.backend.weights,
        numerics: attempt.backend.numerics.clone(),
        proof_class: attempt.backend.proof_class,
        body: attempt.offer.body_commitment,
        input_tokens: attempt.body.prompt_ids.len() as u64,
        output_tokens: outcome.output_ids.len() as u64,
        output: commit(Committed::Output, &attempt.body.salt.0, &output),
        chain_head: outcome.chain_head,
        finish: outcome.finish,
        started_us: outcome.started_us,
        ended_us: outcome.ended_us,
        backend: attempt.backend.words.clone(),
    };
    receipt.sign(|bytes| key.sign(bytes)).to_bytes()
}

/// Microseconds UTC by this machine's clock.
pub(crate) fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::id::JobId;
    use protocol::rate::ProofClass;
    use protocol::receipt::{ReceiptError, SignedReceipt};

    #[test]
    fn the_protocol_opens_what_the_nkey_signed() {
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let key = OperatorKey::from_seed(&seed).unwrap();
        let body = JobBody {
            job: JobId([5; 16]),
            prompt_ids: vec![1, 2, 3],
            messages: serde_json::Value::Null,
            max_tokens: 4,
            temperature_millionths: 0,
            top_p_millionths: 1_000_000,
            top_k: 0,
            seed: None,
            sampling_key: Hash32([9; 32]),
            stop: vec![],
            controls: Default::default(),
            salt: Hash32([8; 32]),
        };
        let offer = JobOffer {
            protocol: 1,
            job: body.job,
            attempt: 3,
            node: NodeId([1; 16]),
            gateway: "gw1".into(),
            model: "m".into(),
            weights: Hash32([2; 32]),
            deadline_us: 1,
            body_commitment: body.commitment(),
            sealed_body: String::new(),
        };
        let backend = BackendIdentity {
            weights: offer.weights,
            numerics: "counterfoil-numerics-1".into(),
            proof_class: ProofClass::ReExecutable,
            words: "test".into(),
        };
        let outcome = Outcome {
            output_ids: vec![7, 8],
            chain_head: Hash32([4; 32]),
            finish: Finish::Stop,
            started_us: 1,
            ended_us: 2,
        };
        let attempt = Attempt { node: offer.node, offer: &offer, body: &body, backend: &backend };
        let bytes = signed_bytes(&attempt, &outcome, &key);
        let receipt = SignedReceipt::open(&bytes).expect("the operator's own signature");
        assert_eq!((receipt.job, receipt.attempt, receipt.operator), (offer.job, 3, key.operator()));
        assert_eq!((receipt.input_tokens, receipt.output_tokens), (3, 2));
        assert_eq!(receipt.output, commit(Committed::Output, &[8; 32], &token_bytes(&[7, 8])));
        let mut forged = bytes.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(matches!(SignedReceipt::open(&forged), Err(ReceiptError::BadSignature { .. })));
    }
}
