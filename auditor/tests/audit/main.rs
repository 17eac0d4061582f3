//! The auditor from outside: small logs made with `protocol` alone, honest ones and cheating ones, and what each command
//! says of them.

mod archived;
mod browser;
mod cheats;
mod credit;
mod earned;
mod examining;
mod fetching;
mod foreign;
mod log;
mod mutations;
mod parts;
mod reconciling;
mod sampling;
mod speed;
mod story;
