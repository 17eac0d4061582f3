//! What must survive a killed coordinator between the last token and the capture: how far each answer was relayed, and
//! what is about to be charged. Counts and hashes only, no text.

use super::contents::SealedContents;
use super::{AccessError, Store, Table, put, put_record, take};
use protocol::id::{Hash32, JobId};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

/// Job -> [`Progress`].
const PROGRESS: Table = TableDefinition::new("progress");
/// Job -> [`Settlement`].
const SETTLING: Table = TableDefinition::new("settling");
/// Job -> signed receipt, as it came.
const RECEIPTS: Table = TableDefinition::new("receipts");
/// Captures that one start takes up.
const SETTLING_MAX: usize = 100_000;

/// How far an answer was relayed, as is durably known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// The attempt.
    pub attempt: u32,
    /// Output tokens handed to the client's connection.
    pub delivered: u64,
    /// Digest chain after them.
    pub chain: Hash32,
}

/// How a settlement charges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charge {
    /// The answer ended.
    Completed,
    /// The client left; its prefix is charged.
    ClientGone,
}

/// A verified receipt on its way to its capture. Written before the capture is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settlement {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// Which charging rule.
    pub charge: Charge,
    /// Prompt tokens.
    pub input_units: u64,
    /// Output tokens of the receipt.
    pub worker_units: u64,
    /// Output tokens the gateway delivered.
    pub gateway_units: u64,
    /// BLAKE3 of the signed receipt.
    pub receipt: Hash32,
    /// Digest chain at the smaller count.
    pub chain_head: Hash32,
}

/// A settlement with everything that is stored together with it.
#[derive(Clone, Debug)]
pub struct SettlementRecord {
    /// What will be charged.
    pub settlement: Settlement,
    /// The signed receipt.
    pub signed_receipt: Vec<u8>,
    /// Contents with the output, when they are known.
    pub contents: Option<SealedContents>,
}

impl Store {
    /// Notes how far answers were relayed, all in one transaction.
    pub async fn put_progress(&self, notes: Vec<(JobId, Progress)>) -> Result<(), AccessError> {
        self.write(move |transaction| {
            notes.iter().try_for_each(|(job, note)| put_record(transaction, PROGRESS, &job.0, note))
        })
        .await
    }

    /// How far a job was relayed.
    pub fn progress(&self, job: &JobId) -> Result<Option<Progress>, AccessError> {
        self.record(PROGRESS, &job.0)
    }

    /// Stores a verified receipt before its capture.
    pub async fn begin_settlement(&self, record: SettlementRecord) -> Result<(), AccessError> {
        self.write(move |transaction| {
            let job = record.settlement.job;
            put(transaction, RECEIPTS, &job.0, &record.signed_receipt)?;
            put_record(transaction, SETTLING, &job.0, &record.settlement)?;
            record.contents.as_ref().map_or(Ok(()), |contents| contents.put(transaction, &job))
        })
        .await
    }

    /// The capture is committed, or can never be: nothing is left to do for the job.
    pub async fn end_settlement(&self, job: JobId) -> Result<(), AccessError> {
        self.write(move |transaction| {
            take(transaction, SETTLING, &job.0)?;
            take(transaction, PROGRESS, &job.0).map(drop)
        })
        .await
    }

    /// Settlements whose capture was not seen to be committed.
    pub fn settlements(&self) -> Result<Vec<Settlement>, AccessError> {
        self.records(SETTLING, &[], SETTLING_MAX)
    }

    /// A job's settlement, if its capture was not seen to be committed.
    pub fn settlement(&self, job: &JobId) -> Result<Option<Settlement>, AccessError> {
        self.record(SETTLING, &job.0)
    }

    /// Signed receipts in order of their jobs' ids, from the one after `after` on.
    pub fn receipts_after(
        &self,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<(JobId, Vec<u8>)>, AccessError> {
        let first = after.map_or(Vec::new(), |job| [&job.0[..], &[0]].concat());
        let entries = self.entries_from(RECEIPTS, &first, limit)?;
        let job = |key: &[u8]| <[u8; 16]>::try_from(key).map(JobId).map_err(AccessError::store);
        entries.into_iter().map(|(key, value)| Ok((job(&key)?, value))).collect()
    }

    /// The signed receipt of a job.
    pub fn receipt(&self, job: &JobId) -> Result<Option<Vec<u8>>, AccessError> {
        self.bytes(RECEIPTS, &job.0)
    }
}
