//! The engine's door: submit, cancel, drain, metrics. What runs behind it stands in `batch/scheduler.rs`. Bits do not depend on
//! the company a job has.

mod prefix;
mod scheduler;

use crate::choice::Chooser;
use crate::digest::Chain;
use crate::error::Error;
use crate::job::{Finish, JobEvent};
use crate::kv::{KvCache, PAGE_POSITIONS};
use crate::model::Model;
use crate::pool::Pool;
use crate::request::JobRequest;
use scheduler::Scheduler;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

/// Prompt rows of one step unless tuned: what a decoding job may have to wait for.
const PREFILL_ROWS: usize = 64;
/// Prompt rows of one step at most.
const PREFILL_ROWS_MAX: usize = 4_096;
/// Pages of prefixes that are kept unless tuned: 2 048 tokens.
const PREFIX_PAGES: usize = 32;
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

/// What may be changed without changing a bit of any output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineTuning {
    /// Prompt rows that one pass runs, 1 to 4096: more is faster for prompts and makes decoding jobs wait longer.
    pub prefill_rows: usize,
    /// Full pages of 64 positions that are kept after their jobs, for later jobs that begin with the same tokens; 0 = off.
    pub prefix_pages: usize,
    /// Pages of 64 positions that running jobs may come to hold together, pages of kept prefixes not counted. A job starts
    /// when the pages of its prompt and `max_tokens` are free, after those that were submitted before it. None: as many as all
    /// slots with whole contexts need, so that a slot is all that a job waits for.
    pub kv_pages: Option<usize>,
}

impl Default for EngineTuning {
    fn default() -> EngineTuning {
        EngineTuning { prefill_rows: PREFILL_ROWS, prefix_pages: PREFIX_PAGES, kv_pages: None }
    }
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
    /// Pages that jobs may hold together.
    pub kv_pages_max: usize,
    /// Pages kept for later jobs.
    pub prefix_pages_kept: usize,
    /// Prompt tokens that were not run because their pages were kept.
    pub prefix_tokens_reused_total: u64,
    /// Time spent in passes since the start, in microseconds; tokens over it is the speed.
    pub busy_us_total: u64,
    /// Whether new jobs are refused.
    pub draining: bool,
}

/// Runs jobs. Dropping it cancels what still runs.
pub struct Engine {
    model: Arc<Model>,
    options: EngineOptions,
    kv_pages_max: usize,
    shared: Arc<Shared>,
    scheduler: Option<JoinHandle<()>>,
}

/// One submitted job. Dropping the handle cancels the job.
pub struct JobHandle {
    events: Receiver<JobEvent>,
    canceller: Canceller,
    ended: bool,
    progress: Arc<Progress>,
}

/// What a job leaves besides its tokens.
#[derive(Default)]
struct Progress {
    /// The chain after the tokens that were delivered before.
    resumed: OnceLock<[u8; 32]>,
    /// One root per full page.
    kv_roots: Mutex<Vec<[u8; 32]>>,
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
    draining: bool,
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
    prefix_pages: AtomicUsize,
    prefix_tokens: AtomicU64,
    busy_us: AtomicU64,
}

/// A job inside the engine.
struct Job {
    request: JobRequest,
    chooser: Chooser,
    /// Prompt and output so far.
    tokens: Vec<u32>,
    /// Positions whose keys and values are stored.
    stored: usize,
    cache: KvCache,
    chain: Chain,
    events: Sender<JobEvent>,
    cancelled: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

impl Job {
    /// Pages it holds when it has all its tokens; the last token is never stored.
    fn pages_max(&self) -> usize {
        let spec = &self.request.spec;
        (spec.prompt_ids.len() + spec.max_tokens as usize - 1).div_ceil(PAGE_POSITIONS)
    }
}

impl Engine {
    /// Starts the threads. If they cannot start, every [`Engine::submit`] says why.
    pub fn start(model: Arc<Model>, options: EngineOptions) -> Engine {
        // One job's worth of pages at most: keeping prefixes must not double the memory of a small engine.
        let context = options.context_tokens_max.min(model.context_length()) as usize;
        let prefix_pages = PREFIX_PAGES.min(context.div_ceil(PAGE_POSITIONS));
        Engine::start_tuned(model, options, EngineTuning { prefix_pages, ..EngineTuning::default() })
    }

