//! What goes into the pipeline and what comes out: requests, replies, positions, effects. Must not: behaviour.

use bytes::Bytes;
use ledger::command::Command;
use ledger::{Refusal, State};
use protocol::event::Event;
use protocol::event::policy::NetworkOpened;
use protocol::id::Hash32;
use std::any::Any;

/// How far the log is: acknowledged and in the archive tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Number of the last commit; 0 before the first.
    pub commit: u64,
    /// Number of leaves (events) up to and including it.
    pub leaf: u64,
    /// Its hash; zeros before the first.
    pub hash: Hash32,
    /// Its time, microseconds UTC.
    pub time_us: u64,
}

impl Default for Position {
    fn default() -> Self {
        Self { commit: 0, leaf: 0, hash: Hash32([0; 32]), time_us: 0 }
    }
}

impl Position {
    /// Where a state stands that was folded from whole commits.
    pub fn of(state: &State) -> Self {
        Self {
            commit: state.last_commit(),
            leaf: state.next_leaf(),
            hash: state.last_commit_hash(),
            time_us: state.last_time_us(),
        }
    }
}

/// What an accepted command became.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The commit that holds its events.
    pub commit: u64,
    /// That commit's hash.
    pub commit_hash: Hash32,
    /// Leaf of its first event.
    pub first_leaf: u64,
    /// The commit's time, microseconds UTC.
    pub time_us: u64,
    /// Its events; none when the command found nothing to do.
    pub events: Vec<Event>,
    /// The key was used before with this very command: these are the first outcome's events.
    pub repeated: bool,
}

/// Where an accepted command's events stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The commit that holds its events.
    pub commit: u64,
    /// That commit's hash.
    pub commit_hash: Hash32,
    /// Leaf of its first event.
    pub first_leaf: u64,
    /// How many events.
    pub count: u32,
    /// The commit's time, microseconds UTC.
    pub time_us: u64,
    /// The key was used before with this very command: this is where the first outcome stands.
    pub repeated: bool,
}

impl Placed {
    pub(super) fn new(position: &Position, first_leaf: u64, count: u32) -> Self {
        Self {
            commit: position.commit,
            commit_hash: position.hash,
            first_leaf,
            count,
            time_us: position.time_us,
            repeated: false,
        }
    }
}

/// What one command of a batch became.
#[derive(Clone, Debug)]
pub enum Each {
    /// Its events are committed.
    Placed(Placed),
    /// It was committed before.
    Repeated {
        /// By which commit.
        commit: u64,
        /// Its first leaf.
        first_leaf: u64,
        /// How many events.
        count: u32,
    },
    /// The ledger said no.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Number of leaves that it was decided on.
        at_leaf: u64,
    },
    /// No commit could carry it; nothing happened.
    TooLarge(String),
}

/// What a caller wants to know of its command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerWith {
    /// Its events.
    Events,
    /// Where they stand.
    Place,
}

/// A question to the state.
pub struct Query(Box<dyn FnOnce(&State) -> Answer + Send>);

impl Query {
    /// Asked once, on the writer's thread: short, and without waiting.
    pub fn new(f: impl FnOnce(&State) -> Answer + Send + 'static) -> Self {
        Self(Box::new(f))
    }

    pub(super) fn ask(self, state: &State) -> Answer {
        (self.0)(state)
    }
}

/// What a [`Query`] gave; only who asked knows its type.
pub struct Answer(pub Box<dyn Any + Send>);

/// Somebody asks for something.
pub enum Request<T> {
    /// A change.
    Command {
        /// Leaves again with the reply.
        ticket: T,
        /// What; boxed, so that the queue moves pointers.
        command: Box<Command>,
        /// What the reply tells.
        answer: AnswerWith,
    },
    /// Changes that are answered together, when the last of them is safe.
    Batch {
        /// Leaves again with the reply.
        ticket: T,
        /// In this order.
        commands: Vec<Command>,
    },
    /// A look.
    Read {
        /// Leaves again with the reply.
        ticket: T,
        /// The question.
        query: Query,
    },
}

impl<T> Request<T> {
    pub(super) fn into_ticket(self) -> T {
        match self {
            Request::Command { ticket, .. }
            | Request::Batch { ticket, .. }
            | Request::Read { ticket, .. } => ticket,
        }
    }

    /// Its share of the queue's length.
    pub(super) fn weight(&self) -> usize {
        match self {
            Request::Command { .. } | Request::Read { .. } => 1,
            Request::Batch { commands, .. } => commands.len(),
        }
    }
}

/// What the machine begins with.
pub struct Boot {
    /// Folded from the whole log.
    pub state: State,
    /// Fresh randomness: makes this term unlike any other.
    pub nonce: Hash32,
    /// Used when the log is empty.
    pub genesis: Option<NetworkOpened>,
}

/// What a publish came to.
#[derive(Clone, Debug)]
pub enum Published {
    /// Stored under this sequence.
    Stored {
        /// The stream's sequence.
        sequence: u64,
    },
    /// Refused, timed out, disconnected, or called a duplicate: it may stand in the log or not.
    Ambiguous {
        /// The client's words.
        reason: String,
    },
}

/// What a read of one sequence (from the stream's leader) came to.
#[derive(Clone, Debug)]
pub enum ReadBack {
    /// There is a message.
    Found(Bytes),
    /// There is none; `last_sequence` was read after that.
    Absent {
        /// The stream's last sequence.
        last_sequence: u64,
    },
    /// Nobody answered.
    Failed {
        /// The client's words.
        reason: String,
    },
}

/// Why the archive tail did not write a commit.
#[derive(Clone, Debug)]
pub enum TailRefusal {
    /// The disk would not; it will be asked again.
    Retry(String),
    /// The tail is not the one that this log belongs to.
    Broken(String),
}

