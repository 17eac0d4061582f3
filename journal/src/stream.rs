//! The streams: their settings, made once by an `init` credential, and compared with what the server reports at every
//! start. Normative text: `specs/log.md`. Must not: publish or read messages.

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{
    Compression, Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};
use std::time::Duration;

/// The log of shard 0.
pub const LEDGER_STREAM: &str = "LEDGER_0";
/// Its one subject.
pub const LEDGER_SUBJECT: &str = "ledger.0";
/// One message per event, for anybody's client.
pub const FEED_STREAM: &str = protocol::feed::FEED_STREAM;
/// Signed receipts that wait to be settled.
pub const RECEIPTS_STREAM: &str = "RECEIPTS";
/// The durable pull consumer by which gateways take receipts; made by `init`.
pub const RECEIPTS_CONSUMER: &str = "settlement";
/// Largest message of `LEDGER_0` and FEED, equal to the server's `max_payload`.
pub const MESSAGE_BYTES_MAX: i32 = 8 * 1024 * 1024;
/// Largest receipt.
pub const RECEIPT_BYTES_MAX: i32 = 64 * 1024;
/// Receipts kept per job and attempt: the first ones; later ones are refused.
pub const RECEIPTS_PER_SUBJECT_MAX: i64 = 4;
/// Storage of all receipts; a full stream refuses new ones, it never drops waiting ones.
pub const RECEIPTS_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// How long a receipt is kept after it came.
pub const RECEIPTS_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The least that the server takes; idempotency is ours.
pub const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);
/// FEED: long enough that a publish which lands after we asked for the last message is recognised.
pub const FEED_DUPLICATE_WINDOW: Duration = Duration::from_secs(2);
/// How long a gateway may keep a receipt without acknowledging it.
const RECEIPT_ACK_WAIT: Duration = Duration::from_secs(30);
/// Receipts that may be with gateways at once.
const RECEIPTS_UNACKNOWLEDGED_MAX: i64 = 4096;

/// Why the streams are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The server would not make one.
    #[error("stream {stream} was not created: {reason}")]
    NotCreated {
        /// Which.
        stream: String,
        /// The server's words.
        reason: String,
    },
    /// The server does not show one: absent, unreadable for this user, or no server.
    #[error(
        "stream {stream}: no information: {reason}; is the server up, and were the streams made (`init_streams`)?"
    )]
    NoInformation {
        /// Which.
        stream: String,
        /// The server's words.
        reason: String,
    },
    /// One setting is not what the log needs.
    #[error(
        "stream {stream}: {setting} is {reported}, expected {expected}; refused. In its configuration this line must read `{line}`"
    )]
    Setting {
        /// Which stream.
        stream: String,
        /// Which setting.
        setting: &'static str,
        /// What it must be.
        expected: String,
        /// What the server reports.
        reported: String,
        /// The line of the stream's configuration.
        line: String,
    },
    /// Fewer copies than asked for.
    #[error(
        "stream {stream} has {reported} replicas, expected {expected}; refused. Make it with `init_streams_replicated` on \
         a cluster of as many servers, or ask for fewer"
    )]
    Replicas {
        /// Which stream.
        stream: String,
        /// What was asked for.
        expected: usize,
        /// What the server reports.
        reported: usize,
    },
    /// The server acknowledges before its disk has the message.
    #[error(
        "the server reports sync_interval {reported}, expected always; in its configuration: `jetstream {{ sync_interval: always }}`, then restart it"
    )]
    NotSynced {
        /// What the server reports.
        reported: String,
    },
}

/// The settings of every stream.
pub fn stream_configs() -> [Config; 3] {
    [ledger_config(), feed_config(), receipts_config()]
}

/// On several servers there is no asynchronous persistence: the server refuses it, and FEED takes the usual one.
fn replicated(config: Config, replicas: usize) -> Config {
    let persist_mode = if replicas > 1 { None } else { config.persist_mode };
    Config { num_replicas: replicas, persist_mode, ..config }
}

fn ledger_config() -> Config {
    Config {
        name: LEDGER_STREAM.to_owned(),
        subjects: vec![LEDGER_SUBJECT.to_owned()],
        description: Some("the ledger: one commit a message, never deleted".to_owned()),
        deny_delete: true,
        deny_purge: true,
        max_message_size: MESSAGE_BYTES_MAX,
        duplicate_window: DUPLICATE_WINDOW,
        ..common_config()
    }
}

