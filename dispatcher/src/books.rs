//! What the log's archive beside this gateway says about one account: statement lines, where its money came from and went,
//! what its jobs used. A fold of events, brought up to the last commit when somebody asks. Must not: answer from what is not
//! committed; keep what cannot be made anew (the index's folder may be deleted).

use journal::reader::ArchiveReader;
use projector::index::{IndexError, LogCommit, Range};
use projector::{At, Index};
use protocol::EventBody;
use protocol::amount::Amount;
use protocol::asset::{Asset, AssetId, VaultRef};
use protocol::event::Event;
use protocol::event::account::AccountKind;
use protocol::event::job::UsageCaptured;
use protocol::id::{AccountId, EvmAddress, HoldId, JobId, Word32};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Folder of the statement index under the data directory.
const INDEX_FOLDER: &str = "books-gateway";
/// Folder of the archive under the data directory.
const ARCHIVE_FOLDER: &str = "archive";
/// A day, microseconds.
pub const DAY_US: u64 = 86_400_000_000;

/// Why the books cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The archive is another process's.
    #[error("this gateway has no archive of the log beside it; ask the one that runs with the sequencer")]
    NotHere,
    /// The archive does not read.
    #[error("archive: {0}; run `counterfoil audit replay` on its folder")]
    Archive(String),
    /// The index does not answer.
    #[error("books: {0}; delete the folder books-gateway, it is made anew")]
    Index(#[from] IndexError),
}

/// One movement on one of an account's ledger accounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatementLine {
    /// The event.
    pub leaf: u64,
    /// Log time, microseconds UTC.
    pub time_us: u64,
    /// Kind of event.
    pub kind: &'static str,
    /// For people.
    pub text: &'static str,
    /// Which of the account's ledger accounts.
    pub ledger: &'static str,
    /// In which asset.
    pub asset: AssetId,
    /// Plus is more for the account.
    pub amount: Amount,
    /// Of that ledger account, after it.
    pub balance: Amount,
}

/// What jobs of one day and model used.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Used {
    /// Charged jobs; one that was charged in parts counts once.
    pub jobs: u64,
    /// Prompt tokens billed.
    pub input_tokens: u64,
    /// Output tokens billed.
    pub output_tokens: u64,
    /// Base units.
    pub cost: Amount,
}

/// One day's row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageRow {
    /// Days since 1970, UTC.
    pub day: u64,
    /// The model's name.
    pub model: String,
    /// In which asset it was paid.
    pub asset: AssetId,
    /// The figures.
    pub used: Used,
}

/// One deposit that reached the books.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DepositRow {
    /// The event.
    pub leaf: u64,
    /// Log time, microseconds UTC.
    pub time_us: u64,
    /// Where.
    pub vault: VaultRef,
    /// Whose wallet.
    pub wallet: EvmAddress,
    /// The chain's transaction.
    pub tx: Word32,
    /// Vault units.
    pub units: u64,
    /// Whether a reorganisation took it away again.
    pub reversed: bool,
}

