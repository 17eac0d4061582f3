//! `counterfoil export`: files for finance, from a log prefix, the same bytes every time.

use super::log_source::LogSource;
use crate::output::Output;
use anyhow::{Context, Result};
use projector::export::{Provenance, hledger, postings};
use protocol::event::Event;
use std::path::PathBuf;
use std::process::ExitCode;

/// See [`super::Command::Export`]. Example: counterfoil export hledger --data data -o books.journal
#[derive(clap::Args)]
pub struct Export {
    /// Which file.
    #[arg(value_enum)]
    file: File,
    #[command(flatten)]
    source: LogSource,
    /// Where to; stdout without it.
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
}

/// Makes a file's text.
pub fn render(file: File, events: &[Event], provenance: &Provenance) -> Result<String> {
    Ok(match file {
        File::Postings => postings::csv(events, provenance)?,
        File::Hledger => hledger::journal(events, provenance)?,
    })
}

impl Export {
    /// Writes the file.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let events = self.source.events()?;
        let text = render(self.file, &events, &LogSource::provenance(&events)?)?;
        match &self.output {
            Some(path) => std::fs::write(path, &text).with_context(|| format!("{}", path.display()))?,
            None => output.bytes(text.as_bytes()),
        }
        Ok(ExitCode::SUCCESS)
    }
}
