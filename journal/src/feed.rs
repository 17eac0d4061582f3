//! FEED: every committed event as one message for anybody's NATS client, and a redacted copy for the operator it concerns.
//! Derived from the log, off the commit path, taken up where its own last message stands; deleting it loses nothing.
//! Must not: decide what anybody may see (`protocol::feed` does), or run ahead of the committed position.

use crate::auth::AuthError;
use crate::background::Background;
use crate::pipeline::Position;
use crate::reader::{ArchiveFollower, CommittedCommit, ReadError, Reader, Until};
use crate::stream::FEED_STREAM;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{ContextBuilder, PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesOrdered};
use protocol::event::Event;
use protocol::feed;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

/// Messages on their way at once. Each names the sequence it must follow, so that a failure cannot leave a hole.
pub const MESSAGES_IN_FLIGHT_MAX: usize = 512;
/// The header that says which leaf a message is.
const LEAF_HEADER: &str = "x-counterfoil-leaf";
/// How long the broker may take to acknowledge before FEED is taken up again.
const ACK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Least time between two tries to take FEED up after the broker failed.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// While the log grows faster than FEED, FEED rests after so many messages as long as they took: the broker has one of its
/// two halves of the time for the log alone.
const PACE_MESSAGES: u64 = 512;

/// Committed commits in order, as a [`Reader`] gives them.
pub type CommitStream = BoxStream<'static, Result<CommittedCommit, ReadError>>;

/// Why FEED stopped.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// Reading the log.
    #[error("FEED cannot go on: {0}")]
    Read(#[from] ReadError),
    /// The broker did not take a message, or did not answer. Retried.
    #[error("FEED at leaf {leaf}: {reason}")]
    Unavailable {
        /// The next leaf to publish.
        leaf: u64,
        /// The client's words.
        reason: String,
    },
    /// The last message of FEED is none of ours.
    #[error(
        "FEED message {sequence} has no {LEAF_HEADER} header; somebody else published to feed.>: remove the stream, it is built again from the log"
    )]
    Foreign {
        /// Its stream sequence.
        sequence: u64,
    },
    /// The log was handed over with a hole.
    #[error("FEED expected leaf {expected}, came {came}")]
    Gap {
        /// The next leaf to publish.
        expected: u64,
        /// What came.
        came: u64,
    },
}

/// How to publish.
#[derive(Clone, Debug)]
pub struct FeedOptions {
    /// A client of [`crate::auth::Role::Projector`].
    pub client: async_nats::Client,
    /// Origin of the log, for the CloudEvents source.
    pub origin: String,
    /// Where the log stands, when FEED is to leave the broker to it while it is busy.
    pub head: Option<watch::Receiver<Position>>,
}

/// Where FEED stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Resume {
    /// The next leaf to publish.
    leaf: u64,
    /// Whether that leaf's operator copy is there already.
    operator_copy: bool,
    /// Last sequence of the stream.
    sequence: u64,
}

/// Publishes FEED.
#[derive(Debug)]
pub struct FeedPublisher {
    context: Context,
    origin: String,
    head: Option<watch::Receiver<Position>>,
    published: watch::Sender<u64>,
}

/// FEED on a background thread of its own. Dropping it ends that.
#[derive(Debug)]
pub struct FeedThread {
    /// The next leaf to publish: everything below is acknowledged.
    pub position: watch::Receiver<u64>,
    /// Where it runs.
    pub thread: Background,
}

/// Publishes FEED from a journal's archive, from where FEED stands, on a thread that steps back for the log. `connect` gives
/// a client of [`crate::auth::Role::Projector`]; it is called on that thread, so that the connection lives there too.
pub async fn spawn<F>(
    origin: String,
    connect: impl FnOnce() -> F + Send + 'static,
    follower: ArchiveFollower,
) -> Result<FeedThread, FeedError>
where
    F: Future<Output = Result<async_nats::Client, AuthError>>,
{
    let unavailable = |reason: String| FeedError::Unavailable { leaf: 0, reason };
    let (report, reported) = oneshot::channel();
    let work = move || async move {
        let publisher = match connect().await {
            Ok(client) => {
                FeedPublisher::new(FeedOptions { client, origin, head: Some(follower.position.clone()) })
            }
            // Who asked waits.
            Err(error) => return drop(report.send(Err(error.to_string()))),
        };
        let _ = report.send(Ok(publisher.position()));
        if let Err(error) = publisher.run(|leaf| follower.from_leaf(leaf)).await {
            tracing::error!(target: "journal", %error, "FEED does not follow any more");
        }
    };
    let thread = Background::start("feed", work).map_err(|error| unavailable(error.to_string()))?;
    let reported = reported.await.map_err(|_| unavailable("its thread ended".to_owned()))?;
    Ok(FeedThread { position: reported.map_err(unavailable)?, thread })
}

