//! The index follows the log: whole commits are gathered, then written in one transaction with the new stamp. A crash
//! leaves the stamp of the transaction before; following goes on from there.

use super::activity::{self, Turn};
use super::block::{Entry, Layer, Open};
use super::events::{self, LEAVES_PER_BLOCK, Row};
use super::query::OpenHold;
use super::tables::{
    ACCOUNTS, BATCHES, CUTOFFS, EVENTS, GRANTS, HOLD_MARKS, HOLDS, Head, LEGS, META, OWNERS, SUBJECTS,
};
use super::varint::{put, put_signed};
use super::{Index, IndexError, IndexPosition, LogCommit};
use crate::fold::{Counters, FoldError};
use crate::statements::counter_account;
use crate::subject::belongs_to;
use protocol::codec;
use protocol::event::account::{AccountKind, OpenedLedgerAccount};
use protocol::event::{Event, EventBody, Posting};
use protocol::id::{AccountId, BatchId, HoldId};
use redb::{ReadableTable, Table, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};

/// Events gathered before they are written: memory against the size of a transaction.
/// Each transaction rewrites most pages that random ids fall into, so a build wants few of them.
const EVENTS_PER_WRITE_MAX: usize = 128 * 1024;
/// A list of the open holds is kept this often.
const LEAVES_PER_MARK: u64 = 4096;
/// Leaves of one subject in one row.
const LEAVES_PER_CHUNK: usize = 64;

/// First byte of a row of the holds' table.
pub(super) const PLACED: u8 = 0;
pub(super) const CHANGED: u8 = 1;

/// What must be known of the past to take the next event in: the open holds, and which accounts count them.
#[derive(Default)]
pub(super) struct Follower {
    open: BTreeMap<HoldId, (u64, i128)>,
    holds_accounts: Option<BTreeSet<u32>>,
}

impl Follower {
    pub(super) fn resume(open: Vec<OpenHold>) -> Follower {
        let open = open.into_iter().map(|hold| (hold.hold, (hold.placed_leaf, hold.amount.0)));
        Follower { open: open.collect(), holds_accounts: None }
    }
}

/// What is gathered for one transaction.
struct Gathered {
    head: Head,
    network: Option<Vec<u8>>,
    opened: Vec<(u64, OpenedLedgerAccount)>,
    legs: BTreeMap<u32, Vec<Entry>>,
    rows: Vec<Row>,
    subjects: BTreeMap<Vec<u8>, Vec<u64>>,
    batches: Vec<(BatchId, u64, u64)>,
    holds: BTreeMap<u64, Vec<u8>>,
    closed: Vec<(u64, u64)>,
    marks: Vec<(u64, Vec<u8>)>,
    grants: Vec<(AccountId, u32, u64, Vec<u8>)>,
    turns: Vec<Turn>,
}

impl Gathered {
    fn from(head: Head) -> Gathered {
        Gathered {
            head,
            network: None,
            opened: Vec::new(),
            legs: BTreeMap::new(),
            rows: Vec::new(),
            subjects: BTreeMap::new(),
            batches: Vec::new(),
            holds: BTreeMap::new(),
            closed: Vec::new(),
            marks: Vec::new(),
            grants: Vec::new(),
            turns: Vec::new(),
        }
    }
}

impl Index {
    /// Takes commits in, in order, from [`Index::next_commit`] on. The first must be the one the index stands at: its
    /// hash says whether this is the same log. After an error it stands where it was written last.
    pub fn follow<I, E>(&mut self, commits: I) -> Result<IndexPosition, IndexError>
    where
        I: IntoIterator<Item = Result<LogCommit, E>>,
        E: std::fmt::Display,
    {
        let mut commits = commits.into_iter();
        if self.head.commit > 0 {
            let anchor = commits.next().transpose().map_err(|e| IndexError::Log(e.to_string()))?;
            let fits = |c: &LogCommit| c.number == self.head.commit && c.hash == self.head.hash;
            if !anchor.as_ref().is_some_and(fits) {
                let theirs =
                    anchor.map_or("nothing".to_owned(), |c| format!("commit {} {}", c.number, c.hash));
                return Err(self.foreign(theirs));
            }
        }
        self.append(commits)
    }

    /// Takes commits in that follow the one it stands at, in one transaction or a few: for whoever follows the log live
    /// and has caught up by [`Index::follow`] before.
    pub fn append<I, E>(&mut self, commits: I) -> Result<IndexPosition, IndexError>
    where
        I: IntoIterator<Item = Result<LogCommit, E>>,
        E: std::fmt::Display,
    {
        let outcome = self.append_all(commits);
        if outcome.is_err() {
            // The open holds in memory may be ahead of what was written.
            self.follower = Follower::resume(self.holds(super::At::Newest)?);
        }
        outcome.map(|()| self.position())
    }

