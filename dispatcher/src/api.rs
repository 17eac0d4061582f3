//! The HTTP surface: OpenAI's chat calls and our own, one file a family of endpoints.

pub mod accounts;
pub mod admin;
pub mod audit;
pub mod auth;
pub mod balance;
pub mod body;
pub mod chat;
pub mod earnings;
pub mod error;
pub mod jobs;
pub mod log;
pub mod models;
pub mod nodes;
pub mod people;
pub mod quote;
pub mod refusals;
pub mod replay;
pub mod request;
pub mod server;
pub mod sessions;
pub mod sse;
pub mod withdrawals;
pub mod x402;
