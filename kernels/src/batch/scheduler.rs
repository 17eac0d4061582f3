//! The thread that owns the pool. Each step runs one row of every job that decodes and a bounded number of prompt rows of those
//! that do not yet, in one pass; jobs come and go between steps.

use super::prefix::{PageKey, PrefixCache, page_key};
use super::{EngineOptions, EngineTuning, Job, Shared};
use crate::choice::Position;
use crate::digest::kv_page_root;
use crate::error::Error;
use crate::forward::{Output, Row, Workspace};
use crate::job::{Finish, JobEvent, TokenOut};
use crate::kv::{KvCache, PAGE_POSITIONS, Page};
use crate::model::Model;
use crate::pool::Pool;
use crate::sampling::Sampler;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A running job and the name of its last full page.
struct Running {
    job: Job,
    pages_done: usize,
    key: Option<PageKey>,
}

pub(super) struct Scheduler<'e> {
    model: &'e Model,
    pool: &'e Pool,
    shared: &'e Shared,
    options: EngineOptions,
    tuning: EngineTuning,
    space: Workspace,
    sampler: Sampler,
    running: Vec<Running>,
    free_pages: Vec<Page>,
    prefixes: PrefixCache,
}

impl<'e> Scheduler<'e> {
    pub(super) fn new(
        model: &'e Model,
        pool: &'e Pool,
        shared: &'e Shared,
        options: EngineOptions,
        tuning: EngineTuning,
    ) -> Scheduler<'e> {
        let space = Workspace::new(model, tuning.prefill_rows + options.jobs_max, options.jobs_max);
        Scheduler {
            model,
            pool,
            shared,
            options,
            tuning,
            space,
            sampler: Sampler::default(),
            running: Vec::new(),
            free_pages: Vec::new(),
            prefixes: PrefixCache::new(tuning.prefix_pages),
        }
    }

    pub(super) fn run(&mut self) {
        while self.admit() {
            self.end_cancelled();
            let rows = self.plan();
            if rows.is_empty() {
                continue;
            }
            let started = Instant::now();
            let mut caches: Vec<&mut KvCache> = self.running.iter_mut().map(|r| &mut r.job.cache).collect();
            let ran = self.model.forward(self.pool, &mut self.space, &rows, &mut caches);
            self.shared.counters.steps.fetch_add(1, Ordering::Relaxed);
            match ran {
                Ok(()) => self.deliver(&rows),
                Err(error) => self.fail_all(&error),
            }
            let elapsed = started.elapsed().as_micros() as u64;
            self.shared.counters.busy_us.fetch_add(elapsed, Ordering::Relaxed);
        }
        for index in (0..self.running.len()).rev() {
            self.end(index, None);
        }
    }

    /// Fills free slots from the queue; waits if there is nothing to do. False when the engine stops.
    fn admit(&mut self) -> bool {
        let shared = self.shared;
        let mut queue = shared.lock();
        loop {
            if queue.stop {
                return false;
            }
            shared.end_cancelled(&mut queue);
            while let Some(job) = queue.waiting.pop_front_if(|job| self.has_room_for(job)) {
                self.start(job);
                shared.counters.running.store(self.running.len(), Ordering::SeqCst);
            }
            if !self.running.is_empty() {
                return true;
            }
            if queue.draining {
                // Whoever drains waits for this very moment.
                shared.wake.notify_all();
            }
            queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a slot is free, and every page that the job may come to hold.
    fn has_room_for(&self, job: &Job) -> bool {
        let promised: usize = self.running.iter().map(|running| running.job.pages_max()).sum();
        let pages = self.tuning.kv_pages.unwrap_or(usize::MAX);
        self.running.len() < self.options.jobs_max && promised + job.pages_max() <= pages
    }

    /// Gives a job its slot, and the pages that others have made of its prompt.
    fn start(&mut self, mut job: Job) {
        let prompt = job.request.spec.prompt_ids.len();
        // The last prompt row is always run: its activations are part of the chain.
        let pages = if self.prefixes.is_on() {
            self.prefixes.find(&job.tokens, (prompt - 1) / PAGE_POSITIONS)
        } else {
            Vec::new()
        };
        job.stored = pages.len() * PAGE_POSITIONS;
        self.shared.counters.prefix_tokens.fetch_add(job.stored as u64, Ordering::Relaxed);
        self.shared.counters.prompt_tokens.fetch_add(job.stored as u64, Ordering::Relaxed);
        pages.into_iter().for_each(|page| job.cache.adopt(page));
        self.running.push(Running { job, pages_done: 0, key: None });
        let index = self.running.len() - 1;
        self.finish_pages(index);
    }

    fn end_cancelled(&mut self) {
        for index in (0..self.running.len()).rev() {
            if self.running[index].job.cancelled.load(Ordering::Relaxed) {
                self.end(index, None);
            }
        }
    }

    /// A pass failed as a whole: so do all jobs that were in it.
    fn fail_all(&mut self, error: &Error) {
        for index in (0..self.running.len()).rev() {
            self.end(index, Some(JobEvent::Failed(error.clone())));
        }
    }

    /// Takes a job out of its slot. `event` None means cancelled.
    fn end(&mut self, index: usize, event: Option<JobEvent>) {
        let mut job = self.running.remove(index).job;
        job.cache.release(&mut self.free_pages);
        let counters = &self.shared.counters;
        counters.ended.fetch_add(1, Ordering::Relaxed);
        counters.running.store(self.running.len(), Ordering::SeqCst);
        let pages = self.running.iter().map(|r| r.job.cache.page_count()).sum();
        counters.pages.store(pages, Ordering::Relaxed);
        let cancelled = JobEvent::Done { finish: Finish::Cancelled, chain_head: job.chain.head() };
        // The owner may be gone.
        let _ = job.events.send(event.unwrap_or(cancelled));
    }

    /// Rows of the next pass, in order of the jobs; makes room in their caches.
    fn plan(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut prefill_left = self.tuning.prefill_rows;
        for (sequence, Running { job, .. }) in self.running.iter_mut().enumerate() {
            let prompt = job.request.spec.prompt_ids.len();
            let behind = job.tokens.len() - job.stored;
            let decodes = behind == 1 && job.tokens.len() > prompt;
            let count = if decodes { 1 } else { behind.min(prefill_left) };
            if !decodes {
                prefill_left -= count;
            }
            let end = job.stored + count;
            job.cache.grow(end, &mut self.free_pages);
            rows.extend((job.stored..end).map(|position| Row {
                sequence,
                position,
                token: job.tokens[position],
                output: match position + 1 {
                    next if next == job.tokens.len() => Output::Logits,
                    next if next >= prompt => Output::Activations,
                    _ => Output::Nothing,
                },
            }));
        }
        let pages = self.running.iter().map(|r| r.job.cache.page_count()).sum();
        self.shared.counters.pages.store(pages, Ordering::Relaxed);
        rows
    }

    /// Takes the results of a pass: failures, new tokens, ends.
    fn deliver(&mut self, rows: &[Row]) {
        let mut ends: Vec<(usize, JobEvent)> = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let position = row.position as u32;
            let job = &mut self.running[row.sequence].job;
            if position < job.request.spec.prompt_ids.len() as u32 {
                self.shared.counters.prompt_tokens.fetch_add(1, Ordering::Relaxed);
            }
            job.stored = row.position + 1;
            if ends.last().is_some_and(|(sequence, _)| *sequence == row.sequence) {
                continue;
            }
            let event = match (self.space.is_bad(index), row.output) {
                (true, _) => Some(JobEvent::Failed(Error::NonFinite { position })),
                (false, Output::Nothing) => None,
                (false, Output::Activations) => {
                    self.follow(row, index);
                    None
                }
                (false, Output::Logits) => self.choose(row, index),
            };
            ends.extend(event.map(|event| (row.sequence, event)));
        }
        for index in 0..self.running.len() {
            if !ends
                .iter()
                .any(|(sequence, event)| *sequence == index && matches!(event, JobEvent::Failed(_)))
            {
                self.finish_pages(index);
            }
        }
        for (sequence, event) in ends.into_iter().rev() {
            self.end(sequence, Some(event));
        }
    }

    /// Goes along the chain by a token that was delivered before.
    fn follow(&mut self, row: &Row, index: usize) {
        let digest = self.space.digest(self.model, index);
        let job = &mut self.running[row.sequence].job;
        let chain = job.chain.push(job.tokens[row.position + 1], &digest);
        if row.position + 2 == job.tokens.len() {
            // Set once: the job resumes once.
            let _ = job.progress.resumed.set(chain);
        }
    }

    /// Chooses and delivers the token after `row`; returns the end of the job, if this is it.
    fn choose(&mut self, row: &Row, index_in_pass: usize) -> Option<JobEvent> {
        let job = &mut self.running[row.sequence].job;
        let spec = &job.request.spec;
        let index = (job.tokens.len() - spec.prompt_ids.len()) as u32;
        let logits = self.space.logits(index_in_pass);
        let position = Position { index, logits };
        let id = match job.chooser.choose(self.model, &job.request, &mut self.sampler, &position) {
            Err(error) => return Some(JobEvent::Failed(error)),
            Ok(None) => return Some(JobEvent::Failed(Error::NonFinite { position: row.position as u32 })),
            Ok(Some(id)) => id,
        };
        if job.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let logprobs = job
            .request
            .logprobs
            .and_then(|count| self.sampler.logprobs(self.model.numerics, logits, id, count));
        let activations = self.space.digest(self.model, index_in_pass);
        let chain = job.chain.push(id, &activations);
        job.tokens.push(id);
        self.shared.counters.output_tokens.fetch_add(1, Ordering::Relaxed);
        let token = TokenOut { index, id, chain, activations, logprobs };
        if job.events.send(JobEvent::Token(token)).is_err() {
            job.cancelled.store(true, Ordering::Relaxed);
        }
        let stopped = match job.chooser.push(self.model, id) {
            Err(error) => return Some(JobEvent::Failed(error)),
            Ok(stopped) => stopped || spec.is_stop(self.model, id),
        };
        let finish = match (stopped, index + 1 == spec.max_tokens) {
            (true, _) => Finish::Stop,
            (false, true) => Finish::Length,
            (false, false) => return None,
        };
        Some(JobEvent::Done { finish, chain_head: chain })
    }

    /// Names, shares and hashes the pages of a job that have become full.
    fn finish_pages(&mut self, index: usize) {
        let Running { job, pages_done, key } = &mut self.running[index];
        while (*pages_done + 1) * PAGE_POSITIONS <= job.stored {
            let next = page_key(key.as_ref(), &job.tokens, *pages_done);
            let root = kv_page_root(&job.cache, self.model.kv_shape(), *pages_done);
            job.progress.kv_roots.lock().unwrap_or_else(PoisonError::into_inner).push(root);
            if self.prefixes.is_on() {
                self.prefixes.keep(next, job.cache.share(*pages_done));
            }
            *key = Some(next);
            *pages_done += 1;
        }
        self.shared.counters.prefix_pages.store(self.prefixes.page_count(), Ordering::Relaxed);
    }
}
