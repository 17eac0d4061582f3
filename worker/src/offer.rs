//! Judges an offer: whether this node may and can take it, and what its sealed body says. No I/O.

use crate::keys::NodeKey;
use protocol::id::NodeId;
use protocol::job_message::{JOB_PROTOCOL, JobBody, JobOffer, NakReason, sampling_key};

/// Longest gateway token in an offer; it becomes part of a subject.
const GATEWAY_TOKEN_BYTES_MAX: usize = 64;

/// Why an offer is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: NakReason,
    /// For people; nothing of the job's contents.
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(reason: NakReason, detail: impl Into<String>) -> Refusal {
        Refusal { reason, detail: detail.into() }
    }
}

/// Parses an offer. `Err` says why it cannot even be answered: then silence is the only answer.
pub(crate) fn parse(payload: &[u8]) -> Result<JobOffer, String> {
    let offer: JobOffer = serde_json::from_slice(payload).map_err(|e| format!("not an offer: {e}"))?;
    let token = offer.gateway.as_bytes();
    if token.is_empty()
        || token.len() > GATEWAY_TOKEN_BYTES_MAX
        || !token.iter().all(u8::is_ascii_alphanumeric)
    {
        return Err(format!("gateway token must be 1 to {GATEWAY_TOKEN_BYTES_MAX} letters and digits"));
    }
    Ok(offer)
}

/// What can be said without opening the body.
pub(crate) fn check_envelope(offer: &JobOffer, node: NodeId, now_us: u64) -> Result<(), Refusal> {
    if offer.protocol != JOB_PROTOCOL {
        let detail = format!("this worker speaks job protocol {JOB_PROTOCOL}, the offer {}", offer.protocol);
        return Err(Refusal::new(NakReason::Unsupported, detail));
    }
    if offer.node != node {
        return Err(Refusal::new(
            NakReason::Model,
            format!("this is {node}, the offer is for {}", offer.node),
        ));
    }
    if offer.deadline_us <= now_us {
        let late_ms = (now_us - offer.deadline_us) / 1_000;
        let detail = format!(
            "the deadline passed {late_ms} ms ago by this node's clock; `worker doctor` compares clocks"
        );
        return Err(Refusal::new(NakReason::Unsupported, detail));
    }
    Ok(())
}

