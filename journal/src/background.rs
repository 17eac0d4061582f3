//! Threads that step back: the scheduler's idle class, so that whatever follows the log never holds up the log. Must not:
//! hold a lock that the writer needs for longer than a moment.

use std::future::Future;
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::oneshot;

/// Puts this thread into the scheduler's idle class: whatever else wants the core has it at once. The lowest priority of the
/// usual class would not do: it keeps the core for its slice of milliseconds, and the log's answers wait behind it.
pub(crate) fn step_back() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        tracing::warn!(target: "journal", "the thread {name} runs at full priority: {error}");
    }
}

/// Work on a background thread. Dropping this ends it at its next wait.
#[derive(Debug)]
pub struct Background {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Background {
    /// Runs `work` on a runtime of its own, on a thread of the idle class. Connections that it opens live there too.
    pub fn start<F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> std::io::Result<Background>
    where
        F: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            step_back();
            runtime.block_on(async move {
                tokio::select! {
                    () = work() => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Background { stop, thread })
    }

    /// Ends it and waits until its thread is gone.
    pub async fn end(self) {
        let Background { stop, thread } = self;
        drop(stop);
        // A panic stands in the log output already.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}
