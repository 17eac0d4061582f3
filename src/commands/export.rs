//! `counterfoil export`: files for finance, from a log prefix, the same bytes every time. Beside a file stands its
//! checksum, and a manifest of the folder; a file of a closed period is never overwritten by another.

mod made;

use super::log_source::LogSource;
use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use made::Made;
use projector::export::beancount::{self, Detail};
use projector::export::period::Period;
use projector::export::{ExportError, Provenance, hledger, manifest, parquet, postings};
use protocol::event::Event;
use protocol::id::{AccountId, BatchId, EvmAddress};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// See [`super::Command::Export`]. Example: counterfoil export hledger --data data -o books.journal
#[derive(clap::Args)]
pub struct Export {
    /// Which file.
    #[arg(value_enum)]
    file: File,
    /// In which form, where there are several; the first of: postings csv, parquet, parquet-days; beancount daily, full;
    /// batch csv, json, claims, safe, safe-airdrop; statement csv, html, xlsx; invoice json, csv.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Whose statement or invoice.
    #[arg(long, value_name = "ACCT")]
    account: Option<AccountId>,
    /// Which batch.
    #[arg(long, value_name = "BATCH")]
    batch: Option<BatchId>,
    /// The Safe that pays, for --format safe.
    #[arg(long, value_name = "ADDRESS")]
    safe: Option<EvmAddress>,
    /// Only this year, quarter, month or day, UTC: 2026, 2026-Q4, 2026-10, 2026-10-31. Not for hledger, beancount, batch.
    #[arg(long, value_name = "PERIOD")]
    period: Option<Period>,
    #[command(flatten)]
    finance: Finance,
    #[command(flatten)]
    source: LogSource,
    /// Where to, with FILE.sha256 and manifest.json beside it; stdout without it. A folder for parquet-days.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What finance's own books say that ours do not.
#[derive(clap::Args)]
pub struct Finance {
    /// What one of an asset is worth, for xero, quickbooks and cryptio; once an asset, as USDC=1 or FOIL=0.031.
    #[arg(long, value_name = "ASSET=DECIMAL")]
    rate: Vec<String>,
    /// The currency of those rates, and of a statement for a bank.
    #[arg(long, value_name = "CODE", default_value = "USD")]
    currency: String,
    /// An account code of yours, for xero; once a kind, as platform_revenue=4000.
    #[arg(long, value_name = "KIND=CODE")]
    account_code: Vec<String>,
    /// The name of the tax rate of every line, for xero.
    #[arg(long, value_name = "NAME", default_value = "Tax Exempt")]
    tax_rate: String,
    /// The bank account that pays a batch, for iso20022: NAME,IBAN or NAME,IBAN,BIC.
    #[arg(long, value_name = "BANK")]
    debtor: Option<String>,
    /// The payees' bank accounts, a line each, for iso20022: ACCOUNT,NAME,IBAN or ACCOUNT,NAME,IBAN,BIC.
    #[arg(long, value_name = "FILE")]
    payees: Option<PathBuf>,
}

/// The files there are.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum File {
    /// One row a booked leg: CSV, or Parquet as one file or a folder of days.
    Postings,
    /// A journal for hledger.
    Hledger,
    /// A ledger for Beancount, a summary a day or every event.
    Beancount,
    /// A settlement batch (--batch), for people, programs, or a Safe.
    Batch,
    /// An account's statement (--account), an operator's with its quarters.
    Statement,
    /// What a customer's invoice is made of (--account).
    Invoice,
    /// A workbook: Summary, Lines, Reconciliation, Provenance.
    Workbook,
    /// Movements of tokens in and out, for Cryptio.
    Cryptio,
    /// A manual journal a month, for Xero.
    Xero,
    /// A journal entry a month, for QuickBooks Online.
    Quickbooks,
    /// For banks, fiat only: a batch's payments (--batch, pain.001), or an account's statement (--account, camt.053).
    Iso20022,
}

impl File {
    fn name(self) -> &'static str {
        match self {
            File::Postings => "postings",
            File::Hledger => "hledger",
            File::Beancount => "beancount",
            File::Batch => "batch",
            File::Statement => "statement",
            File::Invoice => "invoice",
            File::Workbook => "workbook",
            File::Cryptio => "cryptio",
            File::Xero => "xero",
            File::Quickbooks => "quickbooks",
            File::Iso20022 => "iso20022",
        }
    }

    /// Whether a part of the log is a file of its own; journals with asserted balances are of the whole prefix.
    fn has_periods(self) -> bool {
        !matches!(self, File::Hledger | File::Beancount | File::Batch)
    }
}

