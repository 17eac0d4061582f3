//! Puts commands that wait together into the next message, keeps a few messages in flight, matches answers. Asks again,
//! with the same bytes, when an answer may have been lost: the keys make that harmless. Must not: guess an outcome.
//!
//! Of a message that was sent more than once only the answer to the newest copy counts: an older copy's refusal may be
//! followed by a newer copy's success.

use super::message::{
    Answer, AnswerBody, AnswerMessage, Asked, CommandMessage, Fault, MESSAGE_COMMANDS_MAX, MESSAGE_VERSION,
    Stands, command_subject,
};
use crate::client::SubmitError;
use crate::lease::Heard;
use crate::pipeline::{Placed, Position};
use bytes::Bytes;
use futures::StreamExt;
use minicbor::bytes::ByteVec;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Messages on their way at once.
pub const MESSAGES_IN_FLIGHT_MAX: usize = 4;
/// While a message is on its way another one leaves only when so many commands wait: with fewer, sending would split
/// them over messages that wait for one and the same commit.
pub const COMMANDS_EAGER: usize = 512;
/// An answer that did not come in this time is asked for again; the time doubles with each copy.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Pause before asking again somebody who does not lead, or nobody.
const NOT_LEADING_PAUSE: Duration = Duration::from_millis(50);
/// How often connection and deadlines are looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(25);
/// Bytes of a message's commands.
const COMMANDS_BYTES_MAX: usize = super::COMMAND_BYTES_MAX + super::COMMAND_HEAD_BYTES;
/// Status of the message that says that nobody listens.
const STATUS_NO_RESPONDERS: u16 = 503;

/// Where the answers of a job go.
type Replies = oneshot::Sender<Vec<Result<Told, SubmitError>>>;

/// Commands that came together and are answered together; they fit one message.
pub(super) struct Job {
    pub(super) commands: Vec<Asked>,
    pub(super) bytes: usize,
    pub(super) reply: Replies,
}

/// What was told of a command that stands in the log.
pub(super) struct Told {
    pub(super) placed: Placed,
    pub(super) events: Option<Vec<ByteVec>>,
}

pub(super) struct BatcherOptions {
    pub(super) client: async_nats::Client,
    pub(super) shard: u32,
    pub(super) answer_wait: Duration,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) heard: watch::Receiver<Heard>,
    pub(super) told: watch::Sender<Position>,
}

/// See the module.
pub(super) struct Batcher {
    options: BatcherOptions,
    inbox: String,
    answers: async_nats::Subscriber,
    waiting: VecDeque<Job>,
    waiting_commands: usize,
    flights: BTreeMap<u64, Flight>,
    flight_ids: u64,
    epoch: u64,
    connects: u64,
}

/// A message on its way.
struct Flight {
    /// With how many commands each asked for.
    replies: Vec<(usize, Replies)>,
    count: usize,
    bytes: Bytes,
    deadline: Instant,
    /// Copies sent so far.
    copies: u32,
    again_at: Instant,
    /// Copies that somebody may have taken, for all that is known.
    perhaps_taken: u32,
}

impl Batcher {
    pub(super) async fn start(options: BatcherOptions) -> Result<JoinHandle<()>, String> {
        let inbox = options.client.new_inbox();
        let answers = options.client.subscribe(format!("{inbox}.>")).await.map_err(|e| e.to_string())?;
        let connects = options.client.statistics().connects.load(Ordering::Relaxed);
        let batcher = Batcher {
            options,
            inbox,
            answers,
            waiting: VecDeque::new(),
            waiting_commands: 0,
            flights: BTreeMap::new(),
            flight_ids: 0,
            epoch: 0,
            connects,
        };
        Ok(tokio::spawn(batcher.run()))
    }

