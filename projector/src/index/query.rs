//! Questions to the index: each is a few look-ups, whatever the length of the log. Must not: write.

use super::block::{Layer, Walk};
use super::events::{self, LEAVES_PER_BLOCK, Row};
use super::follow::{CHANGED, PLACED};
use super::tables::{ACCOUNTS, BATCHES, CUTOFFS, EVENTS, GRANTS, HOLD_MARKS, HOLDS, LEGS, OWNERS, SUBJECTS};
use super::varint::Bytes;
use super::{At, Index, IndexError};
use crate::fold::Counters;
use crate::names::Names;
use crate::statements::LinePart;
use crate::subject::{LEAVES_PER_SUBJECT_MAX, Subject};
use crate::trial_balance::{TrialBalance, TrialLine};
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId};
use protocol::codec;
use protocol::event::LedgerAccount;
use protocol::event::account::OpenedLedgerAccount;
use protocol::event::grant::GrantIssued;
use protocol::id::{AccountId, HoldId, JobId};
use redb::{ReadOnlyTable, ReadTransaction};
use std::collections::BTreeMap;

/// Which lines of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Lines of this leaf and later ones.
    pub from_leaf: u64,
    /// Up to this point.
    pub until: At,
    /// At most this many, the newest ones.
    pub lines_max: usize,
}

impl Range {
    /// From the beginning up to a point, all lines.
    pub fn until(until: At) -> Range {
        Range { from_leaf: 0, until, lines_max: usize::MAX }
    }
}

/// A hold that was open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct OpenHold {
    /// The hold.
    pub hold: HoldId,
    /// Its job.
    pub job: JobId,
    /// Who would pay.
    pub account: AccountId,
    /// In which asset.
    pub asset: AssetId,
    /// What was reserved then: with extensions, less what parts charged.
    pub amount: Amount,
    /// The event that placed it.
    pub placed_leaf: u64,
}

/// A grant that was issued.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct GrantLine {
    /// The event that issued it.
    pub leaf: u64,
    /// Its terms.
    pub issued: GrantIssued,
    /// Whether its date had passed at the time of the point asked for.
    pub expired: bool,
}

impl Index {
    /// How many events a point of the log has before it.
    pub fn size_at(&self, at: At) -> Result<u64, IndexError> {
        let size = self.head.size;
        match at {
            At::Newest => Ok(size),
            At::Size(asked) if asked > size => Err(IndexError::Beyond { asked, size }),
            At::Size(asked) => Ok(asked),
            At::Time(us) => self.size_at_time(us),
            At::Batch(batch) => {
                let found = self.read()?.open_table(BATCHES)?.get(&batch.0)?.map(|row| row.value().1);
                found.ok_or(IndexError::UnknownBatch(batch))
            }
        }
    }

    /// Log time of the last event before a size; 0 before the first.
    pub fn time_us_at(&self, size: u64) -> Result<u64, IndexError> {
        if size == 0 {
            return Ok(0);
        }
        let mut rows = Rows::open(&self.read()?)?;
        Ok(rows.row(size - 1)?.time_us)
    }

    /// The commit that holds a leaf; `None` beyond the end.
    pub fn commit_of(&self, leaf: u64) -> Result<Option<u64>, IndexError> {
        if leaf >= self.head.size {
            return Ok(None);
        }
        let mut rows = Rows::open(&self.read()?)?;
        Ok(Some(rows.row(leaf)?.commit))
    }

    /// Where a ledger account stood.
    pub fn balance(&self, account: LedgerAccount, at: At) -> Result<Counters, IndexError> {
        let size = self.size_at(at)?;
        counters_at(&self.read()?.open_table(LEGS)?, account.0, size)
    }

    /// The ledger accounts that an owner had, by number.
    pub fn of_owner(&self, owner: AccountId, at: At) -> Result<Vec<OpenedLedgerAccount>, IndexError> {
        let size = self.size_at(at)?;
        let read = self.read()?;
        let (owners, accounts) = (read.open_table(OWNERS)?, read.open_table(ACCOUNTS)?);
        let mut found = Vec::new();
        for row in owners.range((&owner.0, 0)..=(&owner.0, u32::MAX))? {
            let number = row?.0.value().1;
            if let Some((leaf, opened)) = account_row(&accounts, number)?
                && leaf < size
            {
                found.push(opened);
            }
        }
        Ok(found)
    }

