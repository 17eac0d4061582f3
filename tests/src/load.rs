//! Loads that a gateway must bear: many connections that say nothing, readers that do not read, floods of small streams and
//! of calls without credit, more work than the nodes can do. Each gives figures; what they must be is the suites' matter.

use crate::network::{Network, chat_body};
use crate::raw;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Times of calls that were made side by side, and what they ended with.
#[derive(Debug, Default, Clone)]
pub struct Calls {
    /// Each call's time, sorted.
    pub times: Vec<Duration>,
    /// Status and how often.
    pub statuses: std::collections::BTreeMap<u16, u64>,
    /// From the first call to the last answer.
    pub took: Duration,
}

impl Calls {
    /// The time that so many of a hundred stay below.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
    }

    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64().max(0.001)
    }

    /// How many ended so.
    pub fn count(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }
}

/// Makes `count` calls with `at_once` threads.
pub fn calls(count: u64, at_once: u64, call: impl Fn(u64) -> u16 + Sync) -> Calls {
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return done;
            }
            let at = Instant::now();
            let status = call(number);
            done.push((status, at.elapsed()));
        }
    };
    let done: Vec<(u16, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a caller")).collect()
    });
    let mut calls = Calls { took: begun.elapsed(), ..Calls::default() };
    for (status, time) in done {
        *calls.statuses.entry(status).or_default() += 1;
        calls.times.push(time);
    }
    calls.times.sort();
    calls
}

/// Connections that send nothing.
pub fn idle_connections(network: &Network, count: usize) -> Vec<TcpStream> {
    let address = network.ready.gateway.trim_start_matches("http://").to_owned();
    (0..count).map_while(|_| TcpStream::connect(&address).ok()).collect()
}

/// Streams whose reader takes the first bytes and then nothing: the answer backs up in the gateway.
pub fn sleeping_readers(network: &Network, count: usize) -> Vec<TcpStream> {
    let body = chat_body("Tell me a very long story about the sea.", 200, true).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        network.ready.api_key,
        body.len()
    );
    let open = |_| {
        let mut stream = raw::connect(&network.ready.gateway);
        stream.write_all(head.as_bytes()).expect("a request is taken");
        stream
    };
    let mut streams: Vec<TcpStream> = (0..count).map(open).collect();
    for stream in &mut streams {
        let mut first = [0; 64];
        let _ = stream.read(&mut first);
    }
    streams
}

/// Calls without credit, each with an account of its own making.
pub fn refusals(network: &Network, count: u64, at_once: u64) -> Calls {
    let (status, opened) = network.call_as("", "POST", "/v1/accounts", Some(json!({})));
    assert_eq!(status, 201, "{opened}");
    let key = opened["api_key"].as_str().expect("a key").to_owned();
    let body = chat_body("hi", 8, false);
    calls(count, at_once, |_| network.call_as(&key, "POST", "/v1/chat/completions", Some(body.clone())).0)
}

/// Streams of one token.
pub fn small_streams(network: &Network, count: u64, at_once: u64) -> Calls {
    calls(count, at_once, |_| {
        let body = chat_body("hi", 1, true).to_string();
        let (status, bytes) =
            network.send(&network.ready.api_key, "POST", "/v1/chat/completions", Some(body.as_bytes()));
        let whole = String::from_utf8_lossy(&bytes).contains("[DONE]");
        if status == 200 && !whole { 0 } else { status }
    })
}

/// Short answers that are not streamed.
pub fn answers(network: &Network, count: u64, at_once: u64, tokens: u32) -> Calls {
    calls(count, at_once, |_| network.chat("Name three colours.", tokens).0)
}

/// Memory of a process, MiB.
pub fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// One line of a figure.
pub fn tell(what: &str, value: &Value) {
    println!("load: {what}: {value}");
}