    fn append_all<I, E>(&mut self, commits: I) -> Result<(), IndexError>
    where
        I: IntoIterator<Item = Result<LogCommit, E>>,
        E: std::fmt::Display,
    {
        self.load_holds_accounts()?;
        let mut gathered = Gathered::from(self.head);
        for commit in commits {
            let commit = commit.map_err(|e| IndexError::Log(e.to_string()))?;
            if (commit.number, commit.previous) != (gathered.head.commit + 1, gathered.head.hash) {
                return Err(self.foreign(format!("commit {} after {}", commit.number, commit.previous)));
            }
            take_commit(&mut self.follower, &mut gathered, &commit)?;
            if gathered.rows.len() >= EVENTS_PER_WRITE_MAX {
                let next = Gathered::from(gathered.head);
                self.write(std::mem::replace(&mut gathered, next))?;
            }
        }
        if gathered.head != self.head {
            self.write(gathered)?;
        }
        Ok(())
    }

    fn foreign(&self, theirs: String) -> IndexError {
        IndexError::Foreign { commit: self.head.commit, ours: self.head.hash, theirs }
    }

    fn load_holds_accounts(&mut self) -> Result<(), IndexError> {
        if self.follower.holds_accounts.is_none() {
            let system = self.of_owner(AccountId::SYSTEM, super::At::Newest)?;
            let holds = system.iter().filter(|account| account.kind == AccountKind::HoldsPending);
            self.follower.holds_accounts = Some(holds.map(|account| account.number.0).collect());
        }
        Ok(())
    }

    fn write(&mut self, gathered: Gathered) -> Result<(), IndexError> {
        let write = self.db.begin_write()?;
        write_accounts(&write, &gathered)?;
        write_legs(&write, &gathered.legs)?;
        write_rows(&write, self.head, &gathered.rows)?;
        write_subjects(&write, &gathered.subjects)?;
        write_holds(&write, &gathered)?;
        activity::write(&write, &gathered.turns)?;
        {
            let mut meta = write.open_table(META)?;
            meta.insert("head", gathered.head.bytes().as_slice())?;
            if let Some(network) = &gathered.network {
                meta.insert("network", network.as_slice())?;
            }
        }
        write.commit()?;
        self.head = gathered.head;
        if let Some(network) = &gathered.network {
            let decoded = codec::decode("network", network);
            (self.origin, self.assets) = decoded.map_err(|e| IndexError::Store(e.to_string()))?;
        }
        Ok(())
    }
}

fn take_commit(
    follower: &mut Follower,
    gathered: &mut Gathered,
    commit: &LogCommit,
) -> Result<(), IndexError> {
    for event in &commit.events {
        take_event(follower, gathered, event)?;
    }
    gathered.head.commit = commit.number;
    gathered.head.hash = commit.hash;
    Ok(())
}

fn take_event(follower: &mut Follower, gathered: &mut Gathered, event: &Event) -> Result<(), IndexError> {
    let header = &event.header;
    let leaf = header.leaf;
    let head = &mut gathered.head;
    if leaf != head.size || header.time_us < head.time_us {
        return Err(FoldError::Gap { expected: head.size, got: leaf }.into());
    }
    match &event.body {
        EventBody::NetworkOpened(network) => {
            gathered.network = Some(codec::encode(&(network.origin.clone(), network.assets.clone())));
        }
        EventBody::LedgerAccountsOpened(opened) => {
            for account in &opened.opened {
                if account.number.0 != head.accounts {
                    let (expected, got) = (head.accounts, account.number.0);
                    return Err(FoldError::NotDense { leaf, expected, got }.into());
                }
                head.accounts += 1;
                if account.kind == AccountKind::HoldsPending {
                    follower.holds_accounts.get_or_insert_default().insert(account.number.0);
                }
                gathered.opened.push((leaf, account.clone()));
            }
        }
        EventBody::GrantIssued(e) => {
            gathered.grants.push((e.account, e.grant.0, leaf, codec::encode(e)));
        }
        EventBody::BatchClosed(e) => gathered.batches.push((e.batch, leaf, e.cutoff_leaf)),
        _ => {}
    }
    if leaf.is_multiple_of(LEAVES_PER_MARK) && leaf > 0 {
        gathered.marks.push((leaf, mark(&follower.open)));
    }
    gathered.turns.extend(Turn::of(event));
    take_hold(follower, gathered, event);
    take_legs(gathered, leaf, Layer::Booked, &event.postings)?;
    take_legs(gathered, leaf, Layer::Reserved, &event.pending)?;
    for subject in belongs_to(&event.body) {
        gathered.subjects.entry(subject.key()).or_default().push(leaf);
    }
    let kind = events::kind_number(event.body.kind());
    gathered.rows.push(Row { time_us: header.time_us, commit: header.commit, kind });
    gathered.head.size = leaf + 1;
    gathered.head.time_us = header.time_us;
    Ok(())
}

