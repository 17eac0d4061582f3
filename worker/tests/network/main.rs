//! The worker on a real nats-server with the network's own keys, roles and streams, driven by a scripted gateway, running
//! the real model. Needs `cargo xtask tools`.

mod conformance;
mod faults;
mod gateway;
mod jobs;
mod operator;
