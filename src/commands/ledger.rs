//! `counterfoil ledger`: read the books, and rebuild them.

use super::log_source::LogSource;
use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::Result;
use journal::snapshotter::FoldError;
use projector::describe::describe;
use projector::fold::is_customer;
use projector::statements::Statement;
use projector::trial_balance::trial_balance;
use projector::{Books, time};
use protocol::event::EventBody;
use protocol::id::AccountId;
use serde_json::json;
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
    Statement(OfAccount),
    /// Every ledger account; the sums must be zero.
    TrialBalance(Source),
    /// Holds that are open.
    Holds(Source),
    /// Explain one event in a sentence, with its legs.
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

/// One event.
#[derive(clap::Args)]
pub struct Describe {
    /// Leaf index.
    event: u64,
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
    let books = LogSource::books(&of.source.events()?)?;
    let mut text = format!("{} as of size {}", of.account, books.size());
    let mut lines = Vec::new();
    for account in books.of_owner(of.account) {
        let Some(asset) = books.asset(account.opened.asset) else { continue };
        let scale = asset.ledger_scale;
        let name = account.opened.kind.name();
        // The customer's side of our liability.
        let (balance, held) = (-account.counters.balance(), account.counters.pending());
        let shown = format!("{} {}", balance.to_decimal_string(scale), asset.symbol);
        write!(text, "\n{name:20} {shown:>28}")?;
        if is_customer(account.opened.kind) && !held.is_zero() {
            write!(text, "   held {}", held.to_decimal_string(scale))?;
        }
        lines.push(json!({"kind": name, "asset": asset.symbol, "balance": balance.to_decimal_string(scale),
            "balance_base_units": balance, "held": held.to_decimal_string(scale)}));
    }
    output.result(&text, &json!({"account": of.account, "size": books.size(), "balances": lines}));
    Ok(ExitCode::SUCCESS)
}

fn statement(of: &OfAccount, output: Output) -> Result<ExitCode> {
    let mut statement = Statement::of(of.account);
    for event in of.source.events()? {
        statement.apply(&event)?;
    }
    let mut text = format!("{} as of size {}", of.account, statement.books().size());
    for line in statement.lines() {
        let kind = line.kind.replace('_', " ");
        write!(
            text,
            "\n{} {:6} {kind:20} {:>18} {:>18} {}",
            line.time, line.leaf, line.amount, line.balance, line.asset
        )?;
    }
    output.result(&text, &serde_json::to_value(statement.lines())?);
    Ok(ExitCode::SUCCESS)
}

fn trial(source: &LogSource, output: Output) -> Result<ExitCode> {
    let books = LogSource::books(&source.events()?)?;
    let trial = trial_balance(&books);
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
    let events = source.events()?;
    let mut books = Books::new();
    let mut open = std::collections::BTreeMap::new();
    for event in &events {
        books.apply(event)?;
        match &event.body {
            EventBody::HoldPlaced(hold) => {
                open.insert(hold.hold, describe(&books, event).sentence);
            }
            EventBody::HoldVoided(end) => drop(open.remove(&end.hold)),
            EventBody::HoldExpired(end) => drop(open.remove(&end.hold)),
            EventBody::UsageCaptured(end) => drop(open.remove(&end.hold)),
            _ => {}
        }
    }
    for (hold, sentence) in &open {
        output.result(&format!("{hold}  {sentence}"), &json!({"hold": hold, "sentence": sentence}));
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
        let mut books = Books::new();
        for event in self.source.events()? {
            books.apply(&event)?;
            if event.header.leaf == self.event {
                let described = describe(&books, &event);
                let when = time::rfc3339(event.header.time_us);
                let text = format!(
                    "{}  {when}  {}\n{}\n  {}",
                    event.header.leaf,
                    event.body.kind(),
                    described.sentence,
                    described.legs.join("\n  ")
                );
                output.result(text.trim_end(), &json!({"event": event, "description": described}));
                return Ok(ExitCode::SUCCESS);
            }
        }
        let missing = anyhow::anyhow!("event {}: the log has {} events", self.event, books.size());
        Err(missing.context(Failure::Finding))
    }
}