/// What happens to the machine.
pub enum Input<T> {
    /// Begin a term; later ones are ignored.
    Boot(Box<Boot>),
    /// Requests that came together.
    Requests(Vec<Request<T>>),
    /// A publish ended.
    Published {
        /// Of [`Effect::Publish`].
        attempt: u64,
        /// How.
        result: Published,
    },
    /// A read ended.
    ReadBack {
        /// Of [`Effect::ReadBack`].
        attempt: u64,
        /// How.
        result: ReadBack,
    },
    /// The archive tail wrote a commit (and synced it, where that is asked), and so everything before it.
    TailWritten {
        /// The commit.
        number: u64,
        /// Or why not.
        result: Result<(), TailRefusal>,
    },
    /// Nothing else is to be done now: decide a part of what waits (see `Pipeline::may_prepare`).
    Prepare,
    /// The archive tail cannot say any more what is on its disk.
    TailLost {
        /// Its words.
        reason: String,
    },
    /// The watchdog read the stream at a position that was committed before it asked.
    Watched {
        /// That position.
        position: Position,
        /// What stands there.
        result: ReadBack,
    },
    /// A timer ran out.
    TimedOut {
        /// Of [`Effect::Timer`].
        timer: u64,
    },
    /// Finish what was accepted, then stop.
    Shutdown,
    /// Stop now.
    Abandon,
    /// Stop now: the books and the log differ, or something else that a watcher found.
    Stop(Box<StopReason>),
}

/// What is to be done, in this order.
pub enum Effect<T> {
    /// Publish with expected last sequence `position.commit - 1` and message id `position.hash`.
    Publish {
        /// Comes back in [`Input::Published`].
        attempt: u64,
        /// What the commit will be.
        position: Position,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Read one sequence from the stream's leader.
    ReadBack {
        /// Comes back in [`Input::ReadBack`].
        attempt: u64,
        /// Which.
        number: u64,
    },
    /// Append to the archive tail.
    TailAppend {
        /// What it is.
        position: Position,
        /// Its bytes.
        bytes: Bytes,
    },
    /// The commit is safe; followers may see it.
    Committed {
        /// What it is.
        position: Position,
        /// Leaf of its first event.
        first_leaf: u64,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Answer.
    Reply {
        /// Whom.
        ticket: T,
        /// What.
        reply: Reply,
    },
    /// Come back with [`Input::TimedOut`].
    Timer {
        /// Its id.
        timer: u64,
        /// Microseconds from now.
        after_us: u64,
    },
    /// This writer's term began.
    Led {
        /// The term.
        epoch: u64,
    },
    /// Tell the people who run this.
    Warn(String),
    /// The machine stopped and will answer nothing but that.
    Stop(StopReason),
}

/// The answer to a request.
pub enum Reply {
    /// Its events are committed.
    Done(Outcome),
    /// Its events are committed; where.
    Placed(Placed),
    /// Each command's own.
    Batch {
        /// In the batch's order.
        results: Vec<Each>,
        /// The commands come back, so that the caller's core frees their memory.
        spent: Vec<Command>,
    },
    /// It was committed before; the events are to be read back.
    Repeated {
        /// By which commit.
        commit: u64,
        /// Its first leaf.
        first_leaf: u64,
        /// How many events.
        count: u32,
    },
    /// The query's answer.
    Answer(Answer),
    /// The ledger said no.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Number of leaves that it was decided on.
        at_leaf: u64,
    },
    /// No commit could carry it; nothing happened.
    TooLarge(String),
    /// Too much waits; nothing happened.
    Overloaded,
    /// It may stand in the log or not; the same key can be asked again.
    Unknown,
    /// It did not happen, and this writer will do nothing more.
    Stopped(StopReason),
}

/// Why a writer stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// Somebody asked for it.
    #[error("the journal was shut down")]
    Closed,
    /// Somebody asked for it and would not wait.
    #[error("the journal was shut down before the log had answered")]
    Abandoned,
    /// Another writer's commit stands where ours should.
    #[error(
        "fenced: commit {number} in the stream is another writer's ({found}, ours was {ours}); another coordinator \
         serves this log: stop one of them, then start again"
    )]
    Fenced {
        /// Where.
        number: u64,
        /// What stands there.
        found: Hash32,
        /// What we sent.
        ours: Hash32,
    },
    /// The stream lost commits that it had acknowledged.
    #[error(
        "acknowledged data is missing: commit {acknowledged} was acknowledged, the stream now ends at {last}; do not \
         write to it: `counterfoil restore` rebuilds it from the archive"
    )]
    Missing {
        /// The last acknowledged commit.
        acknowledged: u64,
        /// The stream's last sequence.
        last: u64,
    },
    /// The stream holds other bytes than it acknowledged.
    #[error(
        "the stream was altered: commit {number} is {found}, acknowledged was {expected}; do not write to it: \
         `counterfoil restore` rebuilds it from the archive"
    )]
    Altered {
        /// Where.
        number: u64,
        /// What stands there now.
        found: Hash32,
        /// What was acknowledged.
        expected: Hash32,
    },
    /// The state that commands are decided on is not the one that the log gives.
    #[error(
        "the books and the log differ at leaf {leaf}, after commit {commit}: the writer's state is {writer}, the log gives \
         {log}; spending has stopped: keep the data directory as it is and follow the runbook's page \"books and log differ\""
    )]
    Diverged {
        /// The last whole commit in both.
        commit: u64,
        /// Leaves in both.
        leaf: u64,
        /// Hash of the writer's state.
        writer: Hash32,
        /// Hash of what the log gives.
        log: Hash32,
    },
    /// Something that must not happen.
    #[error("{0}")]
    Broken(String),
}
