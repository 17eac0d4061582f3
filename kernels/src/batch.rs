//! The engine: many jobs at once on one pool of threads. Each step runs one row of every job that decodes and a bounded number
//! of prompt rows of those that do not yet, in one pass; jobs come and go between steps. Bits do not depend on the company.

use crate::digest::{Chain, activation_digest};
use crate::error::Error;
use crate::forward::{Row, Workspace};
use crate::job::{Finish, JobEvent, JobSpec, TokenOut};
use crate::kv::{KvCache, PAGE_POSITIONS, Page};
use crate::model::Model;
use crate::pool::Pool;
use crate::sampling::Sampler;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Prompt rows of one step: what a decoding job may have to wait for.
const PREFILL_ROWS: usize = 64;
/// Jobs at once.
const JOBS_MAX: usize = 1_024;

/// How an engine is set up. There is no default: each number is a decision about the machine.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Threads that compute, 1 to 256.
    pub threads: usize,
    /// Jobs that run at once, 1 to 1024. Each slot costs a row of logits; pages are taken as a job grows.
    pub jobs_max: usize,
    /// Jobs that may wait; one more is refused with [`Error::Busy`].
    pub queue_max: usize,
    /// Prompt plus output tokens of one job; at most the model's context counts.
    pub context_tokens_max: u32,
}

/// What the engine does now and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineMetrics {
    /// Jobs that run.
    pub jobs_running: usize,
    /// Jobs that wait for a slot.
    pub jobs_waiting: usize,
    /// Jobs ended, for whatever reason, since the start.
    pub jobs_ended_total: u64,
    /// Prompt tokens run since the start.
    pub prompt_tokens_total: u64,
    /// Output tokens delivered since the start.
    pub output_tokens_total: u64,
    /// Passes since the start.
    pub steps_total: u64,
    /// Pages of 64 positions that jobs hold.
    pub kv_pages_used: usize,
    /// Pages that all slots together can hold.
    pub kv_pages_max: usize,
}

/// Runs jobs. Dropping it cancels what still runs.
pub struct Engine {
    model: Arc<Model>,
    options: EngineOptions,
    shared: Arc<Shared>,
    scheduler: Option<JoinHandle<()>>,
}

/// One submitted job. Dropping the handle cancels the job.
pub struct JobHandle {
    events: Receiver<JobEvent>,
    canceller: Canceller,
    ended: bool,
}

/// Cancels a job from anywhere; clones cancel the same job.
#[derive(Clone)]
pub struct Canceller {
    cancelled: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Held for a push, a pop or a scan of the queue; never during a pass.
    queue: Mutex<Queue>,
    wake: Condvar,
    counters: Counters,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    stop: bool,
    /// Why the scheduler could not start.
    failure: Option<Error>,
}

#[derive(Default)]
struct Counters {
    running: AtomicUsize,
    ended: AtomicU64,
    prompt_tokens: AtomicU64,
    output_tokens: AtomicU64,
    steps: AtomicU64,
    pages: AtomicUsize,
}

/// A job inside the engine.
struct Job {
    spec: JobSpec,
    /// Prompt and output so far.
    tokens: Vec<u32>,
    /// Positions whose keys and values are stored.
    stored: usize,
    cache: KvCache,
    chain: Chain,
    events: Sender<JobEvent>,
    cancelled: Arc<AtomicBool>,
}

