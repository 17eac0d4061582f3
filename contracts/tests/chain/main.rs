//! The room against a real anvil: every test starts a chain of its own and deploys the committed artefacts.

mod books;
mod deposits;
mod economies;
mod epochs;
mod exits;
mod faults;
mod hostile;
mod manifests;
mod mirrors;
mod payments;
mod process;
mod proxy;
mod races;
mod senders;
mod settlements;
mod speed;
mod world;