/// Commits from the one that holds `leaf`, live; the first may begin before it. The usual argument of [`FeedPublisher::run`].
pub fn commits_from_leaf(reader: &Reader, leaf: u64) -> CommitStream {
    let reader = reader.clone();
    let open = async move {
        // Asked first: a commit that lands meanwhile is then behind the place where we begin.
        let last = reader.last_commit().await?;
        let first = reader.commit_of_leaf(leaf).await?.unwrap_or(last.max(1));
        Ok::<_, ReadError>(reader.from_commit(first, Until::Forever))
    };
    futures::stream::once(open)
        .flat_map(|opened| match opened {
            Ok(commits) => commits,
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        })
        .boxed()
}

impl FeedPublisher {
    /// See [`FeedOptions`].
    pub fn new(options: FeedOptions) -> FeedPublisher {
        let context =
            ContextBuilder::new().ack_timeout(ACK_WAIT_MAX).timeout(ACK_WAIT_MAX).build(options.client);
        FeedPublisher {
            context,
            origin: options.origin,
            head: options.head,
            published: watch::Sender::new(0),
        }
    }

    /// The next leaf to publish: everything below is acknowledged.
    pub fn position(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Publishes until the commits end. `open` is asked for the commits from a leaf at the start and again after every
    /// failure of the broker, which only makes FEED late. Fails when the log cannot be read or FEED is not ours.
    pub async fn run(&self, mut open: impl FnMut(u64) -> CommitStream) -> Result<(), FeedError> {
        let mut tries = tokio::time::interval(RETRY_PAUSE);
        tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tries.tick().await;
            let ended = match self.resume().await {
                Ok(resume) => self.publish_from(resume, open(resume.leaf)).await,
                Err(error) => Err(error),
            };
            match ended {
                Err(error @ FeedError::Unavailable { .. }) => {
                    tracing::warn!(target: "journal", %error, "FEED is late; taking it up again");
                }
                other => return other,
            }
        }
    }

    fn head_leaf(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.borrow().leaf)
    }

    /// Reads FEED's own last message. The operator's copy of a leaf comes before the log's, so the log's says "done".
    async fn resume(&self) -> Result<Resume, FeedError> {
        let leaf = *self.published.borrow();
        let unavailable = |reason: String| FeedError::Unavailable { leaf, reason };
        let stream = self.context.get_stream(FEED_STREAM).await.map_err(|e| unavailable(e.to_string()))?;
        let sequence = stream.cached_info().state.last_sequence;
        if sequence == 0 {
            return Ok(Resume { leaf: 0, operator_copy: false, sequence });
        }
        let last = stream.get_raw_message(sequence).await.map_err(|e| unavailable(e.to_string()))?;
        let leaf = last.headers.get(LEAF_HEADER).and_then(|value| value.as_str().parse::<u64>().ok());
        let leaf = leaf.ok_or(FeedError::Foreign { sequence })?;
        let is_log_copy = last.subject.starts_with("feed.log.");
        Ok(Resume { leaf: leaf + u64::from(is_log_copy), operator_copy: !is_log_copy, sequence })
    }

    async fn publish_from(&self, resume: Resume, mut commits: CommitStream) -> Result<(), FeedError> {
        self.published.send_replace(resume.leaf);
        let mut window = Window { feed: self, acks: FuturesOrdered::new(), sequence: resume.sequence };
        let mut pace = Pace { began: Instant::now(), from: resume.leaf, head: self.head_leaf() };
        let mut next = resume.leaf;
        loop {
            tokio::select! {
                biased;
                acked = window.acks.next(), if !window.acks.is_empty() => window.note(acked)?,
                commit = commits.next() => {
                    let Some(commit) = commit else { break };
                    for event in &commit?.events {
                        let leaf = event.header.leaf;
                        if leaf < next {
                            continue;
                        }
                        if leaf > next {
                            return Err(FeedError::Gap { expected: next, came: leaf });
                        }
                        let skip_operator = resume.operator_copy && leaf == resume.leaf;
                        window.publish_event(event, skip_operator).await?;
                        next += 1;
                        if next - pace.from >= PACE_MESSAGES {
                            pace = pace.rest(next, self.head_leaf()).await;
                        }
                    }
                }
            }
        }
        while let Some(acked) = window.acks.next().await {
            window.note(Some(acked))?;
        }
        Ok(())
    }
}