impl Engine {
    /// Starts the threads. If they cannot start, every [`Engine::submit`] says why.
    pub fn start(model: Arc<Model>, options: EngineOptions) -> Engine {
        let shared =
            Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), counters: Counters::default() });
        let options = EngineOptions {
            jobs_max: options.jobs_max.clamp(1, JOBS_MAX),
            context_tokens_max: options.context_tokens_max.min(model.context_length()),
            ..options
        };
        let (for_thread, for_model) = (Arc::clone(&shared), Arc::clone(&model));
        let scheduler = thread::Builder::new().name("kernels-0".to_owned()).spawn(move || {
            let guard = FailOnExit(for_thread);
            match Pool::new(options.threads) {
                Ok(pool) => Scheduler::new(&for_model, &pool, &guard.0, options).run(),
                Err(error) => guard.0.fail(&error),
            }
        });
        let scheduler = match scheduler {
            Ok(handle) => Some(handle),
            Err(error) => {
                shared.fail(&Error::InvalidJob { what: format!("cannot start a thread: {error}") });
                None
            }
        };
        Engine { model, options, shared, scheduler }
    }

    /// Queues a job.
    ///
    /// # Errors
    /// [`Error::InvalidJob`], [`Error::ContextExceeded`], [`Error::Busy`], [`Error::Stopped`].
    pub fn submit(&self, job: JobSpec) -> Result<JobHandle, Error> {
        job.check(&self.model, self.options.context_tokens_max)?;
        let (sender, events) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job {
            tokens: job.prompt_ids.clone(),
            stored: 0,
            cache: KvCache::new(self.model.kv_shape()),
            chain: Chain::start(&job, &self.model.id()),
            spec: job,
            events: sender,
            cancelled: Arc::clone(&cancelled),
        };
        let mut queue = self.shared.lock();
        if let Some(error) = &queue.failure {
            return Err(error.clone());
        }
        self.shared.end_cancelled(&mut queue);
        let waiting = queue.waiting.len();
        let free = self.options.jobs_max.saturating_sub(self.shared.counters.running.load(Ordering::Relaxed));
        if waiting >= self.options.queue_max + free {
            return Err(Error::Busy { waiting, queue_max: self.options.queue_max });
        }
        queue.waiting.push_back(job);
        drop(queue);
        self.shared.wake.notify_all();
        let canceller = Canceller { cancelled, shared: Arc::clone(&self.shared) };
        Ok(JobHandle { events, canceller, ended: false })
    }

    /// What the engine does now.
    pub fn metrics(&self) -> EngineMetrics {
        let counters = &self.shared.counters;
        let pages_of_job = (self.options.context_tokens_max as usize).div_ceil(PAGE_POSITIONS);
        EngineMetrics {
            jobs_running: counters.running.load(Ordering::Relaxed),
            jobs_waiting: self.shared.lock().waiting.len(),
            jobs_ended_total: counters.ended.load(Ordering::Relaxed),
            prompt_tokens_total: counters.prompt_tokens.load(Ordering::Relaxed),
            output_tokens_total: counters.output_tokens.load(Ordering::Relaxed),
            steps_total: counters.steps.load(Ordering::Relaxed),
            kv_pages_used: counters.pages.load(Ordering::Relaxed),
            kv_pages_max: self.options.jobs_max * pages_of_job,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(scheduler) = self.scheduler.take() {
            // A panic there has already ended every job's stream.
            let _ = scheduler.join();
        }
    }
}

impl JobHandle {
    /// Waits for the next event. None after `Done` or `Failed`. Blocks the thread: call it from `spawn_blocking` or a thread.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<JobEvent> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().unwrap_or(JobEvent::Failed(Error::Stopped));
        self.ended = !matches!(event, JobEvent::Token(_));
        Some(event)
    }

    /// Asks for the end of the job: `Done` with [`Finish::Cancelled`] follows within one step, unless it ended before.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// A canceller to hand to somebody else.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel();
        }
    }
}

impl Canceller {
    /// As [`JobHandle::cancel`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends jobs that were cancelled while they waited.
    fn end_cancelled(&self, queue: &mut Queue) {
        queue.waiting.retain(|job| {
            let cancelled = job.cancelled.load(Ordering::Relaxed);
            if cancelled {
                self.counters.ended.fetch_add(1, Ordering::Relaxed);
                // The owner may be gone.
                let _ = job
                    .events
                    .send(JobEvent::Done { finish: Finish::Cancelled, chain_head: job.chain.head() });
            }
            !cancelled
        });
    }

    /// Ends all waiting jobs and refuses those to come.
    fn fail(&self, error: &Error) {
        let mut queue = self.lock();
        queue.failure.get_or_insert(error.clone());
        for job in queue.waiting.drain(..) {
            // The owner may be gone.
            let _ = job.events.send(JobEvent::Failed(error.clone()));
        }
    }
}

/// However the scheduler ends, by a panic too, nobody waits for it for ever.
struct FailOnExit(Arc<Shared>);

impl Drop for FailOnExit {
    fn drop(&mut self) {
        self.0.fail(&Error::Stopped);
    }
}

/// The thread that owns the pool.
struct Scheduler<'e> {
    model: &'e Model,
    pool: &'e Pool,
    shared: &'e Shared,
    options: EngineOptions,
    space: Workspace,
    sampler: Sampler,
    running: Vec<Job>,
    free_pages: Vec<Page>,
}

