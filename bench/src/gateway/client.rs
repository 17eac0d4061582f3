//! A client on one connection that it keeps: as much of HTTP as the measurement needs, so that it costs little beside it.

use super::network::Network;
use crate::{BenchError, Tried};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest answer that is looked at in one piece.
const BUFFER_BYTES: usize = 16 * 1024;

pub struct Connection {
    stream: TcpStream,
    key: String,
    buffer: Vec<u8>,
}

/// A stream that is being read.
pub struct Reading<'a> {
    connection: &'a mut Connection,
    /// The job's id, as the header says.
    pub job: String,
    tokens: u32,
    ended: bool,
}

impl Connection {
    pub async fn open(network: &Network) -> Result<Connection, BenchError> {
        let stream = TcpStream::connect(network.address).await.tried("connect to the gateway")?;
        stream.set_nodelay(true).tried("set TCP_NODELAY")?;
        Ok(Connection { stream, key: network.api_key.clone(), buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Asks for a stream; returns when its head is here.
    pub async fn stream(&mut self, tokens: u32) -> Result<Reading<'_>, BenchError> {
        let body = format!(
            r#"{{"model":"{}","stream":true,"temperature":0,"max_tokens":{tokens},"messages":[{{"role":"user","content":"hello"}}]}}"#,
            super::network::MODEL
        );
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.key,
            body.len()
        );
        self.buffer.clear();
        self.stream.write_all((head + &body).as_bytes()).await.tried("send a request")?;
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        if !head.starts_with("HTTP/1.1 200") {
            self.more().await?;
            return Err(BenchError::failed("a stream")(String::from_utf8_lossy(&self.buffer).into_owned()));
        }
        let job = head.lines().find_map(|line| line.strip_prefix("x-counterfoil-job-id: "));
        let job = job.unwrap_or_default().trim().to_owned();
        self.buffer.drain(..end);
        Ok(Reading { connection: self, job, tokens: 0, ended: false })
    }

    async fn more(&mut self) -> Result<(), BenchError> {
        let read = self.stream.read_buf(&mut self.buffer).await.tried("read an answer")?;
        if read == 0 {
            return Err(BenchError::failed("an answer")("the connection ended".to_owned()));
        }
        Ok(())
    }
}

impl Reading<'_> {
    /// Tokens so far, when more came; `None` at the end. Every token of the zero-work worker is one `x`.
    pub async fn next_tokens(&mut self) -> Result<Option<u32>, BenchError> {
        loop {
            let before = self.tokens;
            self.take();
            if self.tokens > before {
                return Ok(Some(self.tokens));
            }
            if self.ended {
                return Ok(None);
            }
            self.connection.more().await?;
        }
    }

    pub async fn until_tokens(&mut self, count: u32) -> Result<(), BenchError> {
        while self.tokens < count {
            if self.next_tokens().await?.is_none() {
                return Err(BenchError::failed("a stream")(format!("ended after {} tokens", self.tokens)));
            }
        }
        Ok(())
    }

    pub async fn drain(mut self) -> Result<(), BenchError> {
        while self.next_tokens().await?.is_some() {}
        Ok(())
    }

    /// Counts the whole lines in the buffer.
    fn take(&mut self) {
        let buffer = &mut self.connection.buffer;
        let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else { return };
        for line in buffer[..=end].split(|byte| *byte == b'\n') {
            let Some(data) = line.strip_prefix(b"data: ") else {
                // The chunk of length 0 is HTTP's end of the answer.
                self.ended |= line == b"0\r";
                continue;
            };
            if let Some(at) = find(data, b"\"content\":\"") {
                let text = &data[at + 11..];
                let until = text.iter().position(|byte| *byte == b'"').unwrap_or(0);
                self.tokens += text[..until].iter().filter(|byte| **byte == b'x').count() as u32;
            }
        }
        buffer.drain(..=end);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
