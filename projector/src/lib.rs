//! Room `projector`: folds the log into what people read: balances, statements, trial balance, one event in a sentence,
//! and files for finance. Everything here is derived; deleting it loses nothing.
//!
//! Invariant: a projection never decides anything and is never on the write path.
//!
//! # The door for pages and API
//!
//! [`Index`] is the one thing to ask. It follows the log commit by commit ([`Index::append`]), is stamped with its position
//! ([`Index::position`]), survives a restart, and may be deleted: [`Index::catch_up`] builds it again from the archive.
//!
//! | question | ask |
//! |---|---|
//! | balances, statements, trial balance at a size, time or batch | [`Index::balance`], [`Index::owner_statement`], [`Index::trial_balance`] |
//! | revenue, payable, units by day, model, operator | [`Index::activity`] |
//! | what is open, and for how long: holds, payable, receivable | [`Index::ageing`] |
//! | open holds, grants, events about a job or batch | [`Index::holds`], [`Index::grants`], [`Index::leaves`] |
//! | is my own write in? (read your writes) | [`Index::holding`] with the leaf of the write; `Beyond` says how far it is |
//!
//! A point in time is [`At`]; every answer is as of a size, and the size belongs on the page.

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
