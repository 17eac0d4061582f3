//! One door to the ledger for every caller: the writer in this process, or a sequencer elsewhere. Must not: differ between
//! the two in what an answer means.

use super::{LocalLedger, SubmitError};
use crate::pipeline::{Outcome, Placed, Position, StopReason};
use crate::remote::RemoteLedger;
use ledger::State;
use ledger::command::Command;
use tokio::sync::watch;

/// A client of the ledger's writer. Cheap to clone. `From<RemoteLedger>` makes one of a sequencer in another process.
#[derive(Clone)]
pub struct LedgerClient {
    at: At,
}

#[derive(Clone)]
enum At {
    Here(LocalLedger),
    Elsewhere(RemoteLedger),
}

impl From<LocalLedger> for LedgerClient {
    fn from(ledger: LocalLedger) -> Self {
        Self { at: At::Here(ledger) }
    }
}

impl From<RemoteLedger> for LedgerClient {
    fn from(ledger: RemoteLedger) -> Self {
        Self { at: At::Elsewhere(ledger) }
    }
}

impl LedgerClient {
    /// Hands a command to the writer; returns once its events are committed and stand in the archive tail.
    pub async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        match &self.at {
            At::Here(ledger) => ledger.submit(command).await,
            At::Elsewhere(ledger) => ledger.submit(command).await,
        }
    }

    /// [`LedgerClient::submit`] that tells where the events stand, not what they are: cheaper.
    pub async fn submit_placed(&self, command: Command) -> Result<Placed, SubmitError> {
        match &self.at {
            At::Here(ledger) => ledger.submit_placed(command).await,
            At::Elsewhere(ledger) => ledger.submit_placed(command).await,
        }
    }

    /// Hands commands over at once. They are decided in this order, each for itself, and may spread over several commits;
    /// returns each one's own result once the last is safe. `Overloaded`: none of them happened. `Unknown`: some may
    /// have; ask again with the same keys.
    pub async fn submit_many(
        &self,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<Placed, SubmitError>>, SubmitError> {
        match &self.at {
            At::Here(ledger) => ledger.submit_many(commands).await,
            At::Elsewhere(ledger) => ledger.submit_many(commands).await,
        }
    }

    /// Asks the state: short, without waiting. Here: the newest, and the answer leaves after the commit that it depends
    /// on. Elsewhere: the replica, which has everything that this client was told.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, SubmitError> {
        match &self.at {
            At::Here(ledger) => ledger.read(f).await,
            At::Elsewhere(ledger) => ledger.read(f).await,
        }
    }

    /// The committed position: acknowledged by the log and in the archive tail. Elsewhere: as far as it
    /// was told.
    pub fn position(&self) -> watch::Receiver<Position> {
        match &self.at {
            At::Here(ledger) => ledger.position(),
            At::Elsewhere(ledger) => ledger.position(),
        }
    }

    /// Why the writer stopped, once it has. Elsewhere: why the log cannot be followed; sequencers may come and go.
    pub fn stopped(&self) -> watch::Receiver<Option<StopReason>> {
        match &self.at {
            At::Here(ledger) => ledger.stopped(),
            At::Elsewhere(ledger) => ledger.stopped(),
        }
    }
}
