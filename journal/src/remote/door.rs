//! The sequencer's side of `cmd.<shard>`: reads messages, hands their commands to the writer in order, answers. Each
//! connection has its own short queue and its turn, so that one busy gateway cannot starve another. Must not: answer from
//! a state that may not be the newest.

use super::message::{
    ANSWER_BYTES_MAX, Answer, AnswerBody, AnswerMessage, Asked, CommandMessage, Fault, MESSAGE_VERSION,
    Stands, Want, command_subject,
};
use crate::client::{LedgerClient, SubmitError};
use crate::lease::Lease;
use crate::pipeline::{Outcome, Placed, StopReason};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, join_all};
use ledger::command::Command;
use minicbor::bytes::ByteVec;
use protocol::codec::{decode, encode_event};
use protocol::event::Event;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Commands of all gateways that may be with the writer at once; the rest of its queue is for its own process.
pub const DOOR_COMMANDS_MAX: usize = 32_768;
/// Messages of one connection that may wait for their turn.
pub const DOOR_MESSAGES_MAX: usize = 16;
/// Connections that may have messages waiting.
const DOOR_CONNECTIONS_MAX: usize = 1_024;

/// What a door needs.
pub struct DoorOptions {
    /// The writer.
    pub ledger: LedgerClient,
    /// Of [`crate::auth::Role::Writer`]; better not the writer's own connection.
    pub client: async_nats::Client,
    /// Shard of the log.
    pub shard: u32,
    /// The writer's term.
    pub epoch: u64,
    /// The leader's lease; `None` where nobody else could lead.
    pub lease: Option<Lease>,
}

/// Serves until it is dropped.
pub struct CommandDoor {
    task: JoinHandle<()>,
}

impl CommandDoor {
    /// Subscribes (without a queue group: only the leader listens) and serves.
    pub async fn start(options: DoorOptions) -> Result<CommandDoor, async_nats::SubscribeError> {
        let messages = options.client.subscribe(command_subject(options.shard)).await?;
        // Listening before anybody is told that we lead; a broker that is away is noticed elsewhere.
        let _ = options.client.flush().await;
        let (done_tx, done) = mpsc::unbounded_channel();
        let door = Door { options, waiting: BTreeMap::new(), turns: VecDeque::new(), inside: 0, done_tx };
        Ok(CommandDoor { task: tokio::spawn(door.serve(messages, done)) })
    }
}

impl Drop for CommandDoor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message whose form is right, waiting for its turn.
struct Taken {
    reply: async_nats::Subject,
    message: CommandMessage,
}

struct Door {
    options: DoorOptions,
    /// By the asker's inbox.
    waiting: BTreeMap<String, VecDeque<Taken>>,
    /// Who has messages waiting, next first.
    turns: VecDeque<String>,
    /// Commands with the writer.
    inside: usize,
    done_tx: mpsc::UnboundedSender<usize>,
}

