//! Contents of jobs: body and output, sealed twice: to the account's content key and to the audit key. An account's
//! content key lies in a file of its own; deleting it shreds the account's copies.

use super::{AccessError, Store, Table, put, random_32};
use crate::seal;
use protocol::id::{AccountId, JobId, SealingKey};
use protocol::job_message::JobBody;
use protocol::receipt::Finish;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

/// Job -> contents sealed to the account's key.
const FOR_ACCOUNT: Table = TableDefinition::new("contents_account");
/// Job -> contents sealed to the audit key.
const FOR_AUDIT: Table = TableDefinition::new("contents_audit");
/// Account -> secret content key; in `content-keys.redb`.
const CONTENT_KEYS: Table = TableDefinition::new("content_keys");

/// What was asked and answered. Sealed before it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contents {
    /// Layout, 1.
    pub version: u32,
    /// The body, with its salt and sampling key.
    pub body: JobBody,
    /// The attempt that answered.
    pub attempt: u32,
    /// Output token ids as relayed; `None` while the job runs, and when the coordinator died before it knew them.
    pub output_ids: Option<Vec<u32>>,
    /// How it ended, once it ended.
    pub finish: Option<Finish>,
}

/// Contents, sealed for both readers.
#[derive(Clone, Debug)]
pub struct SealedContents {
    for_account: Vec<u8>,
    for_audit: Vec<u8>,
}

impl SealedContents {
    pub(crate) fn put(&self, transaction: &WriteTransaction, job: &JobId) -> Result<(), AccessError> {
        put(transaction, FOR_ACCOUNT, &job.0, &self.for_account)?;
        put(transaction, FOR_AUDIT, &job.0, &self.for_audit)
    }
}

impl Store {
    /// Seals contents to the account and to `audit`.
    pub fn seal_contents(
        &self,
        account: AccountId,
        audit: &SealingKey,
        contents: &Contents,
    ) -> Result<SealedContents, AccessError> {
        let plain = serde_json::to_vec(contents).map_err(AccessError::store)?;
        let account_key = seal::public_key(&self.content_key(account)?);
        Ok(SealedContents {
            for_account: seal::seal(&account_key, &plain).map_err(AccessError::store)?,
            for_audit: seal::seal(audit, &plain).map_err(AccessError::store)?,
        })
    }

    /// Stores sealed contents, over what was there.
    pub async fn put_contents(&self, job: JobId, sealed: SealedContents) -> Result<(), AccessError> {
        self.write(move |transaction| sealed.put(transaction, &job)).await
    }

    /// The owner's copy, opened; `None` when there is none or its key was shredded.
    pub fn contents_of(&self, account: AccountId, job: &JobId) -> Result<Option<Contents>, AccessError> {
        let Some(sealed) = self.bytes(FOR_ACCOUNT, &job.0)? else { return Ok(None) };
        let Some(key) = self.existing_content_key(account)? else { return Ok(None) };
        let Ok(plain) = seal::open(&key, &sealed) else { return Ok(None) };
        super::parse(&plain).map(Some)
    }

    /// The audit's copy, still sealed.
    pub fn contents_for_audit(&self, job: &JobId) -> Result<Option<Vec<u8>>, AccessError> {
        self.bytes(FOR_AUDIT, &job.0)
    }

    /// Deletes the account's content key: its copies can never be opened again. `false` when it had none.
    pub fn shred_contents(&self, account: AccountId) -> Result<bool, AccessError> {
        let transaction = self.content_keys().begin_write().map_err(AccessError::store)?;
        let existed = super::take(&transaction, CONTENT_KEYS, &account.0)?.is_some();
        transaction.commit().map_err(AccessError::store)?;
        Ok(existed)
    }

    fn content_key(&self, account: AccountId) -> Result<[u8; 32], AccessError> {
        if let Some(key) = self.existing_content_key(account)? {
            return Ok(key);
        }
        let fresh = random_32()?;
        let transaction = self.content_keys().begin_write().map_err(AccessError::store)?;
        let key = {
            let mut table = transaction.open_table(CONTENT_KEYS).map_err(AccessError::store)?;
            let found = table.get(&account.0[..]).map_err(AccessError::store)?.map(|v| v.value().to_vec());
            match found {
                // Somebody else was faster: write transactions come one after the other.
                Some(bytes) => thirty_two(&bytes)?,
                None => {
                    table.insert(&account.0[..], &fresh[..]).map_err(AccessError::store)?;
                    fresh
                }
            }
        };
        transaction.commit().map_err(AccessError::store)?;
        Ok(key)
    }

    fn existing_content_key(&self, account: AccountId) -> Result<Option<[u8; 32]>, AccessError> {
        let transaction = self.content_keys().begin_read().map_err(AccessError::store)?;
        let table = match transaction.open_table(CONTENT_KEYS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(AccessError::store(error)),
        };
        let found = table.get(&account.0[..]).map_err(AccessError::store)?;
        found.map(|v| thirty_two(v.value())).transpose()
    }
}

fn thirty_two(bytes: &[u8]) -> Result<[u8; 32], AccessError> {
    bytes.try_into().map_err(|_| AccessError::store("a content key is not 32 bytes long"))
}
