//! `Idempotency-Key`: which job a client's key stands for, so that a retried request is charged once.

use super::{AccessError, Store, Table, parse, peek, put_record};
use protocol::id::{AccountId, Hash32, IdempotencyKey, JobId};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

/// Key -> [`Claim`].
const CLAIMS: Table = TableDefinition::new("idempotency");

/// A client's key in use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The job it stands for.
    pub job: JobId,
    /// The jobs of its other choices.
    #[serde(default)]
    pub more: Vec<JobId>,
    /// BLAKE3 of the request's body: another body under the same key is a conflict.
    pub request: Hash32,
    /// Microseconds UTC.
    pub created_us: u64,
}

/// What came of claiming a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// It is ours.
    Fresh,
    /// It stands for this already.
    Taken(Claim),
}

impl Store {
    /// What a client's key stands for.
    pub fn claimed(&self, account: AccountId, text: &str) -> Result<Option<Claim>, AccessError> {
        self.record(CLAIMS, &IdempotencyKey::from_client(account, text).0)
    }

    /// Claims a client's key for a job. `replaces` names a job that ended without a charge and whose claim may be taken.
    pub async fn claim(
        &self,
        account: AccountId,
        text: &str,
        claim: Claim,
        replaces: Option<JobId>,
    ) -> Result<Claimed, AccessError> {
        let key = IdempotencyKey::from_client(account, text);
        self.write(move |transaction| {
            if let Some(bytes) = peek(transaction, CLAIMS, &key.0)? {
                let standing: Claim = parse(&bytes)?;
                if Some(standing.job) != replaces {
                    return Ok(Claimed::Taken(standing));
                }
            }
            put_record(transaction, CLAIMS, &key.0, &claim)?;
            Ok(Claimed::Fresh)
        })
        .await
    }
}