/// Opens the sealed body and checks that it is the one the log commits to.
pub(crate) fn open_body(offer: &JobOffer, key: &NodeKey) -> Result<JobBody, Refusal> {
    let refuse = |detail: &str| Refusal::new(NakReason::Body, detail);
    let sealed = data_encoding::BASE64
        .decode(offer.sealed_body.as_bytes())
        .map_err(|_| refuse("sealed_body is not base64 (standard alphabet, padded)"))?;
    let bytes = key.unseal(&sealed).ok_or_else(|| {
        refuse("sealed_body does not open with this node's key; is the key that was registered still in use?")
    })?;
    // The parser's message may quote the body: it stays here.
    let body: JobBody =
        serde_json::from_slice(&bytes).map_err(|_| refuse("the opened body is not a JobBody"))?;
    if body.job != offer.job {
        return Err(refuse("the body is another job's"));
    }
    if body.commitment() != offer.body_commitment {
        return Err(refuse("the body does not match body_commitment"));
    }
    if body.seed.is_some() && body.sampling_key != sampling_key(body.seed, &body.job, &offer.body_commitment)
    {
        return Err(refuse("sampling_key does not follow from the client's seed"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::id::{Hash32, JobId};

    struct Gateway {
        key: NodeKey,
        body: JobBody,
        offer: JobOffer,
        _dir: tempfile::TempDir,
    }

    impl Gateway {
        fn new() -> Gateway {
            let dir = tempfile::tempdir().unwrap();
            let job = JobId([5; 16]);
            let body = JobBody {
                job,
                prompt_ids: vec![1, 2, 3],
                messages: serde_json::json!([{"role": "user", "content": "canary-7f"}]),
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
            let node = NodeId([1; 16]);
            let key = NodeKey::open_or_create(dir.path(), &node).unwrap();
            let offer = JobOffer {
                protocol: JOB_PROTOCOL,
                job,
                attempt: 0,
                node,
                gateway: "gw1".into(),
                model: "m".into(),
                weights: Hash32([2; 32]),
                deadline_us: 2_000_000,
                body_commitment: body.commitment(),
                sealed_body: String::new(),
            };
            let mut gateway = Gateway { key, body, offer, _dir: dir };
            gateway.seal();
            gateway
        }

        fn seal(&mut self) {
            self.seal_bytes(&serde_json::to_vec(&self.body).unwrap());
        }

        fn seal_bytes(&mut self, bytes: &[u8]) {
            let public = crypto_box::PublicKey::from(self.key.public().0);
            let sealed = public.seal(&mut crypto_box::aead::OsRng, bytes).unwrap();
            self.offer.sealed_body = data_encoding::BASE64.encode(&sealed);
        }

        fn refused(&self) -> String {
            let refusal = open_body(&self.offer, &self.key).expect_err("must be refused");
            assert_eq!(refusal.reason, NakReason::Body);
            assert!(!refusal.detail.contains("canary"), "contents in a refusal: {}", refusal.detail);
            refusal.detail
        }
    }

    #[test]
    fn only_the_committed_body_opens() {
        let mut gateway = Gateway::new();
        assert_eq!(open_body(&gateway.offer, &gateway.key).unwrap(), gateway.body);
        gateway.body.prompt_ids.push(4);
        gateway.seal();
        assert!(gateway.refused().contains("body_commitment"));
        gateway.body.prompt_ids.pop();
        gateway.body.salt = Hash32([7; 32]);
        gateway.seal();
        assert!(gateway.refused().contains("body_commitment"), "another salt is another commitment");
    }

    #[test]
    fn a_body_of_another_job_is_refused_even_with_its_own_commitment() {
        let mut gateway = Gateway::new();
        gateway.body.job = JobId([6; 16]);
        gateway.offer.body_commitment = gateway.body.commitment();
        gateway.seal();
        assert!(gateway.refused().contains("another job"));
    }

    #[test]
    fn damage_and_nonsense_are_named_without_their_contents() {
        let mut gateway = Gateway::new();
        gateway.seal_bytes(br#"{"canary": "canary-7f"}"#);
        assert!(gateway.refused().contains("not a JobBody"));
        gateway.offer.sealed_body = "????".into();
        assert!(gateway.refused().contains("base64"));
        gateway.offer.sealed_body = data_encoding::BASE64.encode(&[1; 80]);
        assert!(gateway.refused().contains("does not open"));
    }

    #[test]
    fn the_sampling_key_of_a_seed_is_recomputed() {
        let mut gateway = Gateway::new();
        gateway.body.seed = Some(7);
        gateway.offer.body_commitment = gateway.body.commitment();
        gateway.seal();
        assert!(gateway.refused().contains("seed"));
        gateway.body.sampling_key = sampling_key(Some(7), &gateway.body.job, &Hash32([0; 32]));
        gateway.seal();
        assert!(open_body(&gateway.offer, &gateway.key).is_ok());
    }

    #[test]
    fn envelopes_are_checked() {
        let gateway = Gateway::new();
        let node = gateway.offer.node;
        assert_eq!(check_envelope(&gateway.offer, node, 1_000_000), Ok(()));
        let reason = |offer: &JobOffer, node, now_us| check_envelope(offer, node, now_us).unwrap_err().reason;
        assert_eq!(reason(&gateway.offer, NodeId([2; 16]), 0), NakReason::Model);
        assert_eq!(reason(&gateway.offer, node, 2_000_000), NakReason::Unsupported);
        let newer = JobOffer { protocol: 2, ..gateway.offer.clone() };
        assert_eq!(reason(&newer, node, 0), NakReason::Unsupported);
        for token in ["", "a.b", "*", ">", "a b", &"x".repeat(65)] {
            let offer = JobOffer { gateway: token.into(), ..gateway.offer.clone() };
            assert!(
                parse(&serde_json::to_vec(&offer).unwrap()).is_err(),
                "{token:?} would leave its subject"
            );
        }
        assert!(parse(b"{}").is_err());
    }
}