impl Door {
    async fn serve(mut self, mut messages: async_nats::Subscriber, mut done: mpsc::UnboundedReceiver<usize>) {
        let mut stopped = self.options.ledger.stopped();
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                Some(commands) = done.recv() => self.inside -= commands,
                () = until_stopped(&mut stopped) => return self.close(messages).await,
            }
            while self.inside < DOOR_COMMANDS_MAX
                && let Some(taken) = self.next_turn()
            {
                self.begin(taken);
            }
        }
    }

    /// Reads a message and puts it into its connection's queue, or says what is wrong with it.
    async fn take(&mut self, message: async_nats::Message) {
        // Nobody to answer: nothing that a gateway sends.
        let Some(reply) = message.reply else { return };
        let read = CommandMessage::read(&message.payload, self.options.shard);
        let reached = self.options.ledger.position().borrow().commit;
        let read = match read {
            Ok(read) if read.known_commit > reached => {
                let text =
                    format!("this sequencer is at commit {reached}, you know of {}", read.known_commit);
                Err((Fault::NotLeading, text))
            }
            other => other,
        };
        let sender = sender_of(&reply);
        let taken = match read {
            Ok(message) => match self.waiting.get(sender).map_or(0, VecDeque::len) {
                0 if self.waiting.len() >= DOOR_CONNECTIONS_MAX => {
                    Err((Fault::Overloaded, "too many connections wait".to_owned()))
                }
                0..DOOR_MESSAGES_MAX => Ok(message),
                waiting => Err((Fault::Overloaded, format!("{waiting} messages of this connection wait"))),
            },
            Err(fault) => Err(fault),
        };
        match taken {
            Ok(message) => {
                let queue = self.waiting.entry(sender.to_owned()).or_default();
                if queue.is_empty() {
                    self.turns.push_back(sender.to_owned());
                }
                queue.push_back(Taken { reply, message });
            }
            Err((fault, text)) => {
                let answer = answer(&self.options, AnswerBody::Fault { fault, text });
                let _ = self.options.client.publish(reply, answer.to_bytes().into()).await;
            }
        }
    }

    /// One message of the connection whose turn it is.
    fn next_turn(&mut self) -> Option<Taken> {
        let sender = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&sender)?;
        let taken = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&sender);
        } else {
            self.turns.push_back(sender);
        }
        taken
    }

    /// Hands the commands to the writer now, in order; the answer is made on another task.
    fn begin(&mut self, taken: Taken) {
        let count = taken.message.commands.len();
        self.inside += count;
        let serving = Serving {
            ledger: self.options.ledger.clone(),
            client: self.options.client.clone(),
            lease: self.options.lease.clone(),
            shard: self.options.shard,
            epoch: self.options.epoch,
        };
        let mut answering: BoxFuture<'static, ()> = serving.answer(taken).boxed();
        // The first look hands everything to the writer's queue: the order of messages is kept.
        let finished = (&mut answering).now_or_never().is_some();
        let done = self.done_tx.clone();
        if finished {
            let _ = done.send(count);
            return;
        }
        tokio::spawn(async move {
            answering.await;
            let _ = done.send(count);
        });
    }

    /// The writer stopped: whoever still asks here is sent to the next leader.
    async fn close(mut self, mut messages: async_nats::Subscriber) {
        let _ = messages.unsubscribe().await;
        while let Some(message) = messages.next().await {
            if let Some(reply) = message.reply {
                self.not_leading(reply).await;
            }
        }
        while let Some(taken) = self.next_turn() {
            self.not_leading(taken.reply).await;
        }
        // Answers of what was with the writer are on their way from their own tasks.
    }

    async fn not_leading(&self, reply: async_nats::Subject) {
        let text = "this sequencer has stopped".to_owned();
        let answer = answer(&self.options, AnswerBody::Fault { fault: Fault::NotLeading, text });
        let _ = self.options.client.publish(reply, answer.to_bytes().into()).await;
    }
}

fn answer(options: &DoorOptions, body: AnswerBody) -> AnswerMessage {
    let reached = (*options.ledger.position().borrow()).into();
    AnswerMessage { version: MESSAGE_VERSION, epoch: options.epoch, reached, body }
}

async fn until_stopped(stopped: &mut watch::Receiver<Option<StopReason>>) {
    let _ = stopped.wait_for(Option::is_some).await;
}

/// The asker's inbox: its reply subject without the last two tokens (message and copy).
fn sender_of(reply: &str) -> &str {
    let mut parts = reply.rsplitn(3, '.');
    let (_, _) = (parts.next(), parts.next());
    parts.next().unwrap_or(reply)
}

/// What one message's answer needs.
struct Serving {
    ledger: LedgerClient,
    client: async_nats::Client,
    lease: Option<Lease>,
    shard: u32,
    epoch: u64,
}

impl Serving {
    async fn answer(self, taken: Taken) {
        let Taken { reply, message } = taken;
        debug_assert_eq!(message.shard, self.shard);
        let events_wanted = message.commands.iter().any(|asked| asked.want == Want::Events);
        let commands: Vec<Result<Command, String>> = message
            .commands
            .iter()
            .map(|Asked { command, .. }| decode("command", command).map_err(|e| e.to_string()))
            .collect();
        let wants = message.commands.into_iter().map(|asked| asked.want);
        let body = if events_wanted || commands.iter().any(Result::is_err) {
            self.one_by_one(commands, wants.collect()).await
        } else {
            self.together(commands.into_iter().flatten().collect()).await
        };
        let leads = self.lease.as_ref().is_none_or(Lease::is_held);
        let body = if leads { body } else { without_lease(body) };
        let reached = (*self.ledger.position().borrow()).into();
        let answer = AnswerMessage { version: MESSAGE_VERSION, epoch: self.epoch, reached, body };
        let _ = self.client.publish(reply, answer.to_bytes().into()).await;
    }

