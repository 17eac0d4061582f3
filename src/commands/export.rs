//! `counterfoil export`: files for finance, from a log prefix, the same bytes every time. Beside a file stands its
//! checksum, and a manifest of the folder.

use super::log_source::LogSource;
use crate::exit_code::Failure;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use projector::export::batch::BatchFiles;
use projector::export::beancount::{self, Detail};
use projector::export::statement::AccountStatement;
use projector::export::{ExportError, Provenance, hledger, manifest, postings};
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
    /// In which form, where there are several; the first of: postings csv; beancount daily, full; batch csv, json, safe,
    /// safe-airdrop; statement csv, html.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Whose statement.
    #[arg(long, value_name = "ACCT")]
    account: Option<AccountId>,
    /// Which batch.
    #[arg(long, value_name = "BATCH")]
    batch: Option<BatchId>,
    /// The Safe that pays, for --format safe.
    #[arg(long, value_name = "ADDRESS")]
    safe: Option<EvmAddress>,
    #[command(flatten)]
    source: LogSource,
    /// Where to, with FILE.sha256 and manifest.json beside it; stdout without it.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The files there are.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum File {
    /// One row a booked leg, CSV.
    Postings,
    /// A journal for hledger.
    Hledger,
    /// A ledger for Beancount, a summary a day or every event.
    Beancount,
    /// A settlement batch (--batch), for people, programs, or a Safe.
    Batch,
    /// An account's statement (--account), an operator's with its quarters.
    Statement,
}

impl File {
    fn name(self) -> &'static str {
        match self {
            File::Postings => "postings",
            File::Hledger => "hledger",
            File::Beancount => "beancount",
            File::Batch => "batch",
            File::Statement => "statement",
        }
    }
}

/// The forms there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// RFC 4180.
    Csv,
    /// One object.
    Json,
    /// One page that prints.
    Html,
    /// The Safe's Transaction Builder.
    Safe,
    /// The Safe's CSV Airdrop.
    SafeAirdrop,
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
        File::Batch | File::Statement => bail!("a {} needs --batch or --account", file.name()),
    })
}

impl Export {
    /// Writes the file.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let events = self.source.events()?;
        let provenance = LogSource::provenance(&events)?;
        let text = self.text(&events, &provenance)?;
        match &self.output {
            Some(path) => self.write(path, &text, &provenance)?,
            None => output.bytes(text.as_bytes()),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn text(&self, events: &[Event], provenance: &Provenance) -> Result<String> {
        match (self.file, self.format) {
            (File::Postings, None | Some(Format::Csv)) | (File::Hledger, None) => {
                render(self.file, events, provenance)
            }
            (File::Beancount, None | Some(Format::Daily)) => render(self.file, events, provenance),
            (File::Beancount, Some(Format::Full)) => Ok(beancount::ledger(events, provenance, Detail::Full)?),
            (File::Statement, None | Some(Format::Csv | Format::Html)) => {
                let account = self.account.context("a statement needs --account acct_...");
                let account = account.context(Failure::Usage)?;
                let statement = AccountStatement::of(account, events, provenance).map_err(finding)?;
                Ok(if self.format == Some(Format::Html) { statement.html() } else { statement.csv() })
            }
            (File::Batch, format) => self.batch(events, provenance, format.unwrap_or(Format::Csv)),
            (file, Some(format)) => {
                let none = anyhow::anyhow!("{} has no form {format:?}; see --help", file.name());
                Err(none.context(Failure::Usage))
            }
        }
    }

    fn batch(&self, events: &[Event], provenance: &Provenance, format: Format) -> Result<String> {
        let batch = self.batch.context("a batch needs --batch batch_...").context(Failure::Usage)?;
        let files = BatchFiles::find(events, batch, provenance).map_err(finding)?;
        match format {
            Format::Csv => Ok(files.csv()),
            Format::Json => Ok(files.json()),
            Format::Safe => {
                let safe = self.safe.context("--format safe needs --safe 0x..., the Safe that pays");
                files.safe(safe.context(Failure::Usage)?).map_err(finding)
            }
            Format::SafeAirdrop => files.safe_airdrop().map_err(finding),
            Format::Html | Format::Daily | Format::Full => {
                let none = anyhow::anyhow!("a batch has no form {format:?}; csv, json, safe or safe-airdrop");
                Err(none.context(Failure::Usage))
            }
        }
    }

    /// The file, its checksum, and its line in the folder's manifest.
    fn write(&self, path: &Path, text: &str, provenance: &Provenance) -> Result<()> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{}: not a file name", path.display()))?;
        let write =
            |path: &Path, text: &str| std::fs::write(path, text).with_context(|| path.display().to_string());
        let listed = path.with_file_name(manifest::MANIFEST_FILE);
        let present = match std::fs::read_to_string(&listed) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(|| listed.display().to_string()),
        };
        let bytes = text.as_bytes();
        let with = manifest::with_file(present.as_deref(), name, bytes, self.file.name(), provenance);
        let with =
            with.with_context(|| format!("{}: not a manifest of ours; move it away", listed.display()))?;
        write(path, text)?;
        write(&path.with_file_name(format!("{name}.sha256")), &manifest::checksum_line(name, bytes))?;
        write(&listed, &with)
    }
}

/// What the log does not allow is a finding.
fn finding(error: ExportError) -> anyhow::Error {
    anyhow::Error::from(error).context(Failure::Finding)
}
