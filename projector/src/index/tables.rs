//! What the index keeps, table by table, and the stamp that says how far it is.

use super::IndexError;
use super::activity::{DAYS, JOBS, WORD_NUMBERS, WORDS};
use protocol::asset::Asset;
use protocol::codec;
use protocol::event::EventBody;
use protocol::id::Hash32;
use redb::{Database, ReadableDatabase, TableDefinition};

type OwnerAndNumber = (&'static [u8; 16], u32);
type LeafAndBytes = (u64, &'static [u8]);
/// Origin and assets of the log.
pub(super) type Network = (String, Vec<Asset>);

/// `schema`, `head`, `network`.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Ledger account: the leaf that opened it, and how it was opened (CBOR).
pub(super) const ACCOUNTS: TableDefinition<u32, (u64, &[u8])> = TableDefinition::new("accounts");
/// Owner and ledger account.
pub(super) const OWNERS: TableDefinition<(&[u8; 16], u32), ()> = TableDefinition::new("owners");
/// Ledger account and first leaf: a block of legs (`block.rs`).
pub(super) const LEGS: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("legs");
/// Block number: rows of events (`events.rs`).
pub(super) const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// Subject and first leaf: leaves about it, as differences.
pub(super) const SUBJECTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("subjects");
/// Cut-off and leaf of each batch.
pub(super) const CUTOFFS: TableDefinition<(u64, u64), ()> = TableDefinition::new("cutoffs");
/// Batch: its leaf and cut-off.
pub(super) const BATCHES: TableDefinition<&[u8; 16], (u64, u64)> = TableDefinition::new("batches");
/// Leaf: a hold that was placed, or a change of one (`follow.rs`).
pub(super) const HOLDS: TableDefinition<u64, &[u8]> = TableDefinition::new("holds");
/// Size: the holds that were open then, with what they had.
pub(super) const HOLD_MARKS: TableDefinition<u64, &[u8]> = TableDefinition::new("hold_marks");
/// Owner and grant: leaf that issued it, and how (CBOR).
pub(super) const GRANTS: TableDefinition<OwnerAndNumber, LeafAndBytes> = TableDefinition::new("grants");

/// How far the index is: the last commit that is in, whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) commit: u64,
    pub(super) size: u64,
    pub(super) time_us: u64,
    pub(super) accounts: u32,
    pub(super) hash: Hash32,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Head> {
        let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let accounts = u32::try_from(word(24)?).ok()?;
        let hash = Hash32(bytes.get(32..64)?.try_into().ok()?);
        Some(Head { commit: word(0)?, size: word(8)?, time_us: word(16)?, accounts, hash })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let words = [self.commit, self.size, self.time_us, u64::from(self.accounts)];
        [&words.map(u64::to_be_bytes).concat()[..], &self.hash.0].concat()
    }
}

/// The form of everything above; another one means another index.
fn schema() -> String {
    format!("counterfoil books 2: {}", EventBody::KINDS.join(" "))
}

/// Makes the tables of a new file, or reads the stamp of one that is there.
pub(super) fn prepare(db: &Database) -> Result<(Head, Option<Network>), IndexError> {
    let empty = Head { commit: 0, size: 0, time_us: 0, accounts: 0, hash: Hash32([0; 32]) };
    let read = db.begin_read()?;
    match read.open_table(META) {
        Ok(meta) => {
            let damaged = |what: &str| IndexError::Store(format!("its {what} is not readable"));
            if meta.get("schema")?.is_none_or(|found| found.value() != schema().as_bytes()) {
                return Err(IndexError::Store("it was written by another version".to_owned()));
            }
            let head = match meta.get("head")? {
                Some(bytes) => Head::parse(bytes.value()).ok_or_else(|| damaged("stamp"))?,
                None => empty,
            };
            let network = match meta.get("network")? {
                Some(bytes) => Some(codec::decode("network", bytes.value()).map_err(|_| damaged("network"))?),
                None => None,
            };
            Ok((head, network))
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {
            drop(read);
            create(db)?;
            Ok((empty, None))
        }
        Err(other) => Err(other.into()),
    }
}

fn create(db: &Database) -> Result<(), IndexError> {
    let write = db.begin_write()?;
    write.open_table(META)?.insert("schema", schema().as_bytes())?;
    write.open_table(ACCOUNTS)?;
    write.open_table(OWNERS)?;
    write.open_table(LEGS)?;
    write.open_table(EVENTS)?;
    write.open_table(SUBJECTS)?;
    write.open_table(CUTOFFS)?;
    write.open_table(BATCHES)?;
    write.open_table(HOLDS)?;
    write.open_table(HOLD_MARKS)?;
    write.open_table(GRANTS)?;
    write.open_table(WORDS)?;
    write.open_table(WORD_NUMBERS)?;
    write.open_table(JOBS)?;
    write.open_table(DAYS)?;
    write.commit()?;
    Ok(())
}
