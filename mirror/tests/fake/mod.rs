//! The Streams service of an event store, in this process: Append and Read over real gRPC, with the messages of the
//! public proto files by hand (only the fields that are used). It can lose answers and refuse.
#![allow(clippy::result_large_err, reason = "the Status is tonic's")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codec::ProstCodec;
use tonic::codegen::{Service, http};
use tonic::server::{ClientStreamingService, Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Structured {
    #[prost(int64, tag = "1")]
    most: i64,
    #[prost(int64, tag = "2")]
    least: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Id {
    #[prost(message, optional, tag = "1")]
    structured: Option<Structured>,
    #[prost(string, optional, tag = "2")]
    text: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamName {
    #[prost(bytes = "vec", tag = "3")]
    name: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AppendOptions {
    #[prost(message, optional, tag = "1")]
    stream: Option<StreamName>,
    #[prost(uint64, optional, tag = "2")]
    revision: Option<u64>,
    #[prost(message, optional, tag = "3")]
    no_stream: Option<Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Proposed {
    #[prost(message, optional, tag = "1")]
    pub id: Option<Id>,
    #[prost(map = "string, string", tag = "2")]
    pub metadata: std::collections::HashMap<String, String>,
    #[prost(bytes = "vec", tag = "3")]
    pub custom_metadata: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AppendRequest {
    #[prost(message, optional, tag = "1")]
    options: Option<AppendOptions>,
    #[prost(message, optional, tag = "2")]
    proposed: Option<Proposed>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Success {
    #[prost(uint64, optional, tag = "1")]
    revision: Option<u64>,
    #[prost(message, optional, tag = "4")]
    no_position: Option<Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WrongExpected {
    #[prost(uint64, optional, tag = "6")]
    current: Option<u64>,
    #[prost(message, optional, tag = "7")]
    current_no_stream: Option<Empty>,
    #[prost(uint64, optional, tag = "8")]
    expected: Option<u64>,
    #[prost(message, optional, tag = "11")]
    expected_no_stream: Option<Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AppendResponse {
    #[prost(message, optional, tag = "1")]
    success: Option<Success>,
    #[prost(message, optional, tag = "2")]
    wrong: Option<WrongExpected>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadStream {
    #[prost(message, optional, tag = "1")]
    stream: Option<StreamName>,
    #[prost(uint64, optional, tag = "2")]
    revision: Option<u64>,
    #[prost(message, optional, tag = "4")]
    end: Option<Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadOptions {
    #[prost(message, optional, tag = "1")]
    stream: Option<ReadStream>,
    #[prost(int32, tag = "3")]
    backwards: i32,
    #[prost(uint64, optional, tag = "5")]
    count: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadRequest {
    #[prost(message, optional, tag = "1")]
    options: Option<ReadOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Recorded {
    #[prost(message, optional, tag = "1")]
    id: Option<Id>,
    #[prost(message, optional, tag = "2")]
    stream: Option<StreamName>,
    #[prost(uint64, tag = "3")]
    revision: u64,
    #[prost(map = "string, string", tag = "6")]
    metadata: std::collections::HashMap<String, String>,
    #[prost(bytes = "vec", tag = "7")]
    custom_metadata: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadEvent {
    #[prost(message, optional, tag = "1")]
    event: Option<Recorded>,
    #[prost(message, optional, tag = "4")]
    no_position: Option<Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NotFound {
    #[prost(message, optional, tag = "1")]
    stream: Option<StreamName>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadResponse {
    #[prost(message, optional, tag = "1")]
    event: Option<ReadEvent>,
    #[prost(message, optional, tag = "4")]
    not_found: Option<NotFound>,
}

/// An event that no mirror wrote.
pub fn stranger() -> Proposed {
    let structured = Some(Structured { most: 1, least: 2 });
    let metadata = [("type", "hello"), ("content-type", "application/json")];
    let metadata = metadata.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Proposed {
        id: Some(Id { structured, text: None }),
        metadata,
        custom_metadata: b"{}".to_vec(),
        data: b"{}".to_vec(),
    }
}

/// What the next append does beside its work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is not done.
    NotDone,
}

#[derive(Default)]
pub struct State {
    pub streams: BTreeMap<String, Vec<Proposed>>,
    /// Faults of the next appends, in order.
    pub faults: Vec<Option<Fault>>,
    /// Events of each append that was asked for.
    pub appends: Vec<usize>,
}

/// The server; it ends with its handle's runtime.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
}

impl Fake {
    /// Starts on a free port; gives the connection string.
    pub async fn start() -> (Fake, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fake = Fake { state: Arc::default() };
        let server = tonic::transport::Server::builder().add_service(fake.clone());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (fake, format!("kurrentdb://127.0.0.1:{port}?tls=false"))
    }

    /// Held for one look or change.
    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn append(&self, options: AppendOptions, events: Vec<Proposed>) -> Result<AppendResponse, Status> {
        let mut state = self.state();
        state.appends.push(events.len());
        let fault = if state.faults.is_empty() { None } else { state.faults.remove(0) };
        if fault == Some(Fault::NotDone) {
            return Err(Status::unavailable("not done"));
        }
        let name = String::from_utf8(options.stream.unwrap_or_default().name).unwrap();
        let stored = state.streams.entry(name.clone()).or_default();
        let expected = if options.no_stream.is_some() { 0 } else { options.revision.unwrap() as usize + 1 };
        // As the real one: the same ids at the same place are the same append.
        let same = stored.get(expected..expected + events.len());
        let repeated = same.is_some_and(|same| same.iter().zip(&events).all(|(a, b)| a.id == b.id));
        if !repeated {
            if stored.len() != expected {
                let current = stored.len().checked_sub(1).map(|n| n as u64);
                if stored.is_empty() {
                    state.streams.remove(&name);
                }
                let wrong = WrongExpected {
                    current,
                    current_no_stream: current.is_none().then_some(Empty {}),
                    expected: options.revision,
                    expected_no_stream: options.no_stream,
                };
                return Ok(AppendResponse { success: None, wrong: Some(wrong) });
            }
            stored.extend(events.iter().cloned());
        }
        if fault == Some(Fault::AnswerLost) {
            return Err(Status::unavailable("the answer was lost"));
        }
        let revision = Some((expected + events.len()) as u64 - 1);
        let success = Success { revision, no_position: Some(Empty {}) };
        Ok(AppendResponse { success: Some(success), wrong: None })
    }

    fn read(&self, request: ReadRequest) -> Vec<Result<ReadResponse, Status>> {
        let options = request.options.unwrap_or_default();
        let of = options.stream.unwrap_or_default();
        let name = of.stream.clone().unwrap_or_default();
        let state = self.state();
        let Some(stored) = state.streams.get(&String::from_utf8(name.name.clone()).unwrap()) else {
            let not_found = Some(NotFound { stream: Some(name) });
            return vec![Ok(ReadResponse { event: None, not_found })];
        };
        let recorded = |(revision, event): (usize, &Proposed)| {
            // As the real server: ids come as text when asked so; ticks of creation are in the metadata.
            let mut metadata = event.metadata.clone();
            metadata.insert("created".to_owned(), "16000000000000000".to_owned());
            Recorded {
                id: event.id.clone(),
                stream: of.stream.clone(),
                revision: revision as u64,
                metadata,
                custom_metadata: event.custom_metadata.clone(),
                data: event.data.clone(),
            }
        };
        let all: Vec<Recorded> = stored.iter().enumerate().map(recorded).collect();
        let count = options.count.unwrap_or(u64::MAX) as usize;
        let from = of.revision.unwrap_or(0) as usize;
        let chosen: Vec<Recorded> = match options.backwards {
            1 => all.into_iter().rev().take(count).collect(),
            _ => all.into_iter().skip(from).take(count).collect(),
        };
        let answer = |event| {
            let event = Some(ReadEvent { event: Some(event), no_position: Some(Empty {}) });
            Ok(ReadResponse { event, not_found: None })
        };
        chosen.into_iter().map(answer).collect()
    }
}

impl NamedService for Fake {
    const NAME: &'static str = "event_store.client.streams.Streams";
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

struct Append(Fake);

impl ClientStreamingService<AppendRequest> for Append {
    type Response = AppendResponse;
    type Future = Answer<Response<AppendResponse>>;

    fn call(&mut self, request: Request<Streaming<AppendRequest>>) -> Self::Future {
        let fake = self.0.clone();
        Box::pin(async move {
            let mut messages = request.into_inner();
            let (mut options, mut events) = (AppendOptions::default(), Vec::new());
            while let Some(message) = messages.message().await? {
                options = message.options.unwrap_or(options);
                events.extend(message.proposed);
            }
            fake.append(options, events).map(Response::new)
        })
    }
}

struct Read(Fake);

impl ServerStreamingService<ReadRequest> for Read {
    type Response = ReadResponse;
    type ResponseStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<ReadResponse, Status>> + Send>>;
    type Future = Answer<Response<Self::ResponseStream>>;

    fn call(&mut self, request: Request<ReadRequest>) -> Self::Future {
        let answers = self.0.read(request.into_inner());
        let stream: Self::ResponseStream = Box::pin(tokio_stream::iter(answers));
        Box::pin(async move { Ok(Response::new(stream)) })
    }
}

impl Service<http::Request<Body>> for Fake {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fake = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/event_store.client.streams.Streams/Append" => {
                    Grpc::new(ProstCodec::default()).client_streaming(Append(fake), request).await
                }
                "/event_store.client.streams.Streams/Read" => {
                    Grpc::new(ProstCodec::default()).server_streaming(Read(fake), request).await
                }
                _ => Status::unimplemented("not here").into_http(),
            })
        })
    }
}