    /// The booked legs of one ledger account, oldest first.
    pub fn statement(&self, account: LedgerAccount, range: &Range) -> Result<Vec<LinePart>, IndexError> {
        let size = self.size_at(range.until)?;
        let read = self.read()?;
        let legs = read.open_table(LEGS)?;
        let mut rows = Rows::open(&read)?;
        // The block that holds the first leaf may begin before it.
        let before = legs.range((account.0, 0)..=(account.0, range.from_leaf))?.next_back();
        let first = before.transpose()?.map_or(0, |(key, _)| key.value().1).min(size);
        // Blocks from the newest to the oldest, until there are enough lines.
        let mut blocks: Vec<Vec<LinePart>> = Vec::new();
        let mut count = 0;
        for block in legs.range((account.0, first)..(account.0, size))?.rev() {
            let (key, bytes) = block?;
            let mut walk = Walk::new(key.value().1, bytes.value());
            let mut lines = Vec::new();
            while let Some(entry) = walk.next() {
                if entry.leaf >= size {
                    break;
                }
                if entry.layer == Layer::Reserved || entry.leaf < range.from_leaf {
                    continue;
                }
                let row = rows.row(entry.leaf)?;
                lines.push(LinePart {
                    leaf: entry.leaf,
                    time_us: row.time_us,
                    kind: row.kind_name(),
                    account,
                    amount: Amount(entry.amount),
                    balance: walk.counters.balance(),
                    counter: entry.counter,
                });
            }
            count += lines.len();
            blocks.push(lines);
            if count >= range.lines_max {
                break;
            }
        }
        let lines: Vec<LinePart> = blocks.into_iter().rev().flatten().collect();
        let skip = lines.len().saturating_sub(range.lines_max);
        Ok(lines.into_iter().skip(skip).collect())
    }

    /// The booked legs of all accounts of an owner, by leaf, then by account.
    pub fn owner_statement(&self, owner: AccountId, range: &Range) -> Result<Vec<LinePart>, IndexError> {
        let mut lines = Vec::new();
        for account in self.of_owner(owner, range.until)? {
            lines.extend(self.statement(account.number, range)?);
        }
        lines.sort_by_key(|line| (line.leaf, line.account));
        let skip = lines.len().saturating_sub(range.lines_max);
        Ok(lines.split_off(skip))
    }

    /// Every ledger account that was open, and the sums, which are zero.
    pub fn trial_balance(&self, at: At) -> Result<TrialBalance, IndexError> {
        let size = self.size_at(at)?;
        let read = self.read()?;
        let (accounts, legs) = (read.open_table(ACCOUNTS)?, read.open_table(LEGS)?);
        let mut sums: BTreeMap<String, Amount> = BTreeMap::new();
        let mut lines = Vec::new();
        for number in 0..self.head.accounts {
            let Some((leaf, opened)) = account_row(&accounts, number)? else { break };
            if leaf >= size {
                break;
            }
            let counters = counters_at(&legs, number, size)?;
            let known = Known { assets: &self.assets, opened: &opened };
            let line = TrialLine::of(&known, &opened, &counters);
            sums.entry(line.asset.clone()).or_default().0 += line.balance.0;
            lines.push(line);
        }
        Ok(TrialBalance { size, lines, sums })
    }

