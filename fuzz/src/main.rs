//! `fuzz`: hunts for so many seconds on every core, one target after the other; what `cargo xtask fuzz` runs. Only arguments
//! and printing.

use clap::Parser;
use fuzz::hunt::{Hunt, Tally, try_one};
use fuzz::targets::{TARGETS, Target, named};
use fuzz::{Finding, corpus, hunt};
use std::process::ExitCode;
use std::time::Duration;

/// Bytes from strangers, changed at random.
#[derive(Parser)]
#[command(name = "fuzz")]
struct Arguments {
    /// Seconds for each target.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only this one; `list` names them.
    #[arg(long)]
    target: Option<String>,
    /// Where chance begins.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One file again, and nothing else.
    #[arg(long)]
    input: Option<std::path::PathBuf>,
    /// Hunts of one target at a time. Default: one for each core.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.target.as_deref() == Some("list") {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<&Target> = match &arguments.target {
        None => TARGETS.iter().collect(),
        Some(name) => match named(name) {
            Some(target) => vec![target],
            None => {
                eprintln!("fuzz: no target {name}; `--target list` names them");
                return ExitCode::from(2);
            }
        },
    };
    // A panic is an answer here; its words are printed with the input that led to it.
    std::panic::set_hook(Box::new(|_| {}));
    let found = chosen.iter().filter(|target| !one(target, &arguments)).count();
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(target: &Target, arguments: &Arguments) -> bool {
    if let Some(path) = &arguments.input {
        let read = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        return match read.map(|input| try_one(target, &input)) {
            Ok(Ok(said)) => {
                println!("{}: {said}", target.name);
                true
            }
            Ok(Err(finding)) => tell(&finding),
            Err(error) => {
                println!("{error}");
                false
            }
        };
    }
    for input in corpus::findings(target.name) {
        if let Err(finding) = try_one(target, &input) {
            return tell(&finding);
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or(cores) as u64;
    let results: Vec<Result<Tally, Box<Finding>>> = std::thread::scope(|scope| {
        let start = |thread| {
            let seed = arguments.seed * 1_000 + thread;
            let limits = Hunt { seed, inputs: u64::MAX, time: Duration::from_secs(arguments.seconds) };
            scope.spawn(move || hunt(target, limits))
        };
        let running: Vec<_> = (0..threads).map(start).collect();
        running.into_iter().map(|thread| thread.join().expect("panics are caught")).collect()
    });
    let mut inputs = 0;
    let mut answers = 0;
    for result in results {
        match result {
            Ok(tally) => {
                inputs += tally.inputs;
                answers = answers.max(tally.answers);
            }
            Err(finding) => return tell(&finding),
        }
    }
    println!("{}: {inputs} inputs, {answers} different answers, nothing broke", target.name);
    true
}

/// Keeps the input where the next run tries it first.
fn tell(finding: &Finding) -> bool {
    let Finding { target, what, input } = finding;
    let dir = corpus::root().join("fuzz/findings").join(target);
    let name = format!(
        "{:016x}",
        input.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte))
            .wrapping_mul(0x0100_0000_01b3))
    );
    let kept = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join(&name), input));
    println!("{target}: BROKEN by {} bytes: {what}", input.len());
    match kept {
        Ok(()) => {
            println!("  again: cargo xtask fuzz --target {target} --input fuzz/findings/{target}/{name}")
        }
        Err(error) => println!("  the input could not be kept: {error}"),
    }
    false
}
