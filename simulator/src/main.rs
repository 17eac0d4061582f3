//! `simulator`: seeds, one after the other on every core; what `cargo xtask sim` runs. Only arguments and printing.

use clap::Parser;
use simulator::{History, Mistake, run};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Deterministic simulation of the journal's writer.
#[derive(Parser)]
#[command(name = "simulator")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed; with `--seeds 1` one history again.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// With this mistake, until it is caught; `list` names them all.
    #[arg(long)]
    mutant: Option<String>,
    /// Every mistake too, each until it is first caught; one that is not is a failure.
    #[arg(long)]
    mutants: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.mutant {
        Some(name) if name == "list" => {
            Mistake::all().iter().for_each(|mistake| println!("{}", mistake.name()));
            ExitCode::SUCCESS
        }
        Some(name) => match Mistake::named(name) {
            Some(mistake) => ok(hunt(mistake, &arguments)),
            None => {
                eprintln!(
                    "simulator: no mutant {name}; `--mutant list` names them (those of the pipeline need `--features mutants`)"
                );
                ExitCode::from(2)
            }
        },
        None => {
            let healthy = healthy(&arguments);
            let caught = !arguments.mutants
                || Mistake::all()
                    .into_iter()
                    .map(|mistake| hunt(mistake, &arguments))
                    .fold(true, |all, one| all & one);
            ok(healthy & caught)
        }
    }
}

fn ok(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// No seed breaks a promise.
fn healthy(arguments: &Arguments) -> bool {
    let begin = Instant::now();
    let histories = search(arguments, None, Stop::Never);
    let failed: Vec<&History> = histories.iter().filter(|history| history.violation.is_some()).collect();
    failed.iter().take(5).for_each(|history| tell(history, None));
    let sum = |f: fn(&History) -> u64| histories.iter().map(f).sum::<u64>();
    let count = histories.len() as u64;
    println!(
        "simulation: {count} histories, {} violations, {:.1} s ({:.0}/s); each on average {} events, {} commits, {} answers, \
         {:.1} terms, {:.1} fenced writers; {} halted by rot",
        failed.len(),
        begin.elapsed().as_secs_f64(),
        count as f64 / begin.elapsed().as_secs_f64(),
        sum(|h| h.events) / count,
        sum(|h| h.commits) / count,
        sum(|h| h.answers) / count,
        sum(|h| h.terms) as f64 / count as f64,
        sum(|h| h.fenced) as f64 / count as f64,
        sum(|h| u64::from(h.halted)),
    );
    failed.is_empty()
}

/// Some seed catches the mistake.
fn hunt(mistake: Mistake, arguments: &Arguments) -> bool {
    let begin = Instant::now();
    let histories = search(arguments, Some(mistake), Stop::AtFirst);
    let caught = histories.iter().find(|history| history.violation.is_some());
    match caught.and_then(|history| history.violation.as_ref().map(|violation| (history, violation))) {
        Some((history, violation)) => println!(
            "mutant {}: caught by seed {} ({:.2} s): {violation}",
            mistake.name(),
            history.seed,
            begin.elapsed().as_secs_f64()
        ),
        None => println!("mutant {}: NOT caught in {} seeds", mistake.name(), arguments.seeds),
    }
    caught.is_some()
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Never,
    AtFirst,
}

/// Runs the seeds on every core; the result is in the order of seeds, whatever the threads did.
fn search(arguments: &Arguments, mistake: Option<Mistake>, stop: Stop) -> Vec<History> {
    let end = arguments.seed + arguments.seeds;
    let (next, limit) = (AtomicU64::new(arguments.seed), AtomicU64::new(end));
    let work = || {
        let mut histories = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= limit.load(Ordering::Relaxed) {
                return histories;
            }
            let history = run(seed, mistake);
            if stop == Stop::AtFirst && history.violation.is_some() {
                limit.fetch_min(seed, Ordering::Relaxed);
            }
            histories.push(history);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut histories: Vec<History> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("a history does not panic")).collect()
    });
    histories.sort_by_key(|history| history.seed);
    histories
}

/// A failing seed is run again: the same trace, or the simulation itself is broken.
fn tell(history: &History, mistake: Option<Mistake>) {
    let again = run(history.seed, mistake);
    let same =
        if again == *history { "the same again" } else { "ANOTHER TRACE the second time: not deterministic" };
    if let Some(violation) = &history.violation {
        println!(
            "seed {}: {violation}\n  trace {:016x}, {same}; `cargo xtask sim --seed {} --seeds 1`",
            history.seed, history.digest, history.seed
        );
    }
}
