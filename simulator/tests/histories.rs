//! Histories by chance, the same twice; mistakes that they must catch; what is too rare for chance, directed.

use simulator::run;

/// The test command runs 10 000 (`cargo xtask sim`); these are for `cargo test`.
const SEEDS: u64 = 300;

#[test]
fn no_history_breaks_a_promise_and_each_is_the_same_twice() {
    let (mut fenced, mut halted, mut answers) = (0, 0, 0);
    for seed in 0..SEEDS {
        let history = run(seed, None);
        assert_eq!(history.violation, None, "seed {seed}");
        if seed % 10 == 0 {
            assert_eq!(run(seed, None), history, "seed {seed} is not deterministic");
        }
        fenced += history.fenced;
        halted += u64::from(history.halted);
        answers += history.answers;
    }
    // The schedules reach what they are there for.
    assert!(fenced > SEEDS / 3 && halted > SEEDS / 20 && answers > SEEDS * 50, "{fenced} {halted} {answers}");
}

#[cfg(feature = "mutants")]
#[test]
fn every_mistake_is_caught() {
    for mistake in simulator::Mistake::all() {
        let caught = (0..10_000).find(|seed| run(*seed, Some(mistake)).violation.is_some());
        assert!(caught.is_some(), "{} lives", mistake.name());
    }
}

/// Two writers that start from one log at one microsecond. Without chance in the term's first commit both would write the
/// same bytes, and each would find its own commit in the log.
mod twins {
    use bytes::Bytes;
    use journal::pipeline::{Boot, Effect, Input, Pipeline, PipelineOptions, Position, StopReason};
    use ledger::State;
    use protocol::id::Hash32;
    use simulator::clients::genesis;
    use simulator::log::Log;

    struct Twin {
        pipeline: Pipeline<u64>,
        sent: Option<(u64, Position, Bytes)>,
        asked: Option<(u64, u64)>,
        appended: Option<Position>,
        led: Option<u64>,
        stopped: Option<StopReason>,
    }

    impl Twin {
        fn step(&mut self, input: Input<u64>) {
            let mut out = Vec::new();
            self.pipeline.step(5_000_000, input, &mut out);
            for effect in out {
                match effect {
                    Effect::Publish { attempt, position, bytes } => {
                        self.sent = Some((attempt, position, bytes))
                    }
                    Effect::ReadBack { attempt, number } => self.asked = Some((attempt, number)),
                    Effect::TailAppend { position, .. } => self.appended = Some(position),
                    Effect::Led { epoch } => self.led = Some(epoch),
                    Effect::Stop(reason) => self.stopped = Some(reason),
                    Effect::Committed { .. }
                    | Effect::Reply { .. }
                    | Effect::Timer { .. }
                    | Effect::Warn(_) => {}
                }
            }
        }

        /// Everything that it asks for, at once.
        fn serve(&mut self, log: &mut Log) {
            loop {
                if let Some((attempt, position, bytes)) = self.sent.take() {
                    let result = log.publish(position.commit - 1, &bytes);
                    self.step(Input::Published { attempt, result });
                } else if let Some((attempt, number)) = self.asked.take() {
                    self.step(Input::ReadBack { attempt, result: log.read(number) });
                } else if let Some(position) = self.appended.take() {
                    self.step(Input::TailWritten { number: position.commit, result: Ok(()) });
                } else {
                    return;
                }
            }
        }
    }

    /// Both boot on the same log before either is served; how many led, and in which terms.
    fn race(options: &PipelineOptions, nonces: [u8; 2]) -> Vec<u64> {
        let mut log = Log::default();
        let mut state = State::new(0);
        let first = boot(&PipelineOptions::new(0), &State::new(0), 9, &mut log);
        assert_eq!(first.led, Some(1));
        let mut chain = journal::reader::ChainCheck::new(0, 1);
        for message in log.whole() {
            chain.check(message.bytes.clone()).unwrap().apply_to(&mut state).unwrap();
        }
        let mut twins: Vec<Twin> = nonces.iter().map(|nonce| start(options, &state, *nonce)).collect();
        twins.iter_mut().for_each(|twin| twin.serve(&mut log));
        assert!(twins.iter().any(|twin| twin.led.is_some()), "somebody leads");
        assert!(twins.iter().all(|twin| twin.led.is_some() != twin.stopped.is_some()));
        twins.iter().filter_map(|twin| twin.led).collect()
    }

    fn start(options: &PipelineOptions, state: &State, nonce: u8) -> Twin {
        let pipeline = Pipeline::new(options.clone());
        let mut twin = Twin { pipeline, sent: None, asked: None, appended: None, led: None, stopped: None };
        let (state, nonce) = (state.clone(), Hash32([nonce; 32]));
        twin.step(Input::Boot(Box::new(Boot { state, nonce, genesis: Some(genesis()) })));
        twin
    }

    fn boot(options: &PipelineOptions, state: &State, nonce: u8, log: &mut Log) -> Twin {
        let mut twin = start(options, state, nonce);
        twin.serve(log);
        twin
    }

    #[test]
    fn chance_in_the_terms_first_commit_keeps_twins_apart() {
        assert_eq!(race(&PipelineOptions::new(0), [1, 2]), vec![2]);
    }

    #[test]
    fn equal_chance_would_let_both_lead() {
        assert_eq!(race(&PipelineOptions::new(0), [1, 1]), vec![2, 2], "what the nonce is there for");
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_writer_without_chance_is_caught() {
        let mut options = PipelineOptions::new(0);
        options.mutant = Some(journal::pipeline::Mutant::NoNonce);
        assert_eq!(race(&options, [1, 2]), vec![2, 2], "the mutant makes two leaders of one term");
    }
}
