//! Sign-in nonces (single use) and the sessions that a wallet's one signature opens.

use super::{AccessError, Store, Table, parse, put_record, random_32, take};
use protocol::id::{AccountId, EvmAddress, Hash32};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

/// Hash of the nonce -> [`NonceRecord`].
const NONCES: Table = TableDefinition::new("nonces");
/// Hash of the session's text -> [`SessionRecord`].
const SESSIONS: Table = TableDefinition::new("sessions");
/// How long a nonce may be answered.
pub const NONCE_LIFE_US: u64 = 10 * 60 * 1_000_000;
/// How long a session lives.
pub const SESSION_LIFE_US: u64 = 90 * 86_400 * 1_000_000;

/// What a nonce was handed out for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NonceRecord {
    /// The account that asked, when it had one.
    pub account: Option<AccountId>,
    /// Microseconds UTC.
    pub expires_us: u64,
}

/// A session as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Whose.
    pub account: AccountId,
    /// The wallet that signed; `None` for one opened by a recovery code.
    pub wallet: Option<EvmAddress>,
    /// Microseconds UTC.
    pub expires_us: u64,
}

/// What the wallet signs in place of the nonce: its hash.
pub fn session_hash(nonce: &str) -> Hash32 {
    Hash32(blake3::derive_key("counterfoil session 1", nonce.as_bytes()))
}

impl Store {
    /// Hands out a nonce.
    pub async fn create_nonce(&self, account: Option<AccountId>, now_us: u64) -> Result<String, AccessError> {
        let nonce = data_encoding::HEXLOWER.encode(&random_32()?);
        let key = self.hash_secret(&nonce);
        let record = NonceRecord { account, expires_us: now_us.saturating_add(NONCE_LIFE_US) };
        self.write(move |transaction| put_record(transaction, NONCES, &key, &record)).await?;
        Ok(nonce)
    }

    /// Uses a nonce up; `None` when there is none, it was used, or it is too old.
    pub async fn use_nonce(&self, nonce: &str, now_us: u64) -> Result<Option<NonceRecord>, AccessError> {
        let key = self.hash_secret(nonce);
        let taken = self.write(move |transaction| take(transaction, NONCES, &key)).await?;
        let record: Option<NonceRecord> = taken.map(|bytes| parse(&bytes)).transpose()?;
        Ok(record.filter(|r| now_us < r.expires_us))
    }

    /// Opens a session and returns its text, the only time it is seen.
    pub async fn create_session(
        &self,
        account: AccountId,
        wallet: Option<EvmAddress>,
        now_us: u64,
    ) -> Result<String, AccessError> {
        let secret = format!("cfs_{}", data_encoding::BASE64URL_NOPAD.encode(&random_32()?));
        let key = self.hash_secret(&secret);
        let record = SessionRecord { account, wallet, expires_us: now_us.saturating_add(SESSION_LIFE_US) };
        self.write(move |transaction| put_record(transaction, SESSIONS, &key, &record)).await?;
        Ok(secret)
    }

    /// Ends a session; `false` when there was none.
    pub async fn end_session(&self, secret: &str) -> Result<bool, AccessError> {
        let key = self.hash_secret(secret);
        self.write(move |transaction| Ok(take(transaction, SESSIONS, &key)?.is_some())).await
    }

    /// The session of a text, if it lives.
    pub fn session(&self, secret: &str, now_us: u64) -> Result<Option<SessionRecord>, AccessError> {
        let record: Option<SessionRecord> = self.record(SESSIONS, &self.hash_secret(secret))?;
        Ok(record.filter(|r| now_us < r.expires_us))
    }
}