    /// As [`Engine::start`].
    pub fn start_tuned(model: Arc<Model>, options: EngineOptions, tuning: EngineTuning) -> Engine {
        let tuning = EngineTuning { prefill_rows: tuning.prefill_rows.clamp(1, PREFILL_ROWS_MAX), ..tuning };
        let shared =
            Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), counters: Counters::default() });
        let jobs_max = options.jobs_max.clamp(1, JOBS_MAX);
        let context = options.context_tokens_max.min(model.context_length());
        let kv_pages_max =
            tuning.kv_pages.unwrap_or(jobs_max * (context as usize).div_ceil(PAGE_POSITIONS)).max(1);
        // No job may need more pages than there are: it would wait for ever.
        let tokens_of_pages = u32::try_from(kv_pages_max * PAGE_POSITIONS).unwrap_or(u32::MAX);
        let options = EngineOptions { jobs_max, context_tokens_max: context.min(tokens_of_pages), ..options };
        let tuning = EngineTuning { kv_pages: Some(kv_pages_max), ..tuning };
        let (for_thread, for_model) = (Arc::clone(&shared), Arc::clone(&model));
        let scheduler = thread::Builder::new().name("kernels-0".to_owned()).spawn(move || {
            let guard = FailOnExit(for_thread);
            match Pool::new(options.threads) {
                Ok(pool) => Scheduler::new(&for_model, &pool, &guard.0, options, tuning).run(),
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
        Engine { model, options, kv_pages_max, shared, scheduler }
    }

    /// Queues a job: a plain [`crate::JobSpec`] or a [`JobRequest`].
    ///
    /// # Errors
    /// [`Error::InvalidJob`], [`Error::ContextExceeded`], [`Error::Busy`], [`Error::Draining`], [`Error::Stopped`].
    pub fn submit(&self, job: impl Into<JobRequest>) -> Result<JobHandle, Error> {
        let request: JobRequest = job.into();
        request.check(&self.model, self.options.context_tokens_max)?;
        let mut chooser = Chooser::new(&self.model, &request)?;
        for id in &request.resume {
            if chooser.push(&self.model, *id)? {
                return Err(Error::InvalidJob {
                    what: "the tokens delivered already end the job".to_owned(),
                });
            }
        }
        let (sender, events) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Progress::default());
        let job = Job {
            tokens: [&request.spec.prompt_ids[..], &request.resume].concat(),
            stored: 0,
            cache: KvCache::new(self.model.kv_shape()),
            chain: Chain::of_request(&request, &self.model.id()),
            request,
            chooser,
            events: sender,
            cancelled: Arc::clone(&cancelled),
            progress: Arc::clone(&progress),
        };
        let mut queue = self.shared.lock();
        if let Some(error) = &queue.failure {
            return Err(error.clone());
        }
        if queue.draining {
            return Err(Error::Draining);
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
        Ok(JobHandle { events, canceller, ended: false, progress })
    }

    /// Refuses new jobs from now on and waits until those that run or wait have ended.
    pub fn drain(&self) {
        let mut queue = self.shared.lock();
        queue.draining = true;
        while queue.failure.is_none()
            && !(queue.waiting.is_empty() && self.shared.counters.running.load(Ordering::SeqCst) == 0)
        {
            queue = self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the engine does now.
    pub fn metrics(&self) -> EngineMetrics {
        let counters = &self.shared.counters;
        let (jobs_waiting, draining) = {
            let queue = self.shared.lock();
            (queue.waiting.len(), queue.draining)
        };
        EngineMetrics {
            jobs_running: counters.running.load(Ordering::Relaxed),
            jobs_waiting,
            jobs_ended_total: counters.ended.load(Ordering::Relaxed),
            prompt_tokens_total: counters.prompt_tokens.load(Ordering::Relaxed),
            output_tokens_total: counters.output_tokens.load(Ordering::Relaxed),
            steps_total: counters.steps.load(Ordering::Relaxed),
            kv_pages_used: counters.pages.load(Ordering::Relaxed),
            kv_pages_max: self.kv_pages_max,
            prefix_pages_kept: counters.prefix_pages.load(Ordering::Relaxed),
            prefix_tokens_reused_total: counters.prefix_tokens.load(Ordering::Relaxed),
            busy_us_total: counters.busy_us.load(Ordering::Relaxed),
            draining,
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

    /// The chain after the tokens delivered before; None until they were run, and for a job that resumes nothing.
    pub fn resumed_chain(&self) -> Option<[u8; 32]> {
        self.progress.resumed.get().copied()
    }

    /// Merkle roots of the full pages of 64 positions so far, prompt and output (`specs/numerics.md`, N).
    pub fn kv_roots(&self) -> Vec<[u8; 32]> {
        self.progress.kv_roots.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        self.0.wake.notify_all();
    }
}

#[cfg(test)]
mod tests;
