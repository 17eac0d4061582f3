//! Room `fuzz`: every door that bytes from strangers come through, with what must hold whatever the bytes are; a corpus for
//! each; and a loop on the stable toolchain that changes corpus entries until something breaks. One seed is one run. Must
//! not: know how the doors work inside.
//!
//! Without instrumentation there is no coverage to follow. What is followed instead are answers: an input whose answer
//! (the error's words, its numbers left out) was not seen before joins the corpus of the run.

#![forbid(unsafe_code)]

pub mod corpus;
pub mod gguf;
pub mod hunt;
pub mod mutate;
pub mod targets;

pub use hunt::{Finding, Hunt, hunt};
pub use targets::{TARGETS, Target};