    /// Holds that were open, by the leaf that placed them.
    pub fn holds(&self, at: At) -> Result<Vec<OpenHold>, IndexError> {
        let size = self.size_at(at)?;
        let read = self.read()?;
        let (holds, marks) = (read.open_table(HOLDS)?, read.open_table(HOLD_MARKS)?);
        let mut open: BTreeMap<u64, i128> = BTreeMap::new();
        let mut from = 0;
        if let Some(mark) = marks.range(..=size)?.next_back() {
            let (key, bytes) = mark?;
            from = key.value();
            let mut bytes = Bytes(bytes.value());
            while !bytes.is_empty() {
                open.insert(bytes.take_u64(), bytes.take() as i128);
            }
        }
        for row in holds.range(from..size)? {
            let (leaf, row) = row?;
            let mut bytes = Bytes(row.value());
            match bytes.byte() {
                CHANGED => {
                    let placed = bytes.take_u64();
                    *open.entry(placed).or_default() += bytes.take_signed();
                }
                _ => {
                    if let Some((hold, _)) = parse_hold(leaf.value(), row.value()) {
                        open.insert(leaf.value(), hold.amount.0);
                    }
                }
            }
        }
        let mut found = Vec::new();
        for (placed, amount) in open {
            let row = holds.get(placed)?;
            let parsed = row.as_ref().and_then(|row| parse_hold(placed, row.value()));
            if let Some((hold, closed)) = parsed
                && (closed == 0 || closed >= size)
            {
                found.push(OpenHold { amount: Amount(amount), ..hold });
            }
        }
        Ok(found)
    }

    /// Grants that an account had been given, by number.
    pub fn grants(&self, owner: AccountId, at: At) -> Result<Vec<GrantLine>, IndexError> {
        let size = self.size_at(at)?;
        let now_us = match at {
            At::Time(us) => us,
            At::Size(_) | At::Batch(_) | At::Newest => self.time_us_at(size)?,
        };
        let table = self.read()?.open_table(GRANTS)?;
        let mut found = Vec::new();
        for row in table.range((&owner.0, 0)..=(&owner.0, u32::MAX))? {
            let row = row?.1;
            let (leaf, bytes) = row.value();
            let issued: GrantIssued =
                codec::decode("grant", bytes).map_err(|e| IndexError::Store(e.to_string()))?;
            if leaf < size {
                let expired = issued.expires_us.is_some_and(|end| end <= now_us);
                found.push(GrantLine { leaf, issued, expired });
            }
        }
        Ok(found)
    }

    /// The first [`LEAVES_PER_SUBJECT_MAX`] events about a subject.
    pub fn leaves(&self, subject: &Subject) -> Result<Vec<u64>, IndexError> {
        let table = self.read()?.open_table(SUBJECTS)?;
        let key = subject.key();
        let (low, high) = ([&key[..], &[0; 8]].concat(), [&key[..], &[0xff; 8]].concat());
        let mut leaves = Vec::new();
        for chunk in table.range(low.as_slice()..=high.as_slice())? {
            let (key, bytes) = chunk?;
            leaves.extend(chunk_leaves(key.value(), bytes.value()));
            if leaves.len() >= LEAVES_PER_SUBJECT_MAX {
                break;
            }
        }
        leaves.truncate(LEAVES_PER_SUBJECT_MAX);
        Ok(leaves)
    }

    /// Leaf of the first `BatchClosed` whose cut-off lies behind this leaf.
    pub fn batch_after(&self, leaf: u64) -> Result<Option<u64>, IndexError> {
        let table = self.read()?.open_table(CUTOFFS)?;
        let first = table.range((leaf + 1, 0)..)?.next().transpose()?;
        Ok(first.map(|(key, _)| key.value().1))
    }

    fn size_at_time(&self, us: u64) -> Result<u64, IndexError> {
        let read = self.read()?;
        let table = read.open_table(EVENTS)?;
        // The first block that begins later than the time.
        let (mut low, mut high) = (0, self.head.size.div_ceil(LEAVES_PER_BLOCK));
        while low < high {
            let middle = low + (high - low) / 2;
            let first = table.get(middle)?.map_or(u64::MAX, |block| events::first_time_us(block.value()));
            if first <= us {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(block) = low.checked_sub(1) else { return Ok(0) };
        let bytes = table.get(block)?;
        let rows = bytes.map(|bytes| events::rows(bytes.value())).unwrap_or_default();
        let within = rows.partition_point(|row| row.time_us <= us);
        Ok(block * LEAVES_PER_BLOCK + within as u64)
    }
}

/// The names of one account that was read already.
struct Known<'a> {
    assets: &'a [Asset],
    opened: &'a OpenedLedgerAccount,
}

impl Names for Known<'_> {
    fn asset(&self, id: AssetId) -> Option<Asset> {
        self.assets.get(id.0 as usize).cloned()
    }