/// The forms there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// RFC 4180.
    Csv,
    /// A table with types.
    Parquet,
    /// The same, a folder a day.
    ParquetDays,
    /// One object.
    Json,
    /// One page that prints.
    Html,
    /// A workbook.
    Xlsx,
    /// The Safe's Transaction Builder.
    Safe,
    /// The Safe's CSV Airdrop.
    SafeAirdrop,
    /// What each payee can claim on the chain, with its proof.
    Claims,
    /// A summary a day.
    Daily,
    /// Every event.
    Full,
}

/// Makes a file's text that needs nothing but the log.
pub fn render(file: File, events: &[Event], provenance: &Provenance) -> Result<String> {
    Ok(match file {
        File::Postings => postings::csv(events, provenance)?,
        File::Hledger => hledger::journal(events, provenance)?,
        File::Beancount => beancount::ledger(events, provenance, Detail::Daily)?,
        _ => bail!("{} needs more than the log; see --help", file.name()),
    })
}

impl Export {
    /// Writes the file.
    pub fn run(mut self, output: Output) -> Result<ExitCode> {
        let mut events = self.source.events()?;
        if let Some(period) = &mut self.period {
            if !self.file.has_periods() {
                let whole =
                    format!("{} is of a whole prefix: leave out --period, use --at", self.file.name());
                return Err(anyhow::anyhow!(whole).context(Failure::Usage));
            }
            period.close_on(&mut events);
        }
        let mut provenance = LogSource::provenance(&events)?;
        provenance.period = self.period.clone();
        if self.format == Some(Format::ParquetDays) && self.file == File::Postings {
            return self.days(&events, &provenance, output);
        }
        let bytes = Made { export: &self, events: &events, provenance: &provenance }.bytes()?;
        match &self.output {
            Some(path) => self.write(path, &bytes, &provenance)?,
            None => output.bytes(&bytes),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// A folder of days; each file is made under another name and then put in its place.
    fn days(&self, events: &[Event], provenance: &Provenance, output: Output) -> Result<ExitCode> {
        let folder = self.output.as_ref().context("parquet-days needs -o FOLDER").context(Failure::Usage)?;
        let part = |path: &str| folder.join(format!("{path}.part"));
        let paths = parquet::days(events, provenance, |path| {
            let path = part(path);
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            Ok(std::io::BufWriter::new(std::fs::File::create(path)?))
        });
        let paths = paths.map_err(finding)?;
        for path in &paths {
            let place = folder.join(path);
            std::fs::rename(part(path), &place).with_context(|| place.display().to_string())?;
        }
        let about = serde_json::json!({"folder": folder, "files": paths, "size": provenance.size});
        let text = format!("{} files of {} events under {}", paths.len(), provenance.size, folder.display());
        output.result(&text, &about);
        Ok(ExitCode::SUCCESS)
    }

    /// The file, its checksum, and its line in the folder's manifest.
    fn write(&self, path: &Path, bytes: &[u8], provenance: &Provenance) -> Result<()> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{}: not a file name", path.display()))?;
        let write = |path: &Path, bytes: &[u8]| {
            std::fs::write(path, bytes).with_context(|| path.display().to_string())
        };
        let listed = path.with_file_name(manifest::MANIFEST_FILE);
        let present = match std::fs::read_to_string(&listed) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(|| listed.display().to_string()),
        };
        if present.as_deref().is_some_and(|present| manifest::contradicts(present, name, bytes)) {
            let refused = format!(
                "{}: its period is closed and this file differs from the one in {}: not the same log or flags; \
                 export to another folder and compare",
                path.display(),
                manifest::MANIFEST_FILE
            );
            return Err(anyhow::anyhow!(refused).context(Failure::Finding));
        }
        let with = manifest::with_file(present.as_deref(), name, bytes, self.file.name(), provenance);
        let with =
            with.with_context(|| format!("{}: not a manifest of ours; move it away", listed.display()))?;
        write(path, bytes)?;
        write(
            &path.with_file_name(format!("{name}.sha256")),
            manifest::checksum_line(name, bytes).as_bytes(),
        )?;
        write(&listed, with.as_bytes())
    }
}

/// What the log does not allow is a finding.
fn finding(error: ExportError) -> anyhow::Error {
    anyhow::Error::from(error).context(Failure::Finding)
}
