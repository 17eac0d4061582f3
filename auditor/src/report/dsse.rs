//! The report as evidence: an in-toto Statement (v1) with a test result about the log's root, signed in a DSSE envelope.
//! Anybody's verifier of these formats reads it; the whole report is beside it, by its hash.

use crate::report::{Outcome, Report};
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What a DSSE envelope of a statement says it holds.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// The statement about a report: subject is the log at its root, and the report's own bytes.
pub fn statement(report: &Report, report_json: &[u8]) -> Value {
    let names = |outcomes: &[Outcome]| -> Vec<&str> {
        report.checks.iter().filter(|check| outcomes.contains(&check.result)).map(|check| check.id).collect()
    };
    let result = match report.exit_code {
        0 => "PASSED",
        3 => "WARNED",
        _ => "FAILED",
    };
    let name = format!("{}@{}", report.subject.origin, report.subject.size);
    json!({
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": report.subject.root}},
            {"name": "report.json", "digest": {"sha256": HEXLOWER.encode(&Sha256::digest(report_json))}},
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "result": result,
            "configuration": report.inputs.iter().map(|input| {
                json!({"name": input.name, "digest": {"sha256": input.sha256}})
            }).collect::<Vec<_>>(),
            "passedTests": names(&[Outcome::Pass]),
            "warnedTests": names(&[Outcome::Inconclusive]),
            "failedTests": names(&[Outcome::Fail]),
        },
    })
}

/// What is signed: `DSSEv1`, type and payload, each behind its length in bytes.
fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// The envelope, with one Ed25519 signature. The key's id is the SHA-256 of its public half, hex.
pub fn envelope(report: &Report, report_json: &[u8], key: &SigningKey) -> String {
    let payload = serde_json::to_vec(&statement(report, report_json)).expect("a statement is always JSON");
    let signature = key.sign(&signed_bytes(&payload));
    let keyid = HEXLOWER.encode(&Sha256::digest(key.verifying_key().as_bytes()));
    let envelope = json!({
        "payloadType": PAYLOAD_TYPE,
        "payload": BASE64.encode(&payload),
        "signatures": [{"keyid": keyid, "sig": BASE64.encode(&signature.to_bytes())}],
    });
    let mut text = serde_json::to_string_pretty(&envelope).expect("an envelope is always JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_the_specifications() {
        // The example of the DSSE protocol text, with our payload type.
        let bytes = signed_bytes(b"hello world");
        assert_eq!(bytes, b"DSSEv1 28 application/vnd.in-toto+json 11 hello world");
    }
}