fn take_legs(
    gathered: &mut Gathered,
    leaf: u64,
    layer: Layer,
    postings: &[Posting],
) -> Result<(), FoldError> {
    for posting in postings {
        let account = posting.account.0;
        if account >= gathered.head.accounts {
            return Err(FoldError::UnknownAccount { leaf, account });
        }
        let counter = counter_account(postings, posting);
        let entry = Entry { leaf, layer, amount: posting.amount.0, counter };
        gathered.legs.entry(account).or_default().push(entry);
    }
    Ok(())
}

/// Holds open, change and end; a mark is the list of the open ones.
fn take_hold(follower: &mut Follower, gathered: &mut Gathered, event: &Event) {
    let leaf = event.header.leaf;
    match &event.body {
        EventBody::HoldPlaced(e) => {
            follower.open.insert(e.hold, (leaf, e.amount.0));
            let mut row = vec![PLACED];
            row.extend(0u64.to_be_bytes());
            for id in [&e.hold.0, &e.job.0, &e.account.0] {
                row.extend(id);
            }
            put(&mut row, u128::from(e.asset.0));
            put(&mut row, e.amount.0 as u128);
            gathered.holds.insert(leaf, row);
        }
        EventBody::HoldExtended(e) => change(follower, gathered, event, e.hold),
        EventBody::UsageCaptured(e) if e.part.is_some_and(|part| part.open) => {
            change(follower, gathered, event, e.hold);
        }
        EventBody::UsageCaptured(e) => close(follower, gathered, e.hold, leaf),
        EventBody::HoldVoided(e) => close(follower, gathered, e.hold, leaf),
        EventBody::HoldExpired(e) => close(follower, gathered, e.hold, leaf),
        _ => {}
    }
}

fn close(follower: &mut Follower, gathered: &mut Gathered, hold: HoldId, leaf: u64) {
    if let Some((placed, _)) = follower.open.remove(&hold) {
        gathered.closed.push((placed, leaf));
    }
}

/// By how much a hold changed stands in the reserved leg of the account that counts holds.
fn change(follower: &mut Follower, gathered: &mut Gathered, event: &Event, hold: HoldId) {
    let counts = |posting: &&Posting| {
        follower.holds_accounts.as_ref().is_some_and(|accounts| accounts.contains(&posting.account.0))
    };
    let more: i128 = -event.pending.iter().filter(counts).map(|posting| posting.amount.0).sum::<i128>();
    if let Some((placed, amount)) = follower.open.get_mut(&hold) {
        *amount += more;
        let mut row = vec![CHANGED];
        put(&mut row, u128::from(*placed));
        put_signed(&mut row, more);
        gathered.holds.insert(event.header.leaf, row);
    }
}

fn mark(open: &BTreeMap<HoldId, (u64, i128)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (placed, amount) in open.values() {
        put(&mut bytes, u128::from(*placed));
        put(&mut bytes, *amount as u128);
    }
    bytes
}

fn write_accounts(write: &WriteTransaction, gathered: &Gathered) -> Result<(), IndexError> {
    let mut accounts = write.open_table(ACCOUNTS)?;
    let mut owners = write.open_table(OWNERS)?;
    for (leaf, account) in &gathered.opened {
        accounts.insert(account.number.0, (*leaf, codec::encode(account).as_slice()))?;
        owners.insert((&account.owner.0, account.number.0), ())?;
    }
    let mut batches = write.open_table(BATCHES)?;
    let mut cutoffs = write.open_table(CUTOFFS)?;
    for (batch, leaf, cutoff) in &gathered.batches {
        batches.insert(&batch.0, (*leaf, *cutoff))?;
        cutoffs.insert((*cutoff, *leaf), ())?;
    }
    let mut grants = write.open_table(GRANTS)?;
    for (owner, grant, leaf, bytes) in &gathered.grants {
        grants.insert((&owner.0, *grant), (*leaf, bytes.as_slice()))?;
    }
    Ok(())
}

