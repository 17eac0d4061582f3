//! Room `projector`: folds the log into what people read: balances, statements, trial balance, one event in a sentence,
//! and files for finance. Everything here is derived; deleting it loses nothing.
//!
//! Invariant: a projection never decides anything and is never on the write path.

#![forbid(unsafe_code)]

pub mod describe;
pub mod export;
pub mod fold;
pub mod index;
pub mod names;
pub mod statements;
pub mod subject;
pub mod time;
pub mod trial_balance;

pub use fold::{Books, FoldError};
pub use index::{At, Index, IndexError};
pub use names::Names;
