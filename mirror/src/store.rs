//! The event store behind a trait: what the mirror needs of one, and the official client doing it. Nothing else here
//! knows the client.

use crate::event::{Metadata, Mirrored};
use kurrentdb::{
    AppendToStreamOptions, Client, ClientSettings, EventData, ReadStreamOptions, ResolvedEvent,
    StreamPosition, StreamState,
};
use std::future::Future;
use uuid::Uuid;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The stream is not where the append expected it: somebody else writes, or an earlier append did land.
    #[error("the stream is not at the expected revision: {0}")]
    WrongRevision(String),
    /// No answer, or one that says nothing about what happened.
    #[error("the event store does not answer: {0}")]
    Unavailable(String),
    /// An address, a right, a stream that cannot be used.
    #[error("the event store refuses: {0}")]
    Refused(String),
}

/// An event as the store has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its number in the stream, from 0.
    pub revision: u64,
    /// Its id.
    pub id: Uuid,
    /// Its metadata, when it has ours.
    pub metadata: Option<Metadata>,
}

/// What the mirror needs.
pub trait EventStore: Sync {
    /// The last event of a stream; `None` when there is no stream.
    fn last(&self, stream: &str) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send;

    /// Up to `events_max` events from a revision on, in order.
    fn read(
        &self,
        stream: &str,
        from_revision: u64,
        events_max: usize,
    ) -> impl Future<Output = Result<Vec<Stored>, StoreError>> + Send;

    /// Appends all or nothing, when the stream has exactly `length` events.
    fn append(
        &self,
        stream: &str,
        length: u64,
        events: &[Mirrored],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// KurrentDB, and EventStoreDB from 21.10 on, by the official gRPC client.
pub struct Kurrent {
    client: Client,
}

impl Kurrent {
    /// Takes a connection string: `kurrentdb://user:password@host:2113?tls=true`, or `esdb://...`.
    pub fn connect(url: &str) -> Result<Kurrent, StoreError> {
        let settings: ClientSettings =
            url.parse().map_err(|e| StoreError::Refused(format!("its address: {e}")))?;
        let client = Client::new(settings).map_err(|e| StoreError::Refused(e.to_string()))?;
        Ok(Kurrent { client })
    }

    async fn read_with(&self, stream: &str, options: ReadStreamOptions) -> Result<Vec<Stored>, StoreError> {
        let mut events = match self.client.read_stream(stream, &options).await {
            Ok(events) => events,
            Err(kurrentdb::Error::ResourceNotFound) => return Ok(Vec::new()),
            Err(error) => return Err(fault(error)),
        };
        let mut found = Vec::new();
        loop {
            match events.next().await {
                Ok(Some(event)) => found.push(stored(&event)),
                Ok(None) => return Ok(found),
                Err(kurrentdb::Error::ResourceNotFound) => return Ok(Vec::new()),
                Err(error) => return Err(fault(error)),
            }
        }
    }
}

impl EventStore for Kurrent {
    async fn last(&self, stream: &str) -> Result<Option<Stored>, StoreError> {
        let options = ReadStreamOptions::default().backwards().position(StreamPosition::End).max_count(1);
        Ok(self.read_with(stream, options).await?.pop())
    }

    async fn read(&self, stream: &str, from: u64, events_max: usize) -> Result<Vec<Stored>, StoreError> {
        let position = StreamPosition::Position(from);
        let options = ReadStreamOptions::default().forwards().position(position).max_count(events_max);
        self.read_with(stream, options).await
    }

    async fn append(&self, stream: &str, length: u64, events: &[Mirrored]) -> Result<(), StoreError> {
        let expected = match length.checked_sub(1) {
            None => StreamState::NoStream,
            Some(revision) => StreamState::StreamRevision(revision),
        };
        let data = |event: &Mirrored| {
            let data: serde_json::Value = serde_json::from_slice(&event.data)?;
            EventData::json(&event.kind, &data)?.id(event.id).metadata_as_json(&event.metadata)
        };
        let events: Result<Vec<EventData>, serde_json::Error> = events.iter().map(data).collect();
        let events = events.map_err(|e| StoreError::Refused(format!("an event is no JSON: {e}")))?;
        let options = AppendToStreamOptions::default().stream_state(expected);
        self.client.append_to_stream(stream, &options, events).await.map(drop).map_err(fault)
    }
}

fn stored(event: &ResolvedEvent) -> Stored {
    let event = event.get_original_event();
    let metadata = serde_json::from_slice(&event.custom_metadata).ok();
    Stored { revision: event.revision, id: event.id, metadata }
}

/// Whether trying again can help.
fn fault(error: kurrentdb::Error) -> StoreError {
    use kurrentdb::Error;
    match error {
        Error::WrongExpectedVersion { .. } => StoreError::WrongRevision(error.to_string()),
        Error::AccessDenied
        | Error::ResourceAlreadyExists
        | Error::ResourceDeleted
        | Error::UnsupportedFeature
        | Error::InitializationError(_) => StoreError::Refused(error.to_string()),
        other => StoreError::Unavailable(other.to_string()),
    }
}