    fn ledger_account(&self, number: LedgerAccount) -> Option<OpenedLedgerAccount> {
        (number == self.opened.number).then(|| self.opened.clone())
    }
}

impl Names for Index {
    fn asset(&self, id: AssetId) -> Option<Asset> {
        self.assets.get(id.0 as usize).cloned()
    }

    /// What cannot be read has no name.
    fn ledger_account(&self, number: LedgerAccount) -> Option<OpenedLedgerAccount> {
        let accounts = self.read().ok()?.open_table(ACCOUNTS).ok()?;
        account_row(&accounts, number.0).ok()?.map(|(_, opened)| opened)
    }
}

fn account_row(
    table: &ReadOnlyTable<u32, (u64, &'static [u8])>,
    number: u32,
) -> Result<Option<(u64, OpenedLedgerAccount)>, IndexError> {
    let Some(row) = table.get(number)? else { return Ok(None) };
    let (leaf, bytes) = row.value();
    let opened = codec::decode("ledger account", bytes).map_err(|e| IndexError::Store(e.to_string()))?;
    Ok(Some((leaf, opened)))
}

fn counters_at(
    table: &ReadOnlyTable<(u32, u64), &'static [u8]>,
    account: u32,
    size: u64,
) -> Result<Counters, IndexError> {
    let last = table.range((account, 0)..(account, size))?.next_back().transpose()?;
    Ok(last.map_or_else(Counters::default, |(key, bytes)| {
        Walk::new(key.value().1, bytes.value()).counters_at(size)
    }))
}

fn parse_hold(leaf: u64, row: &[u8]) -> Option<(OpenHold, u64)> {
    if row.first() != Some(&PLACED) {
        return None;
    }
    let id = |at: usize| row.get(at..at + 16)?.try_into().ok();
    let closed = u64::from_be_bytes(row.get(1..9)?.try_into().ok()?);
    let mut rest = Bytes(row.get(57..)?);
    let hold = OpenHold {
        hold: HoldId(id(9)?),
        job: JobId(id(25)?),
        account: AccountId(id(41)?),
        asset: AssetId(rest.take() as u32),
        amount: Amount(rest.take() as i128),
        placed_leaf: leaf,
    };
    Some((hold, closed))
}

/// The leaves of one row of the subjects' table.
pub(super) fn chunk_leaves(key: &[u8], bytes: &[u8]) -> Vec<u64> {
    let Some(first) = key.last_chunk::<8>() else { return Vec::new() };
    let mut leaf = u64::from_be_bytes(*first);
    let mut leaves = vec![leaf];
    let mut bytes = Bytes(bytes);
    while !bytes.is_empty() {
        leaf += bytes.take_u64();
        leaves.push(leaf);
    }
    leaves
}

/// Rows of events by leaf; the block read last is kept, because lines come in order.
struct Rows {
    table: ReadOnlyTable<u64, &'static [u8]>,
    block: Option<(u64, Vec<Row>)>,
}

impl Rows {
    fn open(read: &ReadTransaction) -> Result<Rows, IndexError> {
        Ok(Rows { table: read.open_table(EVENTS)?, block: None })
    }

    fn row(&mut self, leaf: u64) -> Result<Row, IndexError> {
        let number = leaf / LEAVES_PER_BLOCK;
        if self.block.as_ref().is_none_or(|(kept, _)| *kept != number) {
            let bytes = self.table.get(number)?;
            self.block = Some((number, bytes.map(|b| events::rows(b.value())).unwrap_or_default()));
        }
        let rows = self.block.as_ref().map_or(&[][..], |(_, rows)| rows.as_slice());
        let row = rows.get((leaf % LEAVES_PER_BLOCK) as usize).copied();
        row.ok_or_else(|| IndexError::Store(format!("leaf {leaf} has no row")))
    }
}
