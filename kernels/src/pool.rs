//! A fixed set of threads that run the parts of one task after another. The caller works too. Parts are claimed one by one, so
//! a slow thread delays nobody; which thread runs a part never changes a result. No queues, no numerics.

use crate::error::Error;
use crate::numerics::check_float_environment;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// Rounds of looking for work before a thread sleeps: some tens of microseconds, the gap between two sections of a token.
const SPIN_ROUNDS: u32 = 4_000;
/// Threads of one pool.
const THREADS_MAX: usize = 256;

/// Persistent threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(Arc<AtomicBool>, JoinHandle<()>)>,
}

/// The part function of the task that runs now, behind one thin pointer.
struct Task<'a>(&'a (dyn Fn(usize) + Sync));

struct Shared {
    /// The current task: epoch (32 bits), number of parts (16), next part (16). Claiming a part is one compare-exchange, which
    /// also proves that `task` still belongs to the epoch that was read.
    state: AtomicU64,
    /// Points to a `Task` on the caller's stack, alive until all its parts are done.
    task: AtomicPtr<()>,
    parts_done: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// The most parts of one task.
pub(crate) const PARTS_MAX: usize = u16::MAX as usize;

impl Pool {
    /// A pool of `threads` threads in all, the caller's included.
    ///
    /// # Errors
    /// [`Error::InvalidJob`] for no or too many threads; [`Error::FloatEnvironment`].
    pub(crate) fn new(threads: usize) -> Result<Pool, Error> {
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(Error::InvalidJob {
                what: format!("{threads} threads; expected 1 to {THREADS_MAX}"),
            });
        }
        check_float_environment()?;
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            task: AtomicPtr::new(std::ptr::null_mut()),
            parts_done: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let worker = |index: usize| {
            let asleep = Arc::new(AtomicBool::new(false));
            let (shared, flag) = (Arc::clone(&shared), Arc::clone(&asleep));
            let handle =
                thread::Builder::new().name(format!("kernels-{index}")).spawn(move || shared.work(&flag));
            handle
                .map(|handle| (asleep, handle))
                .map_err(|e| Error::InvalidJob { what: format!("cannot start a thread: {e}") })
        };
        let workers = (1..threads).map(worker).collect::<Result<Vec<_>, _>>()?;
        Ok(Pool { shared, workers })
    }

    /// Threads, the caller's included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `part(0) .. part(parts - 1)`, each once, on any thread; returns when all have returned.
    pub(crate) fn run(&self, parts: usize, part: impl Fn(usize) + Sync) {
        assert!(parts <= PARTS_MAX, "{parts} parts, at most {PARTS_MAX}");
        if self.workers.is_empty() || parts <= 1 {
            (0..parts).for_each(part);
            return;
        }
        let shared = &*self.shared;
        let task = Task(&part);
        shared.parts_done.store(0, Ordering::Relaxed);
        shared.task.store((&raw const task).cast_mut().cast(), Ordering::Relaxed);
        let epoch = (shared.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        shared.state.store(epoch << 32 | (parts as u64) << 16, Ordering::SeqCst);
        for (asleep, handle) in self.workers.iter().take(parts - 1) {
            if asleep.swap(false, Ordering::SeqCst) {
                handle.thread().unpark();
            }
        }
        while shared.claim_and_run() {}
        let mut rounds = 0u32;
        while shared.parts_done.load(Ordering::Acquire) != parts {
            rounds += 1;
            if rounds.is_multiple_of(SPIN_ROUNDS) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        assert!(!shared.panicked.load(Ordering::Relaxed), "a part of a task panicked on another thread");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (_, handle) in self.workers.drain(..) {
            handle.thread().unpark();
            // A panic was reported by `run` already.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// The loop of a worker thread.
    fn work(&self, asleep: &AtomicBool) {
        if check_float_environment().is_err() {
            self.panicked.store(true, Ordering::SeqCst);
        }
        let mut rounds = 0;
        while !self.stop.load(Ordering::SeqCst) {
            if self.claim_and_run() {
                rounds = 0;
            } else if rounds < SPIN_ROUNDS {
                rounds += 1;
                std::hint::spin_loop();
            } else {
                asleep.store(true, Ordering::SeqCst);
                // Work or a stop published before the flag was seen must be noticed here, later ones will unpark us.
                if !self.has_work() && !self.stop.load(Ordering::SeqCst) {
                    thread::park();
                }
                asleep.store(false, Ordering::SeqCst);
                rounds = 0;
            }
        }
    }

    fn has_work(&self) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        state & 0xffff < state >> 16 & 0xffff
    }

    /// Runs one unclaimed part of the current task; false if there is none.
    fn claim_and_run(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        let (next, parts) = (state & 0xffff, state >> 16 & 0xffff);
        if next >= parts {
            return false;
        }
        let task = self.task.load(Ordering::Relaxed).cast::<Task<'_>>();
        if self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return true;
        }
        // SAFETY: the exchange succeeded, so a part of this epoch was unclaimed while `task` was read; `run` publishes a task
        // before its epoch and returns only when every claimed part is done, so the pointer is this epoch's and alive.
        let task = unsafe { &*task };
        if catch_unwind(AssertUnwindSafe(|| (task.0)(next as usize))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.parts_done.fetch_add(1, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for parts in [0, 1, 2, 3, 64, 1000] {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..50 {
                    pool.run(parts, |i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(
                    counts.iter().all(|c| c.load(Ordering::Relaxed) == 50),
                    "{threads} threads, {parts} parts"
                );
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_no_thread_hangs() {
        let pool = Pool::new(3).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(8, |i| assert!(i != 5, "on purpose"))));
        assert!(outcome.is_err());
    }
}
