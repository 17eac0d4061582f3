//! API keys: 256 random bits shown once, kept as a keyed hash, revoked at once.

use super::{AccessError, Store, Table, parse, peek, put, put_record, random_16, random_32, take};
use protocol::id::{AccountId, SpenderId};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

/// Hash of the key -> [`KeyRecord`].
const KEYS: Table = TableDefinition::new("keys");
/// Account and key id -> hash of the key.
const KEY_IDS: Table = TableDefinition::new("key_ids");
/// Most keys an account may have.
pub const KEYS_PER_ACCOUNT_MAX: usize = 100;
/// Characters of the key that are kept for people to tell keys apart.
const PREFIX_CHARS: usize = 10;

/// What a key may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Send prompts, see models, quotes and its own jobs. Also called `chat`.
    #[serde(alias = "chat")]
    Inference,
    /// See balances, usage, jobs and receipts.
    Read,
    /// Keys, wallets, withdrawals, operators and nodes.
    Manage,
    /// See money only: balances, statements, deposits, and where every unit is. Neither prompts nor jobs' contents.
    Finance,
    /// See what proves it: receipts, jobs, statements. Can spend and change nothing.
    Auditor,
}

/// Every scope: what the first key of an account gets.
pub const ALL_SCOPES: [Scope; 5] =
    [Scope::Inference, Scope::Read, Scope::Manage, Scope::Finance, Scope::Auditor];
/// Any of these may see money.
pub const MONEY_SCOPES: [Scope; 3] = [Scope::Read, Scope::Finance, Scope::Auditor];
/// Any of these may see jobs.
pub const JOB_SCOPES: [Scope; 3] = [Scope::Inference, Scope::Read, Scope::Auditor];

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyRecord {
    /// `ak_` and letters: names the key without being it.
    pub id: String,
    /// Whose.
    pub account: AccountId,
    /// The key's first characters.
    pub prefix: String,
    /// A word of the owner's.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Microseconds UTC.
    pub created_us: u64,
    /// The key as the log knows it, from its first spending cap on.
    #[serde(default)]
    pub spender: Option<SpenderId>,
    /// Models it may ask; empty = every one.
    #[serde(default)]
    pub models: Vec<String>,
    /// When it stops working, microseconds UTC.
    #[serde(default)]
    pub expires_us: Option<u64>,
}

/// What a key is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyTerms {
    /// A word of the owner's.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Models it may ask; empty = every one.
    pub models: Vec<String>,
    /// When it stops working, microseconds UTC.
    pub expires_us: Option<u64>,
    /// The key as the log knows it.
    pub spender: Option<SpenderId>,
}

/// A key just made: the only time its text is seen.
pub struct NewKey {
    /// The text to hand out. Never logged.
    pub secret: String,
    /// Its record.
    pub record: KeyRecord,
}

impl Store {
    /// Makes a key; `None` when the account has [`KEYS_PER_ACCOUNT_MAX`].
    pub async fn create_key(
        &self,
        account: AccountId,
        terms: KeyTerms,
        now_us: u64,
    ) -> Result<Option<NewKey>, AccessError> {
        if self.keys_of(account)?.len() >= KEYS_PER_ACCOUNT_MAX {
            return Ok(None);
        }
        let secret = format!("cf_{}", data_encoding::BASE64URL_NOPAD.encode(&random_32()?));
        let hash = self.hash_secret(&secret);
        let id = format!("ak_{}", data_encoding::HEXLOWER.encode(&random_16()?[..8]));
        let prefix = secret.chars().take(PREFIX_CHARS).collect();
        let KeyTerms { name, scopes, models, expires_us, spender } = terms;
        let created_us = now_us;
        let record = KeyRecord { id, account, prefix, name, scopes, created_us, spender, models, expires_us };
        let stored = record.clone();
        self.write(move |transaction| {
            put_record(transaction, KEYS, &hash, &stored)?;
            put(transaction, KEY_IDS, &key_id(account, &stored.id), &hash)
        })
        .await?;
        Ok(Some(NewKey { secret, record }))
    }

    /// The record of a key's text, if it is one. Found by its keyed hash, so that timing says nothing about it.
    pub fn key(&self, secret: &str) -> Result<Option<KeyRecord>, AccessError> {
        self.record(KEYS, &self.hash_secret(secret))
    }

    /// The account's keys.
    pub fn keys_of(&self, account: AccountId) -> Result<Vec<KeyRecord>, AccessError> {
        let transaction_keys = self.key_hashes(account)?;
        let records = transaction_keys.into_iter().filter_map(|hash| self.record(KEYS, &hash).transpose());
        records.collect()
    }

    /// Names the key for the log, once; the name it has from then on, or `None` when the account has no such key.
    pub async fn name_spender(
        &self,
        account: AccountId,
        id: &str,
        fresh: SpenderId,
    ) -> Result<Option<SpenderId>, AccessError> {
        let key = key_id(account, id);
        self.write(move |transaction| {
            let Some(hash) = peek(transaction, KEY_IDS, &key)? else { return Ok(None) };
            let Some(record) = peek(transaction, KEYS, &hash)? else { return Ok(None) };
            let mut record: KeyRecord = parse(&record)?;
            let spender = *record.spender.get_or_insert(fresh);
            put_record(transaction, KEYS, &hash, &record)?;
            Ok(Some(spender))
        })
        .await
    }

    /// Revokes at once; `false` when the account has no such key.
    pub async fn revoke_key(&self, account: AccountId, id: &str) -> Result<bool, AccessError> {
        let key = key_id(account, id);
        self.write(move |transaction| {
            let Some(hash) = take(transaction, KEY_IDS, &key)? else { return Ok(false) };
            take(transaction, KEYS, &hash)?;
            Ok(true)
        })
        .await
    }

    fn key_hashes(&self, account: AccountId) -> Result<Vec<Vec<u8>>, AccessError> {
        self.values(KEY_IDS, &account.0, KEYS_PER_ACCOUNT_MAX)
    }
}

fn key_id(account: AccountId, id: &str) -> Vec<u8> {
    [&account.0[..], id.as_bytes()].concat()
}
