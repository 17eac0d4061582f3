//! The door to the ledger inside the writer's process: submit a command, look at the state, follow the position.
//! Must not: decide anything.

mod door;

pub use door::LedgerClient;

use crate::pipeline::{
    Answer, AnswerWith, Each, Input, Outcome, Placed, Position, Query, Reply, Request, StopReason,
};
use crate::reader::CommittedCommit;
use crate::tail::TailIndex;
use crate::writer::{Gate, Message, Ticket};
use ledger::command::Command;
use ledger::{Refusal, State};
use protocol::commit::Commit;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};

/// How long an answer may take before the caller is told that it is unknown. The command is not withdrawn.
pub const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Why a command was not (or is not known to be) carried out.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The ledger said no. It may say yes later: refusals are not remembered.
    #[error("refused: {refusal}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// Number of leaves of the log that it was decided on.
        at_leaf: u64,
    },
    /// Too much waits; nothing happened.
    #[error("too much waits for the log; nothing happened: try again in a moment")]
    Overloaded,
    /// The log did not answer in time, or the writer stopped before it did.
    #[error("not known whether this was committed; ask again with the same key: it will not happen twice")]
    Unknown,
    /// The writer stopped, and with it this coordinator's right to answer. Nothing happened.
    #[error("the ledger's writer has stopped: {0}")]
    Stopped(String),
    /// No commit could carry it; nothing happened.
    #[error("too large for one commit: {0}")]
    TooLarge(String),
    /// Gateway and sequencer do not speak the same language; nothing happened.
    #[error("the sequencer did not understand: {0}; gateways and sequencer must be of one version")]
    NotUnderstood(String),
    /// It was committed before, and its outcome could not be read back.
    #[error("committed before as commit {commit}, but its outcome cannot be read back: {reason}")]
    Unreadable {
        /// Where it stands.
        commit: u64,
        /// Why.
        reason: String,
    },
}

/// A client of the writer in this process. Cheap to clone.
#[derive(Clone)]
pub struct LocalLedger {
    pub(crate) queue: UnboundedSender<Message>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) position: watch::Receiver<Position>,
    pub(crate) stopped: watch::Receiver<Option<StopReason>>,
    pub(crate) tail: Arc<TailIndex>,
}