/// What came and went on an account, by asset and kind of event; plus is more for the account.
pub type Flows = BTreeMap<(AssetId, &'static str), Amount>;

/// The books of a data directory.
pub(crate) struct Books {
    data_dir: PathBuf,
    /// Held while one question is answered, on a thread that may block.
    open: Mutex<Option<Open>>,
}

struct Open {
    index: Index,
    fold: Fold,
}

impl Books {
    pub fn of(data_dir: PathBuf) -> Books {
        Books { data_dir, open: Mutex::new(None) }
    }

    /// The newest lines before a leaf, oldest first; a leaf's lines are never torn apart.
    pub fn statement(
        &self,
        last_commit: u64,
        account: AccountId,
        page: Page,
    ) -> Result<Vec<StatementLine>, BooksError> {
        self.with(last_commit, |open| {
            let until = page.before_leaf.map_or(At::Newest, |leaf| At::Size(leaf.min(open.fold.size)));
            let range = Range { from_leaf: 0, until, lines_max: page.lines_max + 1 };
            let mut parts = open.index.owner_statement(account, &range)?;
            if parts.len() > page.lines_max {
                let torn = parts[0].leaf;
                parts.retain(|part| part.leaf != torn);
            }
            let line = |part: &projector::statements::LinePart| {
                let (_, asset, kind) = *open.fold.accounts.get(part.account.0 as usize)?;
                Some(StatementLine {
                    leaf: part.leaf,
                    time_us: part.time_us,
                    kind: part.kind,
                    text: projector::statements::phrase(part.kind),
                    ledger: kind.name(),
                    asset,
                    amount: projector::statements::theirs(kind, part.amount),
                    balance: projector::statements::theirs(kind, part.balance),
                })
            };
            Ok(parts.iter().filter_map(line).collect())
        })
    }

    /// What came and went on the account's credit since it was opened.
    pub fn flows(&self, last_commit: u64, account: AccountId) -> Result<Flows, BooksError> {
        self.with(last_commit, |open| Ok(open.fold.flows.get(&account).cloned().unwrap_or_default()))
    }

    /// Usage by day and model, oldest first, from a day on.
    pub fn usage(
        &self,
        last_commit: u64,
        account: AccountId,
        from_day: u64,
    ) -> Result<Vec<UsageRow>, BooksError> {
        self.with(last_commit, |open| {
            let rows = open.fold.usage.get(&account).into_iter().flatten();
            let rows = rows.filter(|((day, ..), _)| *day >= from_day);
            let row = |((day, model, asset), used): (&UsageKey, &Used)| UsageRow {
                day: *day,
                model: open.fold.models[*model as usize].clone(),
                asset: *asset,
                used: used.clone(),
            };
            Ok(rows.map(row).collect())
        })
    }

    /// Deposits of the account, newest first.
    pub fn deposits(&self, last_commit: u64, account: AccountId) -> Result<Vec<DepositRow>, BooksError> {
        self.with(last_commit, |open| {
            let rows = open.fold.deposits.get(&account).into_iter().flatten();
            Ok(rows.rev().cloned().collect())
        })
    }

    fn with<T>(
        &self,
        last_commit: u64,
        answer: impl FnOnce(&Open) -> Result<T, BooksError>,
    ) -> Result<T, BooksError> {
        if !self.data_dir.join(ARCHIVE_FOLDER).is_dir() {
            return Err(BooksError::NotHere);
        }
        let mut kept = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: books that could not follow are opened anew by the next question.
        let mut open = match kept.take() {
            Some(open) => open,
            None => Open { index: self.index(last_commit)?, fold: Fold::default() },
        };
        open.index.follow(self.commits(open.index.next_commit(), last_commit)?)?;
        for commit in self.commits(open.fold.next_commit(), last_commit)? {
            open.fold.take(&commit.map_err(BooksError::Archive)?);
        }
        answer(kept.insert(open))
    }

    fn index(&self, last_commit: u64) -> Result<Index, BooksError> {
        let folder = self.data_dir.join(INDEX_FOLDER);
        std::fs::create_dir_all(&folder).map_err(|e| BooksError::Archive(e.to_string()))?;
        let commits = |first: u64| {
            let opened = self.commits(first, last_commit).map_err(|e| e.to_string());
            let (commits, error) = match opened {
                Ok(commits) => (Some(commits), None),
                Err(error) => (None, Some(Err(error))),
            };
            error.into_iter().chain(commits.into_iter().flatten())
        };
        Ok(Index::catch_up(&folder, commits)?.0)
    }

    /// Commits from a number on, none beyond the last that was acknowledged.
    fn commits(
        &self,
        first: u64,
        last: u64,
    ) -> Result<impl Iterator<Item = Result<LogCommit, String>> + use<>, BooksError> {
        let archive = ArchiveReader::open(&self.data_dir).map_err(|e| BooksError::Archive(e.to_string()))?;
        let wanted = last.saturating_add(1).saturating_sub(first.max(1));
        Ok(archive.commits(first).take(usize::try_from(wanted).unwrap_or(usize::MAX)).map(|commit| {
            let commit = commit.map_err(|e| e.to_string())?;
            let previous = commit.commit.previous;
            Ok(LogCommit { number: commit.number, hash: commit.hash, previous, events: commit.events })
        }))
    }
}

/// Which part of a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    /// Only lines of earlier leaves.
    pub before_leaf: Option<u64>,
    /// At most so many.
    pub lines_max: usize,
}

