//! Follows the committed log so that each step of the story can name the event behind it.

use anyhow::{Context, Result};
use futures::StreamExt;
use journal::{Journal, Until};
use protocol::event::{Event, EventBody};
use std::time::Duration;
use tokio::sync::watch;

/// How long a step may wait for its event.
const EVENT_WAIT: Duration = Duration::from_secs(60);

/// The events since a point, as they are committed.
pub struct EventLog {
    events: watch::Receiver<Vec<Event>>,
    task: tokio::task::JoinHandle<()>,
}

impl EventLog {
    /// Follows from the first commit of the log.
    pub fn follow(journal: &Journal) -> EventLog {
        let mut commits = journal.reader().from_commit(1, Until::Forever);
        let (sender, events) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            while let Some(Ok(commit)) = commits.next().await {
                sender.send_modify(|events| events.extend(commit.events));
            }
        });
        EventLog { events, task }
    }

    /// The newest event that `pick` takes something from; waits until there is one.
    pub async fn find<T>(&self, what: &str, pick: impl Fn(&EventBody) -> Option<T>) -> Result<(Event, T)> {
        let mut events = self.events.clone();
        let found = |events: &[Event]| {
            events.iter().rev().find_map(|event| Some((event.clone(), pick(&event.body)?)))
        };
        let search = async {
            loop {
                if let Some(found) = found(&events.borrow_and_update()) {
                    return Ok(found);
                }
                events.changed().await.context("the log ended")?;
            }
        };
        let waited = tokio::time::timeout(EVENT_WAIT, search).await;
        waited.with_context(|| format!("{what}: no such event in the log"))?
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}