impl LocalLedger {
    /// Hands a command to the writer; returns once its events are committed and stand in the archive tail.
    pub async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        let answer = AnswerWith::Events;
        match self.ask(1, |ticket| Request::Command { ticket, command: Box::new(command), answer }).await? {
            Reply::Done(outcome) => Ok(outcome),
            Reply::Repeated { commit, first_leaf, count } => self.read_back(commit, first_leaf, count).await,
            other => Err(refused(other)),
        }
    }

    /// [`LocalLedger::submit`] that tells where the events stand, not what they are: cheaper.
    pub async fn submit_placed(&self, command: Command) -> Result<Placed, SubmitError> {
        let answer = AnswerWith::Place;
        match self.ask(1, |ticket| Request::Command { ticket, command: Box::new(command), answer }).await? {
            Reply::Placed(placed) => Ok(placed),
            Reply::Repeated { commit, first_leaf, count } => {
                let mut results = vec![Err(SubmitError::Unknown)];
                self.find_places(&mut results, vec![(0, commit, first_leaf, count)]).await;
                results.remove(0)
            }
            other => Err(refused(other)),
        }
    }

    /// Hands commands to the writer as one message. They are decided in this order, each for itself, and may spread over
    /// several commits; returns each one's own result once the last is safe. `Overloaded`: none of them happened.
    /// `Unknown`: some may have; ask again with the same keys.
    pub async fn submit_many(
        &self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<Placed, SubmitError>>, SubmitError> {
        let (count, count_max) = (commands.len(), self.gate.inside_max());
        if count == 0 {
            return Ok(Vec::new());
        }
        if count > count_max {
            let why = format!("a batch of {count} commands; the queue takes {count_max}: send less at once");
            return Err(SubmitError::TooLarge(why));
        }
        let results = match self.ask(count, |ticket| Request::Batch { ticket, commands }).await? {
            Reply::Batch { results, .. } => results,
            other => return Err(refused(other)),
        };
        let mut repeated = Vec::new();
        let each = results.into_iter().enumerate().map(|(k, each)| match each {
            Each::Placed(placed) => Ok(placed),
            Each::Refused { refusal, at_leaf } => Err(SubmitError::Refused { refusal, at_leaf }),
            Each::TooLarge(why) => Err(SubmitError::TooLarge(why)),
            Each::Repeated { commit, first_leaf, count } => {
                repeated.push((k, commit, first_leaf, count));
                Err(SubmitError::Unknown)
            }
        });
        let mut results: Vec<_> = each.collect();
        self.find_places(&mut results, repeated).await;
        Ok(results)
    }

    /// Hash and time of commits that repeated commands stand in, from the archive tail.
    async fn find_places(
        &self,
        results: &mut [Result<Placed, SubmitError>],
        repeated: Vec<(usize, u64, u64, u32)>,
    ) {
        if repeated.is_empty() {
            return;
        }
        let tail = self.tail.clone();
        let commits: BTreeSet<u64> = repeated.iter().map(|(_, commit, ..)| *commit).collect();
        let read = move || -> BTreeMap<u64, Result<Position, String>> {
            let position = |commit| match tail.position_of(commit) {
                Ok(position) if position.commit == commit => Ok(position),
                Ok(_) => Err("the archive tail does not reach that far".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            commits.into_iter().map(|commit| (commit, position(commit))).collect()
        };
        let positions = tokio::task::spawn_blocking(read).await;
        for (k, commit, first_leaf, count) in repeated {
            let position = match &positions {
                Ok(positions) => positions[&commit].clone(),
                Err(error) => Err(error.to_string()),
            };
            results[k] = match position {
                Ok(Position { hash: commit_hash, time_us, .. }) => {
                    Ok(Placed { commit, commit_hash, first_leaf, count, time_us, repeated: true })
                }
                Err(reason) => Err(SubmitError::Unreadable { commit, reason }),
            };
        }
    }

    /// Asks the newest state, on the writer's thread: short, without waiting. The answer leaves after the commit that this
    /// state depends on, so it never tells of what did not happen.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, SubmitError> {
        // A question that panics must not take the writer down.
        let query = Query::new(move |state| Answer(Box::new(catch_unwind(AssertUnwindSafe(|| f(state))))));
        match self.ask(1, |ticket| Request::Read { ticket, query }).await? {
            Reply::Answer(Answer(answer)) => match answer.downcast::<std::thread::Result<T>>() {
                Ok(answer) => Ok(answer.unwrap_or_else(|panic| resume_unwind(panic))),
                Err(_) => unreachable!("the answer to a query is what the query returned"),
            },
            other => Err(refused(other)),
        }
    }

    /// The committed position: acknowledged by the log and in the archive tail.
    pub fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    /// Why the writer stopped, once it has.
    pub fn stopped(&self) -> watch::Receiver<Option<StopReason>> {
        self.stopped.clone()
    }

    /// Stops the writer now: another one's term began.
    pub(crate) fn abandon(&self) {
        // A writer that has ended hears nothing, and need not.
        let _ = self.queue.send(Message::Input(Input::Abandon));
    }

    /// Stops the writer now, for this reason.
    pub(crate) fn stop_for(&self, reason: StopReason) {
        let _ = self.queue.send(Message::Input(Input::Stop(Box::new(reason))));
    }

    async fn ask(
        &self,
        count: usize,
        request: impl FnOnce(Ticket) -> Request<Ticket>,
    ) -> Result<Reply, SubmitError> {
        let Some(pass) = self.gate.enter(count) else { return Err(SubmitError::Overloaded) };
        let (reply, answer) = oneshot::channel();
        let request = request(Ticket { reply, _pass: pass });
        if self.queue.send(Message::Request(request)).is_err() {
            return Err(self.stopped_error());
        }
        match tokio::time::timeout(ANSWER_WAIT, answer).await {
            Ok(Ok(reply)) => Ok(reply),
            // The writer ended before it looked at the request: what it looked at it answers.
            Ok(Err(_)) => Err(self.stopped_error()),
            Err(_) => Err(SubmitError::Unknown),
        }
    }

    fn stopped_error(&self) -> SubmitError {
        let reason = self.stopped.borrow().clone();
        match reason {
            Some(reason) => SubmitError::Stopped(reason.to_string()),
            // Only a panic ends the writer's thread without a word; then nobody knows.
            None => SubmitError::Unknown,
        }
    }

    /// The first outcome of a repeated command, from the archive tail.
    async fn read_back(&self, commit: u64, first_leaf: u64, count: u32) -> Result<Outcome, SubmitError> {
        let tail = self.tail.clone();
        let read = tokio::task::spawn_blocking(move || read_outcome(&tail, commit, first_leaf, count)).await;
        let read = read.unwrap_or_else(|e| Err(e.to_string()));
        read.map_err(|reason| SubmitError::Unreadable { commit, reason })
    }
}

fn read_outcome(tail: &TailIndex, commit: u64, first_leaf: u64, count: u32) -> Result<Outcome, String> {
    let bytes = tail.read(commit).map_err(|e| e.to_string())?;
    let bytes = bytes.ok_or("the archive tail does not reach that far")?;
    let CommittedCommit { hash, commit: Commit { time_us, first_leaf: begin, .. }, events, .. } =
        CommittedCommit::decode(commit, bytes).map_err(|e| e.to_string())?;
    let skip = first_leaf.checked_sub(begin).and_then(|skip| usize::try_from(skip).ok());
    let skip = skip.ok_or("the commit begins after the command's first leaf")?;
    let events: Vec<_> = events.into_iter().skip(skip).take(count as usize).collect();
    if events.len() != count as usize {
        return Err(format!("the commit holds {} of the command's {count} events", events.len()));
    }
    Ok(Outcome { commit, commit_hash: hash, first_leaf, time_us, events, repeated: true })
}

fn refused(reply: Reply) -> SubmitError {
    match reply {
        Reply::Refused { refusal, at_leaf } => SubmitError::Refused { refusal, at_leaf },
        Reply::Overloaded => SubmitError::Overloaded,
        Reply::Unknown => SubmitError::Unknown,
        Reply::Stopped(reason) => SubmitError::Stopped(reason.to_string()),
        Reply::TooLarge(reason) => SubmitError::TooLarge(reason),
        Reply::Done(_)
        | Reply::Placed(_)
        | Reply::Batch { .. }
        | Reply::Repeated { .. }
        | Reply::Answer(_) => {
            unreachable!("a command gets a command's reply, a read a read's")
        }
    }
}
