//! HTTP as an attacker speaks it: bytes on a socket, whatever they are. Must not: be polite, or parse more than it needs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for a byte of an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Most bytes of an answer that are kept.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest pause inside an answer.
const MORE_WAIT: Duration = Duration::from_millis(700);

/// Everything that came until the other side closed, or nothing came any more.
pub struct Answer {
    /// As text.
    pub text: String,
}

impl Answer {
    /// Status lines in it, in order: one for each request that the other side saw.
    pub fn statuses(&self) -> Vec<u16> {
        let words = self.text.match_indices("HTTP/1.1 ").map(|(at, _)| &self.text[at + 9..]);
        words.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
    }

    /// The first status; 0 when the connection was closed without one.
    pub fn status(&self) -> u16 {
        self.statuses().first().copied().unwrap_or(0)
    }
}

/// Connects to `http://HOST:PORT`.
pub fn connect(gateway: &str) -> TcpStream {
    let address = gateway.trim_start_matches("http://").trim_end_matches('/');
    let stream = TcpStream::connect(address).expect("the gateway listens");
    stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("nodelay can be set");
    stream
}

/// Sends bytes as they are, and reads to the end, or until nothing more comes for a moment.
pub fn exchange(gateway: &str, bytes: &[u8]) -> Answer {
    let mut stream = connect(gateway);
    // The other side may have had enough before the last byte.
    let _ = stream.write_all(bytes);
    read_answer(stream)
}

/// Reads to the end, or until nothing more comes for a moment.
pub fn read_answer(mut stream: TcpStream) -> Answer {
    let mut came = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while came.len() < ANSWER_BYTES_MAX {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(count) => came.extend_from_slice(&chunk[..count]),
        }
        // What has begun to come goes on coming, or is over.
        let _ = stream.set_read_timeout(Some(MORE_WAIT));
    }
    Answer { text: String::from_utf8_lossy(&came).into_owned() }
}

/// A GET of a path that is sent as it is, dots and all.
pub fn get(gateway: &str, path: &str) -> Answer {
    exchange(gateway, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
}