    async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                job = self.options.jobs.recv() => match job {
                    Some(job) => self.wait(job),
                    None => return,
                },
                message = self.answers.next() => match message {
                    Some(message) => self.answered(&message),
                    None => return,
                },
                changed = self.options.heard.changed() => match changed {
                    Ok(()) => self.heard(),
                    Err(_) => return,
                },
                _ = look.tick() => self.look(),
            }
            while let Ok(job) = self.options.jobs.try_recv() {
                self.wait(job);
            }
            self.send_waiting().await;
            self.send_again().await;
        }
    }

    fn wait(&mut self, job: Job) {
        self.waiting_commands += job.commands.len();
        self.waiting.push_back(job);
    }

    /// One message at once when none is on its way; more only when a good many commands wait.
    async fn send_waiting(&mut self) {
        while !self.waiting.is_empty()
            && self.flights.len() < MESSAGES_IN_FLIGHT_MAX
            && (self.flights.is_empty() || self.waiting_commands >= COMMANDS_EAGER)
        {
            let mut commands = Vec::new();
            let (mut replies, mut bytes) = (Vec::new(), 0);
            while let Some(job) = self.waiting.front() {
                let fits = commands.len() + job.commands.len() <= MESSAGE_COMMANDS_MAX
                    && bytes + job.bytes <= COMMANDS_BYTES_MAX;
                if !fits && !commands.is_empty() {
                    break;
                }
                let Some(job) = self.waiting.pop_front() else { break };
                bytes += job.bytes;
                replies.push((job.commands.len(), job.reply));
                commands.extend(job.commands);
            }
            self.waiting_commands -= commands.len();
            let count = commands.len();
            let known_commit = self.options.told.borrow().commit;
            let message = CommandMessage {
                version: MESSAGE_VERSION,
                shard: self.options.shard,
                known_commit,
                commands,
            };
            let now = Instant::now();
            let flight = Flight {
                replies,
                count,
                bytes: message.to_bytes().into(),
                deadline: now + self.options.answer_wait,
                copies: 0,
                again_at: now,
                perhaps_taken: 0,
            };
            self.flight_ids += 1;
            self.flights.insert(self.flight_ids, flight);
            self.send(self.flight_ids).await;
        }
    }

    async fn send(&mut self, id: u64) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        flight.copies += 1;
        flight.again_at = Instant::now() + ASK_AGAIN * flight.copies.min(8);
        flight.perhaps_taken += 1;
        let subject = command_subject(self.options.shard);
        let reply = format!("{}.{id}.{}", self.inbox, flight.copies);
        // Without a connection it waits in the client, or is lost with it: then we ask again.
        let _ = self.options.client.publish_with_reply(subject, reply, flight.bytes.clone()).await;
    }

    async fn send_again(&mut self) {
        let now = Instant::now();
        let due: Vec<u64> =
            self.flights.iter().filter(|(_, flight)| flight.again_at <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.send(id).await;
        }
    }

    /// A new term: what the old writer had not answered it may never answer.
    fn heard(&mut self) {
        let beat = self.options.heard.borrow_and_update().beat;
        if let Some(beat) = beat
            && beat.epoch > self.epoch
        {
            let first = self.epoch == 0;
            self.epoch = beat.epoch;
            if !first {
                self.ask_all_again();
            }
        }
    }

    fn ask_all_again(&mut self) {
        let now = Instant::now();
        self.flights.values_mut().for_each(|flight| flight.again_at = now);
    }

    /// A connection that was lost took messages and answers with it; what waited too long is unknown.
    fn look(&mut self) {
        let connects = self.options.client.statistics().connects.load(Ordering::Relaxed);
        if connects != self.connects {
            self.connects = connects;
            self.ask_all_again();
        }
        let now = Instant::now();
        let late: Vec<u64> =
            self.flights.iter().filter(|(_, flight)| flight.deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            let Some(flight) = self.flights.remove(&id) else { continue };
            let taken = flight.perhaps_taken > 0;
            flight.fail(|| match taken {
                true => SubmitError::Unknown,
                false => SubmitError::Stopped("nobody serves the ledger; nothing happened".to_owned()),
            });
        }
    }

    fn answered(&mut self, message: &async_nats::Message) {
        let Some((id, copy)) = self.token(&message.subject) else { return };
        let Some(flight) = self.flights.get_mut(&id) else { return };
        // See the module: of several copies the newest one's answer counts.
        if copy != flight.copies {
            return;
        }
        if message.status.is_some_and(|status| status.as_u16() == STATUS_NO_RESPONDERS) {
            return flight.not_taken();
        }
        let answer = match AnswerMessage::read(&message.payload, flight.count) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(target: "journal", %error, "an answer that this gateway cannot read; are both of one version?");
                return self.fail(id, || SubmitError::Unknown);
            }
        };
        if answer.epoch < self.epoch {
            // A writer that was replaced and does not know it yet: the one that leads answers too.
            return;
        }
        self.epoch = answer.epoch;
        self.take(id, answer);
    }

    fn take(&mut self, id: u64, answer: AnswerMessage) {
        let reached = Position::from(answer.reached);
        match answer.body {
            AnswerBody::Answers { stands, answers } => {
                // The writer is about to stop: whoever comes after it knows, or does it.
                if answers.iter().any(|answer| matches!(answer, Answer::Stopped(_) | Answer::Unknown)) {
                    return self.pause(id);
                }
                self.options.told.send_if_modified(|told| {
                    let newer = reached.commit > told.commit;
                    if newer {
                        *told = reached;
                    }
                    newer
                });
                if let Some(flight) = self.flights.remove(&id) {
                    flight.finish(&stands, answers);
                }
            }
            AnswerBody::Fault { fault: Fault::NotLeading, .. } => {
                self.flights.get_mut(&id).into_iter().for_each(Flight::not_taken);
            }
            AnswerBody::Fault { fault: Fault::Overloaded, .. } => {
                // An earlier copy may have been taken.
                let certain = self.flights.get(&id).is_some_and(|flight| flight.perhaps_taken == 1);
                self.fail(id, || if certain { SubmitError::Overloaded } else { SubmitError::Unknown });
            }
            AnswerBody::Fault {
                fault: Fault::Version | Fault::Shard | Fault::Malformed | Fault::TooLarge,
                text,
            } => self.fail(id, || SubmitError::NotUnderstood(text.clone())),
        }
    }

    fn pause(&mut self, id: u64) {
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.again_at = Instant::now() + NOT_LEADING_PAUSE;
        }
    }

    fn fail(&mut self, id: u64, error: impl Fn() -> SubmitError) {
        if let Some(flight) = self.flights.remove(&id) {
            flight.fail(error);
        }
    }

    /// Flight and copy from `<inbox>.<flight>.<copy>`.
    fn token(&self, subject: &str) -> Option<(u64, u32)> {
        let (id, copy) = subject.strip_prefix(&self.inbox)?.strip_prefix('.')?.split_once('.')?;
        Some((id.parse().ok()?, copy.parse().ok()?))
    }
}

