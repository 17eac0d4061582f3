//! The writer's way to the broker: one connection on a runtime of its own thread. Publishes, reads single sequences, looks
//! after the stream. Must not: retry (the pipeline says what is sent again).

use super::Message;
use crate::pipeline::{Input, Position, Published, ReadBack};
use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use std::future::IntoFuture;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{mpsc, watch};

/// How long one request to the broker may take; below the pipeline's own patience.
const REQUEST_WAIT: Duration = Duration::from_millis(2_500);

/// How often somebody who waits for an acknowledgement looks whether the connection is still the same.
const CONNECTION_LOOK: Duration = Duration::from_millis(50);

/// What the writer's thread asks for.
pub(crate) enum LinkRequest {
    Publish { attempt: u64, position: Position, bytes: Bytes },
    ReadBack { attempt: u64, number: u64 },
}

/// What a link needs.
pub(crate) struct LinkOptions {
    pub(crate) client: async_nats::Client,
    pub(crate) stream: String,
    pub(crate) subject: String,
    pub(crate) answers: UnboundedSender<Message>,
    pub(crate) position: watch::Receiver<Position>,
    pub(crate) watch_period: Duration,
}

/// See the module.
pub(crate) struct Link {
    context: jetstream::Context,
    stream: jetstream::stream::Stream<()>,
    subject: String,
    answers: UnboundedSender<Message>,
    position: watch::Receiver<Position>,
    watch_period: Duration,
}

impl Link {
    pub(crate) async fn new(options: LinkOptions) -> Result<Self, String> {
        let LinkOptions { client, stream, subject, answers, position, watch_period } = options;
        let builder = jetstream::ContextBuilder::new().timeout(REQUEST_WAIT).ack_timeout(REQUEST_WAIT);
        let context = builder.build(client);
        let stream = context.get_stream_no_info(&stream).await.map_err(|e| e.to_string())?;
        Ok(Self { context, stream, subject, answers, position, watch_period })
    }

    /// Serves until the writer's thread is gone.
    pub(crate) async fn serve(self, mut requests: mpsc::UnboundedReceiver<LinkRequest>) {
        let mut watchdog = tokio::time::interval(self.watch_period);
        watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(LinkRequest::Publish { attempt, position, bytes }) => {
                        self.publish(attempt, position, bytes).await;
                    }
                    Some(LinkRequest::ReadBack { attempt, number }) => {
                        let (stream, answers) = (self.stream.clone(), self.answers.clone());
                        tokio::spawn(async move {
                            let result = read_back(&stream, number).await;
                            let _ = answers.send(Message::Input(Input::ReadBack { attempt, result }));
                        });
                    }
                    None => return,
                },
                _ = watchdog.tick() => self.look_after(),
            }
        }
    }

    /// Sends in order; the acknowledgement is awaited beside.
    async fn publish(&self, attempt: u64, position: Position, bytes: Bytes) {
        let message = PublishMessage::build()
            .payload(bytes)
            .expected_last_sequence(position.commit - 1)
            .message_id(position.hash.to_string());
        let sent = self.context.send_publish(self.subject.clone(), message);
        let (answers, client) = (self.answers.clone(), self.context.client());
        match sent.await {
            Ok(ack) => {
                tokio::spawn(async move {
                    let result = tokio::select! {
                        ack = ack.into_future() => published(ack),
                        () = connection_lost(&client) => {
                            Published::Ambiguous { reason: "the connection was lost".to_owned() }
                        }
                    };
                    let _ = answers.send(Message::Input(Input::Published { attempt, result }));
                });
            }
            Err(error) => {
                let result = Published::Ambiguous { reason: error.to_string() };
                let _ = answers.send(Message::Input(Input::Published { attempt, result }));
            }
        }
    }

    /// What was committed before we ask must be there.
    fn look_after(&self) {
        let position = *self.position.borrow();
        if position.commit == 0 {
            return;
        }
        let (stream, answers) = (self.stream.clone(), self.answers.clone());
        tokio::spawn(async move {
            let result = read_back(&stream, position.commit).await;
            let _ = answers.send(Message::Input(Input::Watched { position, result }));
        });
    }
}

/// Ends when the connection that was there at the first look is gone: an acknowledgement will not come any more.
async fn connection_lost(client: &async_nats::Client) {
    let statistics = client.statistics();
    let connects = statistics.connects.load(Ordering::Relaxed);
    let mut look = tokio::time::interval(CONNECTION_LOOK);
    loop {
        look.tick().await;
        let same = statistics.connects.load(Ordering::Relaxed) == connects;
        if !same || client.connection_state() != State::Connected {
            return;
        }
    }
}

fn published(ack: Result<jetstream::publish::PublishAck, jetstream::context::PublishError>) -> Published {
    match ack {
        // The broker's duplicate window is not our memory: a duplicate is read back.
        Ok(ack) if ack.duplicate => Published::Ambiguous { reason: "called a duplicate".to_owned() },
        Ok(ack) => Published::Stored { sequence: ack.sequence },
        Err(error) => {
            let reason = match error.kind() {
                PublishErrorKind::WrongLastSequence => "wrong last sequence".to_owned(),
                _ => error.to_string(),
            };
            Published::Ambiguous { reason }
        }
    }
}

async fn read_back(stream: &jetstream::stream::Stream<()>, number: u64) -> ReadBack {
    let failed = |reason: String| ReadBack::Failed { reason };
    match stream.get_raw_message(number).await {
        Ok(message) => ReadBack::Found(message.payload),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => match stream.get_info().await {
            Ok(info) => ReadBack::Absent { last_sequence: info.state.last_sequence },
            Err(error) => failed(error.to_string()),
        },
        Err(error) => failed(error.to_string()),
    }
}
