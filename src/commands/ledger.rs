//! `counterfoil ledger`: read the books, and rebuild them.

use super::books::OpenBooks;
use super::log_source::LogSource;
use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::Result;
use journal::snapshotter::FoldError;
use projector::describe::{Description, explain};
use projector::fold::is_customer;
use projector::index::{At, Range};
use projector::statements::theirs;
use projector::subject::{Finder, Subject};
use projector::{Names, time};
use protocol::event::{Event, EventBody};
use protocol::id::AccountId;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Verbs of `counterfoil ledger`.
#[derive(clap::Subcommand)]
pub enum Ledger {
    /// Every account that was opened.
    Accounts(Source),
    /// What an account has. Example: counterfoil ledger balance acct_... --data data
    Balance(OfAccount),
    /// What happened to an account, line by line.
    Statement(Statement),
    /// Every ledger account; the sums must be zero.
    TrialBalance(Source),
    /// Holds that are open.
    Holds(Source),
    /// Grants an account was given, with their terms.
    Grants(OfAccount),
    /// Explain an event, or all events of a job, hold or batch: what happened, how its figures follow, who got what.
    Describe(Describe),
    /// Replay from the first commit and compare with the newest snapshot, byte for byte. Example: counterfoil ledger
    /// rebuild --data data
    Rebuild(Rebuild),
}

/// Only a data directory: a snapshot is not served.
#[derive(clap::Args)]
pub struct Rebuild {
    /// Data directory; works with everything stopped.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// Only where to read.
#[derive(clap::Args)]
pub struct Source {
    #[command(flatten)]
    source: LogSource,
}

/// One account.
#[derive(clap::Args)]
pub struct OfAccount {
    /// `acct_...`
    account: AccountId,
    #[command(flatten)]
    source: LogSource,
}

/// One account's statement.
#[derive(clap::Args)]
pub struct Statement {
    #[command(flatten)]
    of: OfAccount,
    /// Only the newest lines.
    #[arg(long, value_name = "LINES")]
    newest: Option<usize>,
}

/// What to explain. Example: counterfoil ledger describe job_... --data data
#[derive(clap::Args)]
pub struct Describe {
    /// Leaf index, `job_...`, `hold_...`, `batch_...`, `vouch_...`, `acct_...` or `node_...`
    event: String,
    #[command(flatten)]
    source: LogSource,
}

impl Ledger {
    /// Runs the verb.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        match self {
            Ledger::Accounts(of) => accounts(&of.source, output),
            Ledger::Balance(of) => balance(&of, output),
            Ledger::Statement(of) => statement(&of, output),
            Ledger::TrialBalance(of) => trial(&of.source, output),
            Ledger::Holds(of) => holds(&of.source, output),
            Ledger::Grants(of) => grants(&of, output),
            Ledger::Describe(of) => of.run(output),
            Ledger::Rebuild(of) => of.run(output),
        }
    }
}

