//! `bench export`: postings as CSV and as Parquet from a whole log, and statements of single accounts out of the index.

use crate::books::{Books, BooksOptions, forget_peak, peak_bytes};
use crate::report::{Report, ResultLine};
use crate::samples::Samples;
use crate::{BenchError, Tried};
use projector::export::{Provenance, parquet, postings};
use projector::index::{At, Index, LogCommit, Range};
use protocol::event::{Event, LedgerAccount};
use std::io::Write;
use std::time::Instant;

/// Statements that are measured.
const STATEMENTS: u64 = 500;

/// Runs it.
pub async fn run(options: BooksOptions) -> Result<Report, BenchError> {
    let settings = serde_json::json!({
        "events": options.events, "accounts": options.accounts, "what": "postings of holds and charges; statements",
    });
    let mut report = Report::new("export", settings);
    let books = Books::write(&options).await?;
    let work = move || measure(&books, &mut report).map(|()| report);
    tokio::task::spawn_blocking(work).await.tried("run the exports")?
}

/// Takes bytes and counts them: the disk is not what is measured.
#[derive(Default)]
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn measure(books: &Books, report: &mut Report) -> Result<(), BenchError> {
    statements(books, report)?;
    let mut events: Vec<Event> = Vec::new();
    for commit in books.archive()?.commits(1) {
        events.extend(commit.tried("read a commit")?.events);
    }
    let provenance = Provenance { origin: String::new(), size: books.events, root: None, period: None };
    let rows = events.iter().map(|event| event.postings.len() as f64).sum::<f64>();
    let fold = timed(|| {
        let mut books = projector::Books::new();
        events.iter().try_for_each(|event| books.apply(event)).tried("fold the log")
    })?;
    let limit = "checking and folding the same postings, which both do first";
    let mut csv = std::io::BufWriter::with_capacity(1 << 20, Counted::default());
    let seconds = timed(|| postings::write(&events, &provenance, &mut csv).tried("write CSV"))?;
    let bytes = csv.into_inner().tried("write CSV")?.0 as f64;
    report
        .results
        .push(ResultLine::rate("csv.postings_per_second", rows / seconds).against(limit, rows / fold));
    report.results.push(ResultLine::bytes("csv.bytes_per_posting", bytes / rows));
    forget_peak();
    let before = peak_bytes();
    let mut table = Counted::default();
    let seconds = timed(|| parquet::file(&events, &provenance, &mut table).tried("write Parquet"))?;
    report
        .results
        .push(ResultLine::rate("parquet.postings_per_second", rows / seconds).against(limit, rows / fold));
    report.results.push(ResultLine::bytes("parquet.bytes_per_posting", table.0 as f64 / rows));
    if let (Some(before), Some(after)) = (before, peak_bytes()) {
        // Beyond the events, which the caller holds.
        report.results.push(ResultLine::bytes("parquet.resident_bytes", after - before));
    }
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<(), BenchError>) -> Result<f64, BenchError> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Statements of accounts here and there, whole, out of an index that was built before.
fn statements(books: &Books, report: &mut Report) -> Result<(), BenchError> {
    let archive = books.archive()?;
    let commits = |first: u64| {
        archive.commits(first).map(|commit| {
            let commit = commit.map_err(|e| e.to_string())?;
            let previous = commit.commit.previous;
            Ok::<_, String>(LogCommit {
                number: commit.number,
                hash: commit.hash,
                previous,
                events: commit.events,
            })
        })
    };
    let folder = books.data().join("books");
    std::fs::create_dir_all(&folder).tried("make a folder")?;
    let begin = Instant::now();
    let (index, _) = Index::catch_up(&folder, commits).tried("build the index")?;
    let rate = books.events as f64 / begin.elapsed().as_secs_f64();
    report.results.push(ResultLine::rate("index.events_per_second", rate));
    let accounts = index.trial_balance(At::Newest).tried("read the index")?.lines;
    let (mut times, mut lines) = (Samples::default(), 0);
    for n in 0..STATEMENTS {
        let number =
            accounts[(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % accounts.len() as u64) as usize].number;
        let begin = Instant::now();
        let statement = index.statement(LedgerAccount(number), &Range::until(At::Newest));
        lines += statement.tried("read a statement")?.len();
        times.push(begin.elapsed());
    }
    for (name, share) in [("statement.p50", 0.5), ("statement.p99", 0.99)] {
        report.results.push(ResultLine::time_ms(name, times.quantile_ms(share)));
    }
    let mean = lines as f64 / STATEMENTS as f64;
    report.results.push(ResultLine::new("statement.lines", mean, "lines", crate::Better::Higher));
    Ok(())
}
