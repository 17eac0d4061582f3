//! The limit under the journal: the same broker with the same settings, messages of the same sizes, and nothing of ours.

use crate::samples::Samples;
use crate::{BenchError, Tried};
use bytes::Bytes;
use journal::auth::{self, Role};
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::{LEDGER_SUBJECT, init_streams};
use std::path::Path;
use std::time::{Duration, Instant};

/// Starts a server of its own under `dir`, with streams.
pub(crate) async fn start_server(dir: &Path) -> Result<NatsServer, BenchError> {
    let binary = find_nats_server().tried("find nats-server")?;
    let options = NatsServerOptions { binary, data_dir: dir.to_owned(), port: PortChoice::Any };
    let server = NatsServer::start(options).await.tried("start nats-server")?;
    let init = server.keys().init_credentials().tried("make an init credential")?;
    let client = auth::connect(&server.url(), &init).await.tried("connect as init")?;
    init_streams(&client).await.tried("make the streams")?;
    Ok(server)
}

/// Publishes messages of `size` bytes one after the other for a while, each acknowledged before the next.
pub(crate) async fn publish(
    server: &NatsServer,
    size: usize,
    at_most: Duration,
) -> Result<Samples, BenchError> {
    let credentials = server.keys().credentials(Role::Writer);
    let client = auth::connect(&server.url(), credentials).await.tried("connect as writer")?;
    let context = async_nats::jetstream::new(client);
    let mut body = vec![0u8; size];
    let mut samples = Samples::default();
    let started = Instant::now();
    while started.elapsed() < at_most {
        // No two messages are alike, so that nothing is saved by likeness.
        let count = (samples.len() as u64).to_be_bytes();
        body.iter_mut().zip(count).for_each(|(byte, new)| *byte = new);
        let bytes = Bytes::copy_from_slice(&body);
        let before = Instant::now();
        let ack = context.publish(LEDGER_SUBJECT, bytes).await.tried("publish")?;
        ack.await.tried("acknowledge")?;
        samples.push(before.elapsed());
    }
    Ok(samples)
}
