//! `cargo xtask test`: everything that must hold before a change goes in, as timed sections. `.ci/run` is this command.
//!
//! Cheap sections come first and the first failing one ends the run. The last line is always `N passed, N failed`.

mod runner;
mod sections;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use runner::Tally;
use sections::{Outcome, SECTIONS, Session};

/// What the table at the end shows of one section.
struct Row {
    name: &'static str,
    took: Duration,
    told: String,
}

/// Which sections run.
#[derive(clap::Args)]
pub struct Arguments {
    /// Leave out the long ones: contracts, foreign tools, end-to-end
    #[arg(long)]
    quick: bool,
    /// One section, as the table at the end names it, and the tools it may need; can be given again
    #[arg(long, value_name = "SECTION")]
    only: Vec<String>,
}

/// What the others build on.
const ALWAYS: [&str; 2] = ["tools", "foreign tools"];

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { quick, only } = arguments;
    let quick = *quick;
    if let Some(unknown) = only.iter().find(|name| !SECTIONS.iter().any(|section| section.name == **name)) {
        let names: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
        bail!("no section is named {unknown:?}; there are: {}", names.join(", "));
    }
    let is_asked =
        |name: &str| only.is_empty() || ALWAYS.contains(&name) || only.iter().any(|one| one == name);
    let started = Instant::now();
    let mut session = Session::new(workspace, quick);
    let mut rows = Vec::new();
    let mut tally = Tally::default();
    let mut failed = false;

    for section in SECTIONS.iter().filter(|section| is_asked(section.name)) {
        if quick && section.long {
            rows.push(Row {
                name: section.name,
                took: Duration::ZERO,
                told: "left out by --quick".to_owned(),
            });
            continue;
        }
        println!("\n== {} ==", section.name);
        let section_started = Instant::now();
        let outcome = (section.run)(&mut session)
            .unwrap_or_else(|error| Outcome::Failed { why: format!("{error:#}"), tally: Tally::default() });
        let took = section_started.elapsed();
        let told = account(&outcome, &mut tally);
        if let Outcome::Failed { why, .. } = &outcome {
            println!("test: section `{}` failed: {why}", section.name);
            failed = true;
        }
        println!("== {}: {told}, {} ==", section.name, shown(took));
        rows.push(Row { name: section.name, took, told });
        if failed {
            break;
        }
    }

    print_table(&rows, started.elapsed());
    println!("{} passed, {} failed", tally.passed_count, tally.failed_count);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Adds to the sum and says it in words. A failing section that counts no failure is one.
fn account(outcome: &Outcome, sum: &mut Tally) -> String {
    match outcome {
        Outcome::Done => "ok".to_owned(),
        Outcome::Counted(tally) => {
            sum.add(*tally);
            format!("ok, {} passed", tally.passed_count)
        }
        Outcome::Skipped(reason) => format!("skipped: {reason}"),
        Outcome::Failed { tally, .. } => {
            sum.add(Tally { failed_count: tally.failed_count.max(1), ..*tally });
            "FAILED".to_owned()
        }
    }
}

fn print_table(rows: &[Row], total: Duration) {
    println!("\n{:<14} {:>10}  result", "section", "time");
    for row in rows {
        println!("{:<14} {:>10}  {}", row.name, shown(row.took), row.told);
    }
    println!("{:<14} {:>10}", "total", shown(total));
}

fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} m {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_nobody_counted_counts_once() {
        let mut sum = Tally { passed_count: 3, failed_count: 0 };
        account(&Outcome::Failed { why: String::new(), tally: Tally::default() }, &mut sum);
        assert_eq!(sum, Tally { passed_count: 3, failed_count: 1 });
        let tally = Tally { passed_count: 1, failed_count: 2 };
        account(&Outcome::Failed { why: String::new(), tally }, &mut sum);
        assert_eq!(sum, Tally { passed_count: 4, failed_count: 3 });
    }

    #[test]
    fn durations_for_people() {
        assert_eq!(shown(Duration::from_millis(1_260)), "1.3 s");
        assert_eq!(shown(Duration::from_secs(185)), "3 m 05 s");
    }
}
