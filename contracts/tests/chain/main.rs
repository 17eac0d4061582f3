//! The room against a real anvil: every test starts a chain of its own and deploys the committed artefacts.

mod deposits;
mod economies;
mod exits;
mod manifests;
mod process;
mod settlements;
mod world;