impl<'e> Scheduler<'e> {
    fn new(model: &'e Model, pool: &'e Pool, shared: &'e Shared, options: EngineOptions) -> Scheduler<'e> {
        let space = Workspace::new(model, PREFILL_ROWS + options.jobs_max, options.jobs_max);
        let (running, free_pages) = (Vec::new(), Vec::new());
        Scheduler { model, pool, shared, options, space, sampler: Sampler::default(), running, free_pages }
    }

    fn run(&mut self) {
        while self.admit() {
            self.end_cancelled();
            let rows = self.plan();
            if rows.is_empty() {
                continue;
            }
            let mut caches: Vec<&mut KvCache> = self.running.iter_mut().map(|job| &mut job.cache).collect();
            self.model.forward(self.pool, &mut self.space, &rows, &mut caches);
            self.shared.counters.steps.fetch_add(1, Ordering::Relaxed);
            self.deliver(&rows);
        }
        for index in (0..self.running.len()).rev() {
            self.end(index, None);
        }
    }

    /// Fills free slots from the queue; waits if there is nothing to do. False when the engine stops.
    fn admit(&mut self) -> bool {
        let mut queue = self.shared.lock();
        loop {
            if queue.stop {
                return false;
            }
            self.shared.end_cancelled(&mut queue);
            while self.running.len() < self.options.jobs_max {
                let Some(job) = queue.waiting.pop_front() else { break };
                self.running.push(job);
                self.shared.counters.running.store(self.running.len(), Ordering::Relaxed);
            }
            if !self.running.is_empty() {
                return true;
            }
            queue = self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end_cancelled(&mut self) {
        for index in (0..self.running.len()).rev() {
            if self.running[index].cancelled.load(Ordering::Relaxed) {
                self.end(index, None);
            }
        }
    }

    /// Takes a job out of its slot. `event` None means cancelled.
    fn end(&mut self, index: usize, event: Option<JobEvent>) {
        let mut job = self.running.remove(index);
        job.cache.release(&mut self.free_pages);
        let counters = &self.shared.counters;
        counters.ended.fetch_add(1, Ordering::Relaxed);
        counters.running.store(self.running.len(), Ordering::Relaxed);
        counters.pages.store(self.running.iter().map(|job| job.cache.page_count()).sum(), Ordering::Relaxed);
        let cancelled = JobEvent::Done { finish: Finish::Cancelled, chain_head: job.chain.head() };
        // The owner may be gone.
        let _ = job.events.send(event.unwrap_or(cancelled));
    }

    /// Rows of the next pass, in order of the jobs; makes room in their caches.
    fn plan(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut prefill_left = PREFILL_ROWS;
        for (sequence, job) in self.running.iter_mut().enumerate() {
            let behind = job.tokens.len() - job.stored;
            let decodes = job.tokens.len() > job.spec.prompt_ids.len();
            let count = if decodes { behind } else { behind.min(prefill_left) };
            if !decodes {
                prefill_left -= count;
            }
            let end = job.stored + count;
            job.cache.grow(end, &mut self.free_pages);
            rows.extend((job.stored..end).map(|position| Row {
                sequence,
                position,
                token: job.tokens[position],
                output: position + 1 == job.tokens.len(),
            }));
        }
        let pages = self.running.iter().map(|job| job.cache.page_count()).sum();
        self.shared.counters.pages.store(pages, Ordering::Relaxed);
        rows
    }

    /// Takes the results of a pass: failures, new tokens, ends.
    fn deliver(&mut self, rows: &[Row]) {
        let mut ends: Vec<(usize, JobEvent)> = Vec::new();
        let mut output = 0;
        for (index, row) in rows.iter().enumerate() {
            let position = row.position as u32;
            let job = &mut self.running[row.sequence];
            if position < job.spec.prompt_ids.len() as u32 {
                self.shared.counters.prompt_tokens.fetch_add(1, Ordering::Relaxed);
            }
            job.stored = row.position + 1;
            let at = output;
            output += usize::from(row.output);
            if ends.last().is_some_and(|(sequence, _)| *sequence == row.sequence) {
                continue;
            }
            if self.space.is_bad(index) {
                ends.push((row.sequence, JobEvent::Failed(Error::NonFinite { position })));
            } else if row.output
                && let Some(event) = self.choose(row, at)
            {
                ends.push((row.sequence, event));
            }
        }
        for (sequence, event) in ends.into_iter().rev() {
            self.end(sequence, Some(event));
        }
    }

    /// Chooses and delivers the token after `row`; returns the end of the job, if this is it.
    fn choose(&mut self, row: &Row, output: usize) -> Option<JobEvent> {
        let job = &mut self.running[row.sequence];
        let index = (job.tokens.len() - job.spec.prompt_ids.len()) as u32;
        let chosen =
            self.sampler.sample(self.model.numerics, &job.spec.params, index, self.space.logits(output));
        let Some(id) = chosen else {
            return Some(JobEvent::Failed(Error::NonFinite { position: row.position as u32 }));
        };
        if job.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let digest = activation_digest(self.space.last(), output, self.model.head().is_quantised());
        let chain = job.chain.push(id, &digest);
        job.tokens.push(id);
        self.shared.counters.output_tokens.fetch_add(1, Ordering::Relaxed);
        if job.events.send(JobEvent::Token(TokenOut { index, id, chain })).is_err() {
            job.cancelled.store(true, Ordering::Relaxed);
        }
        let finish = match (job.spec.is_stop(self.model, id), index + 1 == job.spec.max_tokens) {
            (true, _) => Finish::Stop,
            (false, true) => Finish::Length,
            (false, false) => return None,
        };
        Some(JobEvent::Done { finish, chain_head: chain })
    }
}

#[cfg(test)]
mod tests;