/// Day, model's number, asset.
type UsageKey = (u64, u32, AssetId);

/// Sums over the whole log.
#[derive(Default)]
struct Fold {
    last_commit: u64,
    size: u64,
    assets: Vec<Asset>,
    /// Owner, asset and kind of every ledger account, by its number.
    accounts: Vec<(AccountId, AssetId, AccountKind)>,
    models: Vec<String>,
    /// Jobs whose hold is open: who pays, which model, in which asset, whether a part was charged.
    jobs: HashMap<JobId, (AccountId, u32, AssetId, bool)>,
    holds: HashMap<HoldId, JobId>,
    usage: HashMap<AccountId, BTreeMap<UsageKey, Used>>,
    flows: HashMap<AccountId, Flows>,
    deposits: HashMap<AccountId, Vec<DepositRow>>,
}

impl Fold {
    fn next_commit(&self) -> u64 {
        self.last_commit + 1
    }

    fn take(&mut self, commit: &LogCommit) {
        for event in &commit.events {
            self.take_event(event);
            self.size = event.header.leaf + 1;
        }
        self.last_commit = commit.number;
    }

    fn take_event(&mut self, event: &Event) {
        use EventBody::*;
        match &event.body {
            NetworkOpened(network) => self.assets.clone_from(&network.assets),
            LedgerAccountsOpened(opened) => {
                let rows = opened.opened.iter().map(|row| (row.owner, row.asset, row.kind));
                self.accounts.extend(rows);
            }
            HoldPlaced(placed) => {
                let model = self.model(&placed.model);
                self.holds.insert(placed.hold, placed.job);
                self.jobs.insert(placed.job, (placed.account, model, placed.asset, false));
            }
            HoldVoided(voided) => self.end(&voided.hold),
            HoldExpired(expired) => self.end(&expired.hold),
            UsageCaptured(captured) => self.take_usage(event, captured),
            DepositConfirmed(deposit) => {
                if let Some(account) = deposit.account {
                    self.deposits.entry(account).or_default().push(DepositRow {
                        leaf: event.header.leaf,
                        time_us: event.header.time_us,
                        vault: deposit.key.vault,
                        wallet: deposit.wallet,
                        tx: deposit.key.tx,
                        units: deposit.units,
                        reversed: false,
                    });
                }
            }
            DepositReversed(reversed) => {
                let rows = self.deposits.values_mut().flatten();
                rows.filter(|row| (row.vault, row.tx) == (reversed.key.vault, reversed.key.tx))
                    .for_each(|row| row.reversed = true);
            }
            _ => {}
        }
        for leg in event.postings.iter() {
            let Some((owner, asset, kind)) = self.accounts.get(leg.account.0 as usize).copied() else {
                continue;
            };
            if owner != AccountId::SYSTEM && projector::fold::is_customer(kind) {
                let sum = self.flows.entry(owner).or_default().entry((asset, event.body.kind())).or_default();
                sum.0 += projector::statements::theirs(kind, leg.amount).0;
            }
        }
    }

    fn take_usage(&mut self, event: &Event, captured: &UsageCaptured) {
        let Some((account, model, asset, charged)) = self.jobs.get_mut(&captured.job) else { return };
        let day = event.header.time_us / DAY_US;
        let used = self.usage.entry(*account).or_default().entry((day, *model, *asset)).or_default();
        used.jobs += u64::from(!std::mem::replace(charged, true));
        used.input_tokens += captured.input_units;
        used.output_tokens += captured.output_units;
        used.cost.0 += captured.cost.0;
        if captured.part.as_ref().is_none_or(|part| !part.open) {
            self.end(&captured.hold);
        }
    }

    fn end(&mut self, hold: &HoldId) {
        if let Some(job) = self.holds.remove(hold) {
            self.jobs.remove(&job);
        }
    }

    fn model(&mut self, name: &str) -> u32 {
        let at = self.models.iter().position(|known| known == name).unwrap_or_else(|| {
            self.models.push(name.to_owned());
            self.models.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }
}