impl Flight {
    /// Nobody took the newest copy.
    fn not_taken(&mut self) {
        self.perhaps_taken = self.perhaps_taken.saturating_sub(1);
        self.again_at = Instant::now() + NOT_LEADING_PAUSE;
    }

    fn finish(self, stands: &[Stands], answers: Vec<Answer>) {
        let mut answers = answers.into_iter().map(|answer| told(stands, answer));
        for (count, reply) in self.replies {
            // Who asked may have gone.
            let _ = reply.send(answers.by_ref().take(count).collect());
        }
    }

    fn fail(self, error: impl Fn() -> SubmitError) {
        for (count, reply) in self.replies {
            let _ = reply.send((0..count).map(|_| Err(error())).collect());
        }
    }
}

fn told(stands: &[Stands], answer: Answer) -> Result<Told, SubmitError> {
    match answer {
        Answer::Placed { stands: at, first_leaf, count, repeated, events } => {
            // The message was read with this checked.
            let Some(Stands { commit, hash, time_us }) = stands.get(at as usize).copied() else {
                return Err(SubmitError::Unknown);
            };
            let placed = Placed { commit, commit_hash: hash, first_leaf, count, time_us, repeated };
            Ok(Told { placed, events })
        }
        Answer::Refused { at_leaf, refusal } => Err(SubmitError::Refused { refusal, at_leaf }),
        Answer::Overloaded => Err(SubmitError::Overloaded),
        Answer::Unknown => Err(SubmitError::Unknown),
        Answer::Stopped(reason) => Err(SubmitError::Stopped(reason)),
        Answer::TooLarge(reason) => Err(SubmitError::TooLarge(reason)),
        Answer::Unreadable { commit, reason } => Err(SubmitError::Unreadable { commit, reason }),
        Answer::NotUnderstood(reason) => Err(SubmitError::NotUnderstood(reason)),
    }
}
