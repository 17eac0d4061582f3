//! Room `economy`: what a network is, as a file, and what would become of it. Presets are read with the line of every
//! mistake; a simulation runs the ledger's own rules on virtual time, with strategies that try to gain by cheating.
//! No I/O, no clock; randomness comes from a seed. Must not: rules of money (those are the ledger's).
#![forbid(unsafe_code)]

pub mod plot;
pub mod preset_file;
pub mod report;
pub mod simulation;
pub mod story;

pub use preset_file::{PresetFileError, shipped};
pub use simulation::{Load, SimulationError, Strategy, simulate};