fn feed_config() -> Config {
    Config {
        name: FEED_STREAM.to_owned(),
        subjects: vec!["feed.>".to_owned()],
        description: Some("one event a message, derived from the ledger".to_owned()),
        deny_delete: true,
        deny_purge: true,
        max_message_size: MESSAGE_BYTES_MAX,
        duplicate_window: FEED_DUPLICATE_WINDOW,
        compression: Some(Compression::S2),
        persist_mode: Some(PersistenceMode::Async),
        ..common_config()
    }
}

fn receipts_config() -> Config {
    Config {
        name: RECEIPTS_STREAM.to_owned(),
        subjects: vec!["receipt.*.*.*".to_owned()],
        description: Some("signed receipts, waiting to be settled".to_owned()),
        max_messages_per_subject: RECEIPTS_PER_SUBJECT_MAX,
        discard_new_per_subject: true,
        max_bytes: RECEIPTS_BYTES_MAX,
        max_age: RECEIPTS_AGE_MAX,
        max_message_size: RECEIPT_BYTES_MAX,
        duplicate_window: DUPLICATE_WINDOW,
        ..common_config()
    }
}

fn common_config() -> Config {
    Config {
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        num_replicas: 1,
        allow_direct: true,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        ..Config::default()
    }
}

/// Creates the three streams and the consumer of RECEIPTS with an `init` credential's client. Streams that exist as they
/// must be are left alone; others are an error (nothing is ever altered here).
pub async fn init_streams(init: &async_nats::Client) -> Result<(), StreamError> {
    init_streams_replicated(init, 1).await
}