/// FEED's last stretch beside the log's.
struct Pace {
    began: Instant,
    from: u64,
    /// The log's head when it began.
    head: u64,
}

impl Pace {
    /// Rests when the log grew by more than FEED did.
    async fn rest(self, next: u64, head: u64) -> Pace {
        if head - self.head.min(head) > next - self.from {
            tokio::time::sleep(self.began.elapsed()).await;
        }
        Pace { began: Instant::now(), from: next, head }
    }
}

/// What a message's acknowledgement means for the position.
struct Sent {
    ack: PublishAckFuture,
    leaf: u64,
    /// The position once this is acknowledged.
    done: u64,
}

/// The position that an acknowledgement brings.
type Acked = Result<u64, FeedError>;

/// Messages on their way, acknowledged in order.
struct Window<'a> {
    feed: &'a FeedPublisher,
    acks: FuturesOrdered<BoxFuture<'static, Acked>>,
    /// The sequence that the next message must follow.
    sequence: u64,
}

impl Window<'_> {
    async fn publish_event(&mut self, event: &Event, skip_operator: bool) -> Result<(), FeedError> {
        if let Some(operator) = feed::concerned_operator(&event.body).filter(|_| !skip_operator) {
            let subject = feed::operator_subject(&operator, event);
            let id = feed::message_id(event, Some(&operator));
            self.publish(event, subject, id, feed::operator_json(event), event.header.leaf).await?;
        }
        let (subject, id) = (feed::log_subject(event), feed::message_id(event, None));
        self.publish(event, subject, id, feed::log_json(event), event.header.leaf + 1).await
    }

    async fn publish(
        &mut self,
        event: &Event,
        subject: String,
        id: String,
        json: Vec<u8>,
        done: u64,
    ) -> Result<(), FeedError> {
        while self.acks.len() >= MESSAGES_IN_FLIGHT_MAX {
            let acked = self.acks.next().await;
            self.note(acked)?;
        }
        let mut message = PublishMessage::build()
            .payload(json.into())
            .message_id(id)
            .expected_stream(FEED_STREAM)
            .expected_last_sequence(self.sequence);
        for (name, value) in feed::headers(event, &self.feed.origin) {
            message = message.header(name, value.as_str());
        }
        let leaf = event.header.leaf;
        let sent = self.feed.context.send_publish(subject, message).await;
        let ack = sent.map_err(|e| FeedError::Unavailable { leaf, reason: e.to_string() })?;
        self.sequence += 1;
        self.acks.push_back(Box::pin(acknowledged(Sent { ack, leaf, done })));
        Ok(())
    }

    fn note(&self, acked: Option<Acked>) -> Result<(), FeedError> {
        if let Some(acked) = acked {
            self.feed.published.send_replace(acked?);
        }
        Ok(())
    }
}

async fn acknowledged(sent: Sent) -> Acked {
    let Sent { ack, leaf, done } = sent;
    match ack.await {
        Ok(_) => Ok(done),
        Err(error) => {
            let reason = match error.kind() {
                PublishErrorKind::WrongLastSequence => "FEED is not where we left it".to_owned(),
                _ => error.to_string(),
            };
            Err(FeedError::Unavailable { leaf, reason })
        }
    }
}
