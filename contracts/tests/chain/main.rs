//! The room against a real anvil: every test starts a chain of its own and deploys the committed artefacts.

mod deposits;
mod economies;
mod exits;
mod faults;
mod manifests;
mod payments;
mod process;
mod proxy;
mod senders;
mod settlements;
mod world;
