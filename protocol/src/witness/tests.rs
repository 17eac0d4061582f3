//! Cosignatures and quorums: what counts, what does not, and policies that are refused.

use super::*;
use crate::checkpoint::{Checkpoint, Policy, VerifierKey};
use crate::id::Hash32;
use ed25519_dalek::{Signer as _, SigningKey};

const ORIGIN: &str = "ledger.example/log1";

fn witness(seed: u8) -> (SigningKey, WitnessKey) {
    let secret = SigningKey::from_bytes(&[seed; 32]);
    let name = format!("witness{seed}.example/w");
    let key = WitnessKey::new(&name, secret.verifying_key().as_bytes()).unwrap();
    (secret, key)
}

fn log_key() -> (SigningKey, VerifierKey) {
    let secret = SigningKey::from_bytes(&[99; 32]);
    let key = VerifierKey::new(ORIGIN, secret.verifying_key().as_bytes()).unwrap();
    (secret, key)
}

fn text() -> String {
    Checkpoint { origin: ORIGIN.to_owned(), size: 42, root: Hash32([7; 32]) }.text()
}

/// The checkpoint, signed by the log and cosigned by these.
fn note(witnesses: &[u8]) -> String {
    let (secret, key) = log_key();
    let signature = secret.sign(text().as_bytes()).to_bytes();
    let blob = [&key.id().to_be_bytes()[..], &signature].concat();
    let mut note = format!("{}\n\u{2014} {ORIGIN} {}\n", text(), BASE64.encode(&blob));
    for seed in witnesses {
        let (secret, key) = witness(*seed);
        let signature = secret.sign(&cosigned_bytes(1_790_000_000, &text())).to_bytes();
        note.push_str(&cosignature_line(&key, 1_790_000_000, &signature));
    }
    note
}

fn policy(rest: &str) -> Policy {
    let mut lines = format!("log {}\n", log_key().1);
    for seed in 1..=3 {
        lines.push_str(&format!("witness w{seed} {} https://witness{seed}.example\n", witness(seed).1));
    }
    Policy::parse(&format!("{lines}{rest}")).unwrap()
}

#[test]
fn a_quorum_is_k_of_n_and_of_groups() {
    for (rest, enough, short) in [
        ("quorum w2\n", &[2][..], &[1, 3][..]),
        ("group g 2 w1 w2 w3\nquorum g\n", &[1, 3], &[3]),
        ("group g any w1 w2\nquorum g\n", &[2], &[3]),
        ("group g all w1 w2 w3\nquorum g\n", &[1, 2, 3], &[1, 2]),
        ("group a any w1 w2\ngroup b all a w3\nquorum b\n", &[2, 3], &[1, 2]),
    ] {
        let policy = policy(rest);
        assert_eq!(Policy::parse(&policy.text()), Ok(policy.clone()), "{rest}");
        assert!(policy.open(&note(enough)).is_ok(), "{rest}");
        let error = policy.open(&note(short)).unwrap_err();
        assert!(matches!(error, CheckpointError::Quorum { of: 3, .. }), "{rest}: {error}");
        assert!(policy.open_log(&note(short)).is_ok(), "the log's own signature stands all the same");
    }
    assert!(policy("quorum none\n").open(&note(&[])).is_ok());
    assert_eq!(policy("quorum w1\n").quorum.check(&note(&[1, 3])).unwrap().len(), 2);
}

#[test]
fn every_flipped_byte_of_a_cosignature_is_noticed() {
    let good = note(&[1]);
    let policy = policy("quorum w1\n");
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        assert!(policy.open(&text).is_err(), "byte {at}");
    }
    assert_eq!(witness(1).1.cosigned(&good), Ok(Some(1_790_000_000)));
    // Another head under the same cosignature.
    assert!(policy.open(&good.replace("\n42\n", "\n43\n")).is_err());
}

#[test]
fn keys_and_policies_are_strict() {
    let (_, key) = witness(1);
    assert_eq!(key.to_string().parse(), Ok(key.clone()));
    assert!(key.to_string().parse::<VerifierKey>().is_err(), "a witness is no log");
    assert!(log_key().1.to_string().parse::<WitnessKey>().is_err(), "a log is no witness");
    let log = log_key().1;
    for wrong in [
        format!("log {log}\nwitness a {key}\nwitness b {key}\nquorum a\n"),
        format!("log {log}\nwitness a {key}\nwitness a {}\nquorum a\n", witness(2).1),
        format!("log {log}\nwitness none {key}\nquorum none\n"),
        format!("log {log}\nwitness a {key}\ngroup g 2 a\nquorum g\n"),
        format!("log {log}\nwitness a {key}\ngroup g 0 a\nquorum g\n"),
        format!("log {log}\nwitness a {key}\ngroup g 2 a a\nquorum g\n"),
        format!("log {log}\ngroup g any a\nwitness a {key}\nquorum g\n"),
        format!("log {log}\nwitness a {key}\nquorum b\n"),
        format!("log {log}\nwitness a {key}\nquorum a\nquorum none\n"),
        format!("log {log}\nwitness a {log}\nquorum a\n"),
    ] {
        assert!(Policy::parse(&wrong).is_err(), "{wrong}");
    }
}
