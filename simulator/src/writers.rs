//! Writers as processes: a pipeline, its clock, what reaches it while it is paused. Must not: decide what the pipeline does.

use crate::clients::genesis;
use crate::mutants::Mistake;
use journal::pipeline::{Boot, Input, Pipeline, PipelineOptions, Position};
use ledger::State;
use protocol::id::Hash32;
use std::collections::BTreeMap;

/// One process; its number is its place in the list, and is never used again.
pub struct Writer {
    /// The machine.
    pub pipeline: Pipeline<u64>,
    /// Crashed, stopped or fenced: nothing reaches it.
    pub alive: bool,
    /// Nothing reaches it before then.
    pub paused_until_us: u64,
    /// Its clock against virtual time.
    pub clock_us: i64,
    /// Acknowledgements of an older connection are lost.
    pub connection: u64,
    /// The attempt whose answer is awaited.
    pub attempt: Option<u64>,
    /// The end of the archive tail as this process knows it.
    pub tail_head: u64,
    /// When the last tail answer arrives: they stay in order.
    pub tail_answer_us: u64,
    /// Its term, once it began.
    pub epoch: Option<u64>,
    /// When it compared stream and archive.
    pub started_us: u64,
    /// Ticket to the order in which requests came.
    pub arrived: BTreeMap<u64, u64>,
    /// The place of the last request that was answered.
    pub answered: Option<u64>,
}

/// How small the pipeline's bounds are in one history, so that they are reached.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// See [`PipelineOptions`].
    pub queue_requests_max: usize,
    /// See [`PipelineOptions`].
    pub prepare_requests_min: usize,
    /// See [`PipelineOptions`].
    pub launch_commands_max: usize,
}

impl Writer {
    /// A process that has read the log and is about to boot.
    pub fn new(bounds: Bounds, mistake: Option<Mistake>, now_us: u64, tail_head: Position) -> Self {
        let mut options = PipelineOptions::new(0);
        options.queue_requests_max = bounds.queue_requests_max;
        options.prepare_requests_min = bounds.prepare_requests_min;
        options.launch_commands_max = bounds.launch_commands_max;
        set_mistake(&mut options, mistake);
        Self {
            pipeline: Pipeline::new(options),
            alive: true,
            paused_until_us: 0,
            clock_us: 0,
            connection: 0,
            attempt: None,
            tail_head: tail_head.commit,
            tail_answer_us: 0,
            epoch: None,
            started_us: now_us,
            arrived: BTreeMap::new(),
            answered: None,
        }
    }

    /// What it boots with.
    pub fn boot(state: State, nonce: Hash32) -> Input<u64> {
        Input::Boot(Box::new(Boot { state, nonce, genesis: Some(genesis()) }))
    }

    /// Its clock.
    pub fn now_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add_signed(self.clock_us)
    }
}

#[cfg(feature = "mutants")]
fn set_mistake(options: &mut PipelineOptions, mistake: Option<Mistake>) {
    options.mutant = match mistake {
        Some(Mistake::Pipeline(mutant)) => Some(mutant),
        Some(Mistake::DropFencing | Mistake::SkipTailCheck | Mistake::TailNotFenced) | None => None,
    };
}

#[cfg(not(feature = "mutants"))]
fn set_mistake(_options: &mut PipelineOptions, _mistake: Option<Mistake>) {}