fn write_legs(write: &WriteTransaction, legs: &BTreeMap<u32, Vec<Entry>>) -> Result<(), IndexError> {
    let mut table = write.open_table(LEGS)?;
    for (account, entries) in legs {
        let last = {
            let mut blocks = table.range((*account, 0)..=(*account, u64::MAX))?;
            blocks.next_back().transpose()?.map(|(key, bytes)| Open::resume(key.value().1, bytes.value()))
        };
        let begin = entries.first().map_or(0, |entry| entry.leaf);
        let mut block = last.unwrap_or_else(|| Open::begin(begin, Counters::default()));
        for entry in entries {
            if block.is_full_for(entry.leaf) {
                table.insert((*account, block.first_leaf), block.bytes.as_slice())?;
                block = Open::begin(entry.leaf, block.counters());
            }
            block.push(entry);
        }
        table.insert((*account, block.first_leaf), block.bytes.as_slice())?;
    }
    Ok(())
}

fn write_rows(write: &WriteTransaction, head: Head, rows: &[Row]) -> Result<(), IndexError> {
    let mut table = write.open_table(EVENTS)?;
    let mut leaf = head.size;
    let mut bytes = Vec::new();
    let mut before = Row::default();
    if !leaf.is_multiple_of(LEAVES_PER_BLOCK)
        && let Some(block) = table.get(leaf / LEAVES_PER_BLOCK)?
    {
        bytes = block.value().to_vec();
        before = events::rows(&bytes).last().copied().unwrap_or_default();
    }
    for row in rows {
        events::push(&mut bytes, before, *row);
        before = *row;
        leaf += 1;
        if leaf.is_multiple_of(LEAVES_PER_BLOCK) {
            table.insert(leaf / LEAVES_PER_BLOCK - 1, bytes.as_slice())?;
            bytes.clear();
            before = Row::default();
        }
    }
    if !bytes.is_empty() {
        table.insert(leaf / LEAVES_PER_BLOCK, bytes.as_slice())?;
    }
    Ok(())
}

fn write_subjects(
    write: &WriteTransaction,
    subjects: &BTreeMap<Vec<u8>, Vec<u64>>,
) -> Result<(), IndexError> {
    let mut table = write.open_table(SUBJECTS)?;
    for (subject, leaves) in subjects {
        append_leaves(&mut table, subject, leaves)?;
    }
    Ok(())
}

/// Chunks of leaves: the key has the first one, the value the differences of the others.
fn append_leaves(
    table: &mut Table<'_, &[u8], &[u8]>,
    subject: &[u8],
    leaves: &[u64],
) -> Result<(), IndexError> {
    let key_of = |leaf: u64| [subject, &leaf.to_be_bytes()].concat();
    let (low, high) = (key_of(0), key_of(u64::MAX));
    let last = {
        let mut chunks = table.range(low.as_slice()..=high.as_slice())?;
        chunks.next_back().transpose()?.map(|(key, bytes)| {
            let leaves = super::query::chunk_leaves(key.value(), bytes.value());
            (leaves.first().copied().unwrap_or(0), leaves, bytes.value().to_vec())
        })
    };
    let mut chunk: Option<(u64, u64, usize, Vec<u8>)> = last
        .map(|(first, leaves, bytes)| (first, leaves.last().copied().unwrap_or(first), leaves.len(), bytes));
    for leaf in leaves {
        match &mut chunk {
            Some((_, last, count, bytes)) if *count < LEAVES_PER_CHUNK => {
                put(bytes, u128::from(*leaf - *last));
                *last = *leaf;
                *count += 1;
            }
            _ => {
                if let Some((first, _, _, bytes)) = chunk.take() {
                    table.insert(key_of(first).as_slice(), bytes.as_slice())?;
                }
                chunk = Some((*leaf, *leaf, 1, Vec::new()));
            }
        }
    }
    if let Some((first, _, _, bytes)) = chunk {
        table.insert(key_of(first).as_slice(), bytes.as_slice())?;
    }
    Ok(())
}

fn write_holds(write: &WriteTransaction, gathered: &Gathered) -> Result<(), IndexError> {
    let mut table = write.open_table(HOLDS)?;
    for (leaf, row) in &gathered.holds {
        table.insert(*leaf, row.as_slice())?;
    }
    for (placed, closed) in &gathered.closed {
        let Some(mut row) = table.get(*placed)?.map(|row| row.value().to_vec()) else { continue };
        row[1..9].copy_from_slice(&closed.to_be_bytes());
        table.insert(*placed, row.as_slice())?;
    }
    let mut marks = write.open_table(HOLD_MARKS)?;
    for (size, bytes) in &gathered.marks {
        marks.insert(*size, bytes.as_slice())?;
    }
    Ok(())
}