    /// Places only: one hand-over for all.
    async fn together(&self, commands: Vec<Command>) -> AnswerBody {
        let count = commands.len();
        let fault = |fault, error: SubmitError| AnswerBody::Fault { fault, text: error.to_string() };
        match self.ledger.submit_many(commands).await {
            Ok(results) => {
                let mut answers = Answers::default();
                results.into_iter().for_each(|result| answers.push(result.map(|placed| (placed, None))));
                answers.into_body()
            }
            Err(error @ SubmitError::Overloaded) => fault(Fault::Overloaded, error),
            Err(error @ SubmitError::Stopped(_)) => fault(Fault::NotLeading, error),
            Err(error @ SubmitError::TooLarge(_)) => fault(Fault::TooLarge, error),
            Err(_) => AnswerBody::Answers { stands: Vec::new(), answers: vec![Answer::Unknown; count] },
        }
    }

    async fn one_by_one(&self, commands: Vec<Result<Command, String>>, wants: Vec<Want>) -> AnswerBody {
        let submitted = commands.into_iter().zip(wants).map(async |(command, want)| {
            let command = command.map_err(SubmitError::NotUnderstood)?;
            match want {
                Want::Place => Ok((self.ledger.submit_placed(command).await?, None)),
                Want::Events => {
                    let outcome = self.ledger.submit(command).await?;
                    Ok((placed_of(&outcome), Some(outcome.events)))
                }
            }
        });
        // The first look at each hands it over: the order is kept.
        let results = join_all(submitted).await;
        let mut answers = Answers::default();
        results.into_iter().for_each(|result| answers.push(result));
        answers.into_body()
    }
}

fn placed_of(outcome: &Outcome) -> Placed {
    let Outcome { commit, commit_hash, first_leaf, time_us, ref events, repeated } = *outcome;
    Placed { commit, commit_hash, first_leaf, count: events.len() as u32, time_us, repeated }
}

/// A refusal is only as good as the state behind it; what stands in the log stands there.
fn without_lease(body: AnswerBody) -> AnswerBody {
    let AnswerBody::Answers { stands, mut answers } = body else { return body };
    for answer in &mut answers {
        if matches!(answer, Answer::Refused { .. }) {
            *answer = Answer::Stopped("this sequencer's lease has lapsed".to_owned());
        }
    }
    AnswerBody::Answers { stands, answers }
}

/// Answers of one message, with the commits that they name.
#[derive(Default)]
struct Answers {
    stands: Vec<Stands>,
    answers: Vec<Answer>,
    events_bytes: usize,
}

impl Answers {
    fn push(&mut self, result: Result<(Placed, Option<Vec<Event>>), SubmitError>) {
        let answer = match result {
            Ok((placed, events)) => {
                let Placed { commit, commit_hash: hash, first_leaf, count, time_us, repeated } = placed;
                let stands = Stands { commit, hash, time_us };
                // Nearly always the last one; a message's commands stand in few commits.
                let at = self.stands.iter().rposition(|known| *known == stands).unwrap_or_else(|| {
                    self.stands.push(stands);
                    self.stands.len() - 1
                });
                let events = events.and_then(|events| self.encode_events(&events));
                Answer::Placed { stands: at as u32, first_leaf, count, repeated, events }
            }
            Err(SubmitError::Refused { refusal, at_leaf }) => Answer::Refused { at_leaf, refusal },
            Err(SubmitError::Overloaded) => Answer::Overloaded,
            Err(SubmitError::Unknown) => Answer::Unknown,
            Err(SubmitError::Stopped(reason)) => Answer::Stopped(reason),
            Err(SubmitError::TooLarge(reason)) => Answer::TooLarge(reason),
            Err(SubmitError::NotUnderstood(reason)) => Answer::NotUnderstood(reason),
            Err(SubmitError::Unreadable { commit, reason }) => Answer::Unreadable { commit, reason },
        };
        self.answers.push(answer);
    }

    /// `None` when there is no room: the asker reads them from the log.
    fn encode_events(&mut self, events: &[Event]) -> Option<Vec<ByteVec>> {
        let encoded: Result<Vec<ByteVec>, _> =
            events.iter().map(|event| encode_event(event).map(ByteVec::from)).collect();
        let encoded = encoded.ok()?;
        let bytes: usize = encoded.iter().map(|event| event.len() + 5).sum();
        if self.events_bytes + bytes > ANSWER_BYTES_MAX {
            return None;
        }
        self.events_bytes += bytes;
        Some(encoded)
    }

    fn into_body(self) -> AnswerBody {
        AnswerBody::Answers { stands: self.stands, answers: self.answers }
    }
}
