//! The store on a real file: keys, nonces, claims, settlements, shredding.

use super::contents::Contents;
use super::idempotency::{Claim, Claimed};
use super::keys::{ALL_SCOPES, KeyTerms, Scope};
use super::settling::{Charge, Progress, Settlement, SettlementRecord};
use super::*;
use protocol::id::{AccountId, EvmAddress, Hash32, JobId};
use protocol::job_message::JobBody;

const ACCOUNT: AccountId = AccountId([3; 16]);
const JOB: JobId = JobId([9; 16]);

fn terms(name: &str, scopes: &[Scope]) -> KeyTerms {
    let (name, scopes) = (name.to_owned(), scopes.to_vec());
    KeyTerms { name, scopes, models: vec![], expires_us: None, spender: None }
}

fn body() -> JobBody {
    JobBody {
        job: JOB,
        prompt_ids: vec![1, 2],
        messages: serde_json::json!([{ "role": "user", "content": "canary-prompt" }]),
        max_tokens: 4,
        temperature_millionths: 0,
        top_p_millionths: 1_000_000,
        top_k: 0,
        seed: None,
        sampling_key: Hash32([0; 32]),
        stop: vec![],
        controls: Default::default(),
        salt: Hash32([5; 32]),
    }
}

#[tokio::test]
async fn keys_are_found_by_their_hash_listed_and_revoked_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let new = store.create_key(ACCOUNT, terms("first", &ALL_SCOPES), 1).await.unwrap().unwrap();
    assert!(new.secret.starts_with("cf_") && new.secret.len() == 3 + 43);
    assert_eq!(store.key(&new.secret).unwrap().unwrap(), new.record);
    assert!(store.key("cf_wrong").unwrap().is_none());
    let second = store.create_key(ACCOUNT, terms("", &[Scope::Read]), 2).await.unwrap().unwrap();
    assert_eq!(store.keys_of(ACCOUNT).unwrap().len(), 2);
    assert!(store.keys_of(AccountId([4; 16])).unwrap().is_empty());
    assert!(!store.revoke_key(AccountId([4; 16]), &new.record.id).await.unwrap(), "another's key");
    assert!(store.revoke_key(ACCOUNT, &new.record.id).await.unwrap());
    assert!(store.key(&new.secret).unwrap().is_none());
    assert_eq!(store.keys_of(ACCOUNT).unwrap(), vec![second.record]);
    drop(store);
    let all = std::fs::read(folder.path().join("access.redb")).unwrap();
    let secret = new.secret.as_bytes();
    assert!(!all.windows(secret.len()).any(|w| w == secret), "the key's text is nowhere on disk");
}

#[tokio::test]
async fn a_nonce_is_used_once_and_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let nonce = store.create_nonce(Some(ACCOUNT), 0).await.unwrap();
    assert_eq!(store.use_nonce(&nonce, 1).await.unwrap().unwrap().account, Some(ACCOUNT));
    assert!(store.use_nonce(&nonce, 2).await.unwrap().is_none());
    let late = store.create_nonce(None, 0).await.unwrap();
    assert!(store.use_nonce(&late, sessions::NONCE_LIFE_US).await.unwrap().is_none());
    let session = store.create_session(ACCOUNT, Some(EvmAddress([1; 20])), 0).await.unwrap();
    assert_eq!(store.session(&session, 1).unwrap().unwrap().account, ACCOUNT);
    assert!(store.session(&session, sessions::SESSION_LIFE_US).unwrap().is_none());
}

#[tokio::test]
async fn a_clients_key_stands_for_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let claim = |n: u8| Claim { job: JobId([n; 16]), more: vec![], request: Hash32([n; 32]), created_us: 1 };
    assert_eq!(store.claim(ACCOUNT, "order", claim(1), None).await.unwrap(), Claimed::Fresh);
    assert_eq!(store.claim(ACCOUNT, "order", claim(2), None).await.unwrap(), Claimed::Taken(claim(1)));
    assert_eq!(store.claim(AccountId([8; 16]), "order", claim(3), None).await.unwrap(), Claimed::Fresh);
    let replaces = Some(JobId([1; 16]));
    assert_eq!(store.claim(ACCOUNT, "order", claim(2), replaces).await.unwrap(), Claimed::Fresh);
    assert_eq!(store.claim(ACCOUNT, "order", claim(4), replaces).await.unwrap(), Claimed::Taken(claim(2)));
}

#[tokio::test]
async fn contents_open_for_their_owner_and_the_audit_until_shredded() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let audit_secret = [6; 32];
    let audit = crate::seal::public_key(&audit_secret);
    let contents =
        Contents { version: 1, body: body(), attempt: 0, output_ids: Some(vec![7, 8]), finish: None };
    let sealed = store.seal_contents(ACCOUNT, &audit, &contents).unwrap();
    store.put_contents(JOB, sealed).await.unwrap();
    assert_eq!(store.contents_of(ACCOUNT, &JOB).unwrap().as_ref(), Some(&contents));
    assert!(store.contents_of(AccountId([4; 16]), &JOB).unwrap().is_none());
    let for_audit = store.contents_for_audit(&JOB).unwrap().unwrap();
    let opened = crate::seal::open(&audit_secret, &for_audit).unwrap();
    assert_eq!(serde_json::from_slice::<Contents>(&opened).unwrap(), contents);
    assert!(store.shred_contents(ACCOUNT).unwrap());
    assert!(store.contents_of(ACCOUNT, &JOB).unwrap().is_none());
    drop(store);
    let all = std::fs::read(folder.path().join("access.redb")).unwrap();
    assert!(!all.windows(13).any(|w| w == b"canary-prompt"), "no prompt in the clear");
}

#[tokio::test]
async fn a_settlement_survives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let settlement = Settlement {
        job: JOB,
        attempt: 0,
        charge: Charge::Completed,
        input_units: 3,
        worker_units: 2,
        gateway_units: 2,
        receipt: Hash32([1; 32]),
        chain_head: Hash32([2; 32]),
    };
    {
        let store = Store::open(folder.path()).unwrap();
        let note = Progress { attempt: 0, delivered: 2, chain: Hash32([2; 32]) };
        store.put_progress(vec![(JOB, note)]).await.unwrap();
        let record = SettlementRecord {
            settlement: settlement.clone(),
            signed_receipt: vec![1, 2, 3],
            contents: None,
        };
        store.begin_settlement(record).await.unwrap();
    }
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.settlements().unwrap(), vec![settlement]);
    assert_eq!(store.progress(&JOB).unwrap().unwrap().delivered, 2);
    store.end_settlement(JOB).await.unwrap();
    assert!(store.settlements().unwrap().is_empty());
    assert!(store.progress(&JOB).unwrap().is_none());
    assert_eq!(store.receipt(&JOB).unwrap().unwrap(), vec![1, 2, 3], "the receipt stays");
}