/// [`init_streams`] on a cluster: each message stands on so many servers before it is acknowledged by most of them.
pub async fn init_streams_replicated(init: &async_nats::Client, replicas: usize) -> Result<(), StreamError> {
    let jetstream = async_nats::jetstream::new(init.clone());
    for config in stream_configs() {
        let config = replicated(config, replicas);
        let stream = config.name.clone();
        let created = jetstream.create_stream(config).await;
        created.map_err(|e| StreamError::NotCreated { stream, reason: e.to_string() })?;
    }
    let failed = |reason: String| StreamError::NotCreated {
        stream: format!("{RECEIPTS_STREAM} (its consumer {RECEIPTS_CONSUMER})"),
        reason,
    };
    let receipts = jetstream.get_stream(RECEIPTS_STREAM).await.map_err(|e| failed(e.to_string()))?;
    let consumer = pull::Config {
        durable_name: Some(RECEIPTS_CONSUMER.to_owned()),
        name: Some(RECEIPTS_CONSUMER.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: RECEIPT_ACK_WAIT,
        max_ack_pending: RECEIPTS_UNACKNOWLEDGED_MAX,
        ..pull::Config::default()
    };
    receipts.create_consumer(consumer).await.map_err(|e| failed(e.to_string()))?;
    Ok(())
}

/// Compares the three streams with what the server reports; the first difference is the error. Any role that may ask for
/// their information can run it (the writer does, at every start).
pub async fn verify_streams(client: &async_nats::Client) -> Result<(), StreamError> {
    let jetstream = async_nats::jetstream::new(client.clone());
    for expected in stream_configs() {
        let stream = expected.name.clone();
        let reported = jetstream.get_stream(&stream).await;
        let reported = reported
            .map_err(|e| StreamError::NoInformation { stream: stream.clone(), reason: e.to_string() })?;
        let reported = &reported.cached_info().config;
        compare(&replicated(expected, reported.num_replicas), reported)?;
    }
    Ok(())
}

/// Makes sure that every stream stands on at least so many servers.
pub async fn verify_replicas(client: &async_nats::Client, expected: usize) -> Result<(), StreamError> {
    let jetstream = async_nats::jetstream::new(client.clone());
    for config in stream_configs() {
        let stream = config.name;
        let reported = jetstream.get_stream(&stream).await;
        let reported = reported
            .map_err(|e| StreamError::NoInformation { stream: stream.clone(), reason: e.to_string() })?;
        let reported = reported.cached_info().config.num_replicas;
        if reported < expected {
            return Err(StreamError::Replicas { stream, expected, reported });
        }
    }
    Ok(())
}

/// Asks the server itself, through the system account, whether it syncs before it acknowledges. Needs the client of
/// [`crate::auth::Role::Monitor`].
pub async fn verify_sync_always(monitor: &async_nats::Client) -> Result<(), StreamError> {
    let subject = format!("$SYS.REQ.SERVER.{}.JSZ", monitor.server_info().server_id);
    let no_information =
        |reason: String| StreamError::NoInformation { stream: "(the server's own)".to_owned(), reason };
    let reply = monitor.request(subject, "{}".into()).await.map_err(|e| no_information(e.to_string()))?;
    let report: serde_json::Value =
        serde_json::from_slice(&reply.payload).map_err(|e| no_information(e.to_string()))?;
    let config = &report["data"]["config"];
    match config["sync_always"].as_bool() {
        Some(true) => Ok(()),
        _ => Err(StreamError::NotSynced { reported: format!("{} ns", config["sync_interval"]) }),
    }
}

fn compare(expected: &Config, reported: &Config) -> Result<(), StreamError> {
    for ((setting, want), (_, got)) in settings(expected).into_iter().zip(settings(reported)) {
        if want != got {
            let line = format!("\"{setting}\": {want}");
            let stream = expected.name.clone();
            return Err(StreamError::Setting { stream, setting, expected: want, reported: got, line });
        }
    }
    Ok(())
}

/// Every setting that decides what is kept, by its name in the stream's JSON; "no limit" has one text.
fn settings(config: &Config) -> Vec<(&'static str, String)> {
    let limit = |n: i64| if n <= 0 { "-1".to_owned() } else { n.to_string() };
    let json = |value: serde_json::Result<String>| value.unwrap_or_else(|e| e.to_string());
    let nanos = |d: Duration| d.as_nanos().to_string();
    let absent = |present: bool| if present { "(set)".to_owned() } else { "null".to_owned() };
    vec![
        ("subjects", json(serde_json::to_string(&config.subjects))),
        ("storage", json(serde_json::to_string(&config.storage))),
        ("retention", json(serde_json::to_string(&config.retention))),
        ("discard", json(serde_json::to_string(&config.discard))),
        ("deny_delete", config.deny_delete.to_string()),
        ("deny_purge", config.deny_purge.to_string()),
        ("max_msgs", limit(config.max_messages)),
        ("max_bytes", limit(config.max_bytes)),
        ("max_age", nanos(config.max_age)),
        ("max_msgs_per_subject", limit(config.max_messages_per_subject)),
        ("discard_new_per_subject", config.discard_new_per_subject.to_string()),
        ("max_msg_size", limit(config.max_message_size.into())),
        ("duplicate_window", nanos(config.duplicate_window)),
        ("persist_mode", json(serde_json::to_string(&config.persist_mode.unwrap_or_default()))),
        (
            "compression",
            json(serde_json::to_string(&config.compression.clone().unwrap_or(Compression::None))),
        ),
        ("allow_direct", config.allow_direct.to_string()),
        ("allow_rollup_hdrs", config.allow_rollup.to_string()),
        ("allow_msg_ttl", config.allow_message_ttl.to_string()),
        ("allow_atomic", config.allow_atomic_publish.to_string()),
        ("allow_msg_schedules", config.allow_message_schedules.to_string()),
        ("allow_msg_counter", config.allow_message_counter.to_string()),
        ("no_ack", config.no_ack.to_string()),
        ("sealed", config.sealed.to_string()),
        ("first_seq", config.first_sequence.unwrap_or(0).max(1).to_string()),
        ("mirror", absent(config.mirror.is_some())),
        ("sources", absent(config.sources.as_ref().is_some_and(|s| !s.is_empty()))),
        ("republish", absent(config.republish.is_some())),
        ("subject_transform", absent(config.subject_transform.is_some())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weaker_setting_is_named() {
        type Weaken = fn(&mut Config);
        let cases: [(&str, Weaken); 9] = [
            ("deny_delete", |c| c.deny_delete = false),
            ("deny_purge", |c| c.deny_purge = false),
            ("discard", |c| c.discard = DiscardPolicy::Old),
            ("storage", |c| c.storage = StorageType::Memory),
            ("max_age", |c| c.max_age = Duration::from_secs(60)),
            ("max_msgs", |c| c.max_messages = 3),
            ("persist_mode", |c| c.persist_mode = Some(PersistenceMode::Async)),
            ("allow_rollup_hdrs", |c| c.allow_rollup = true),
            ("subjects", |c| c.subjects.push("feed.x".to_owned())),
        ];
        for (name, weaken) in cases {
            let mut weaker = ledger_config();
            weaken(&mut weaker);
            let error = compare(&ledger_config(), &weaker).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(LEDGER_STREAM), "{error}");
        }
    }
}