fn accounts(source: &LogSource, output: Output) -> Result<ExitCode> {
    for event in source.events()? {
        if let EventBody::AccountOpened(opened) = &event.body {
            let when = time::rfc3339(event.header.time_us);
            let text = format!("{}  {when}  event {}", opened.account, event.header.leaf);
            output.result(
                &text,
                &json!({"account": opened.account, "opened": when, "leaf": event.header.leaf}),
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn balance(of: &OfAccount, output: Output) -> Result<ExitCode> {
    let books = OpenBooks::open(&of.source)?;
    let size = books.size()?;
    let mut text = format!("{} as of size {size}", of.account);
    let mut lines = Vec::new();
    for opened in books.index.of_owner(of.account, At::Size(size))? {
        let Some(asset) = books.index.asset(opened.asset) else { continue };
        let counters = books.index.balance(opened.number, At::Size(size))?;
        let (scale, kind) = (asset.ledger_scale, opened.kind.name());
        let (balance, held) = (theirs(opened.kind, counters.balance()), counters.pending());
        let shown = format!("{} {}", balance.to_decimal_string(scale), asset.symbol);
        write!(text, "\n{kind:20} {shown:>28}")?;
        if is_customer(opened.kind) && !held.is_zero() {
            write!(text, "   held {}", held.to_decimal_string(scale))?;
        }
        lines.push(json!({"kind": kind, "asset": asset.symbol, "balance": balance.to_decimal_string(scale),
            "balance_base_units": balance, "held": held.to_decimal_string(scale)}));
    }
    output.result(&text, &json!({"account": of.account, "size": size, "balances": lines}));
    Ok(ExitCode::SUCCESS)
}

fn statement(arguments: &Statement, output: Output) -> Result<ExitCode> {
    let of = &arguments.of;
    let books = OpenBooks::open(&of.source)?;
    let size = books.size()?;
    let lines_max = arguments.newest.unwrap_or(usize::MAX);
    let range = Range { lines_max, ..Range::until(At::Size(size)) };
    let parts = books.index.owner_statement(of.account, &range)?;
    let lines: Vec<_> = parts.iter().map(|part| part.line(&books.index)).collect();
    let mut text = format!("{} as of size {size}", of.account);
    for line in &lines {
        write!(
            text,
            "\n{} {:6} {:24} {:>18} {:>18} {}",
            line.time, line.leaf, line.text, line.amount, line.balance, line.asset
        )?;
    }
    output.result(&text, &serde_json::to_value(&lines)?);
    Ok(ExitCode::SUCCESS)
}

fn trial(source: &LogSource, output: Output) -> Result<ExitCode> {
    let books = OpenBooks::open(source)?;
    let trial = books.index.trial_balance(At::Size(books.size()?))?;
    let mut text = format!("Trial balance as of size {} (+ debit, - credit)", trial.size);
    for line in &trial.lines {
        write!(text, "\n{:>4} {:>26} {:6} {}", line.number, line.balance_decimal, line.asset, line.account)?;
    }
    for (asset, sum) in &trial.sums {
        write!(text, "\nsum {asset}: {}", sum.0)?;
    }
    let balanced = trial.sums.values().all(|sum| sum.is_zero());
    output.result(&text, &serde_json::to_value(&trial)?);
    Ok(if balanced { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn holds(source: &LogSource, output: Output) -> Result<ExitCode> {
    let books = OpenBooks::open(source)?;
    for hold in books.index.holds(At::Size(books.size()?))? {
        let amount = books.index.money(hold.asset, hold.amount);
        let text = format!(
            "{}  {amount} of {} for {}, placed by event {}",
            hold.hold, hold.account, hold.job, hold.placed_leaf
        );
        let asset = books.index.asset(hold.asset);
        let (symbol, decimal) = asset.map_or(("?".to_owned(), hold.amount.0.to_string()), |asset| {
            (asset.symbol, hold.amount.to_decimal_string(asset.ledger_scale))
        });
        output.result(
            &text,
            &json!({"hold": hold.hold, "job": hold.job, "account": hold.account, "asset": symbol,
                "amount": decimal, "amount_base_units": hold.amount, "placed_leaf": hold.placed_leaf}),
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn grants(of: &OfAccount, output: Output) -> Result<ExitCode> {
    let books = OpenBooks::open(&of.source)?;
    for grant in books.index.grants(of.account, At::Size(books.size()?))? {
        let issued = &grant.issued;
        let amount = books.index.money(issued.asset, issued.amount);
        let end = issued.expires_us.map_or_else(|| "no end".to_owned(), time::rfc3339);
        let state = if grant.expired { "expired" } else { "open" };
        let text = format!(
            "grant {:>4}  {state:7} {:?} {amount}, priority {}, {end}, event {}",
            issued.grant.0, issued.source, issued.priority, grant.leaf
        );
        output.result(&text, &json!({"leaf": grant.leaf, "expired": grant.expired, "grant": issued}));
    }
    Ok(ExitCode::SUCCESS)
}

/// The rebuilt state is not the snapshot's.
const EXIT_DIFFERS: u8 = 4;

impl Rebuild {
    fn run(self, output: Output) -> Result<ExitCode> {
        if !self.data.join(journal::tail::ARCHIVE_FOLDER).is_dir() {
            let missing =
                anyhow::anyhow!("{} has no archive; give the directory of `up --data`", self.data.display());
            return Err(missing.context(Failure::Inconclusive));
        }
        let begin = std::time::Instant::now();
        let rebuilt = match journal::snapshotter::rebuild(&self.data, |_| {}) {
            Err(error @ FoldError::NotThisLog { .. }) => {
                output.result(&error.to_string(), &json!({"same": false, "reason": error.to_string()}));
                return Ok(ExitCode::from(EXIT_DIFFERS));
            }
            other => other?,
        };
        let seconds = begin.elapsed().as_secs_f64();
        let end = rebuilt.end;
        let mut text = format!("Rebuilt {} events in {} commits, {seconds:.1} s", end.leaf, end.commit);
        let (mut snapshot, mut code) = (json!(null), ExitCode::SUCCESS);
        match &rebuilt.compared {
            None => text += "; there is no snapshot to compare with",
            Some(compared) => {
                let commit = compared.file.commit;
                snapshot = json!({"commit": commit, "content": compared.file.content.to_string(),
                    "difference": compared.difference});
                match &compared.difference {
                    None => write!(text, "; the snapshot at commit {commit} is the same, byte for byte")?,
                    Some(difference) => {
                        write!(text, "; the snapshot at commit {commit} differs {difference}")?;
                        code = ExitCode::from(EXIT_DIFFERS);
                    }
                }
            }
        }
        let state = rebuilt.content.to_string();
        output.result(
            &text,
            &json!({"commits": end.commit, "events": end.leaf, "seconds": seconds, "state": state,
                "snapshot": snapshot, "same": code == ExitCode::SUCCESS}),
        );
        Ok(code)
    }
}

impl Describe {
    fn run(self, output: Output) -> Result<ExitCode> {
        let books = OpenBooks::open(&self.source)?;
        let size = books.size()?;
        let leaves = self.leaves(&books)?;
        let mut shown = 0;
        for leaf in leaves.into_iter().filter(|leaf| *leaf < size) {
            let Some(event) = books.event(leaf)? else { continue };
            let described = explain(&books.index, &books, &event)?;
            output.result(&text(&event, &described), &json!({"event": event, "description": described}));
            shown += 1;
        }
        if shown == 0 {
            let missing = anyhow::anyhow!("{}: the log has {size} events and none is this", self.event);
            return Err(missing.context(Failure::Finding));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The events that are meant, in the log's order. A hold's are those of its job too.
    fn leaves(&self, books: &OpenBooks) -> Result<BTreeSet<u64>> {
        if let Ok(leaf) = self.event.parse() {
            return Ok([leaf].into());
        }
        let expected = "expected a leaf index, job_..., hold_..., batch_..., vouch_..., acct_... or node_...";
        let subject = Subject::parse(&self.event).ok_or_else(|| {
            anyhow::anyhow!("{:?} names no event: {expected}", self.event).context(Failure::Usage)
        })?;
        let mut leaves: BTreeSet<u64> = books.leaves(&subject)?.into_iter().collect();
        for leaf in leaves.clone() {
            if let Some(EventBody::HoldPlaced(placed)) = books.event(leaf)?.map(|event| event.body) {
                leaves.extend(books.leaves(&Subject::Job(placed.job))?);
                leaves.extend(books.leaves(&Subject::Hold(placed.hold))?);
            }
        }
        Ok(leaves)
    }
}

/// For a person: the sentence, how its figures follow, who got what, where it belongs.
fn text(event: &Event, described: &Description) -> String {
    let when = time::rfc3339(event.header.time_us);
    let mut text = format!("{}  {when}  {}\n{}", event.header.leaf, event.body.kind(), described.sentence);
    let lists = [("  = ", &described.arithmetic), ("  - ", &described.words), ("    ", &described.legs)];
    for (before, lines) in lists {
        for line in lines {
            text.push_str(&format!("\n{before}{line}"));
        }
    }
    let links: Vec<String> =
        described.links.iter().map(|link| format!("{} {}", link.leaf, link.kind.replace('_', " "))).collect();
    if !links.is_empty() {
        text.push_str(&format!("\n  see {}", links.join(", ")));
    }
    text
}
