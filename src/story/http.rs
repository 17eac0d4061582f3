//! A small HTTP client, as an outsider of the gateway has: JSON in, JSON out, and streams of server-sent events.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use tokio::sync::mpsc;

/// Payloads of a stream that may wait to be read.
const STREAM_LINES_MAX: usize = 1_024;

/// One gateway, perhaps with a key.
#[derive(Clone)]
pub struct Http {
    base: String,
    key: Option<String>,
}

impl Http {
    /// Without a key.
    pub fn new(base: &str) -> Http {
        Http { base: base.to_owned(), key: None }
    }

    /// The same gateway with a key.
    pub fn with_key(&self, key: &str) -> Http {
        Http { base: self.base.clone(), key: Some(key.to_owned()) }
    }

    /// GET; anything but a 2xx is an error with the gateway's words.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, None).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call("POST", path, Some(body)).await
    }

    async fn call(&self, method: &'static str, path: &str, body: Option<Value>) -> Result<Value> {
        let (client, path) = (self.clone(), path.to_owned());
        let sent = tokio::task::spawn_blocking(move || {
            let mut response = client.send(method, &path, body)?;
            let text = response.body_mut().read_to_string()?;
            parse(method, &path, response.status().as_u16(), &text)
        });
        sent.await?
    }

    /// POST whose answer is a stream: the `data:` payloads as they come.
    pub async fn stream(&self, path: &str, body: Value) -> Result<mpsc::Receiver<String>> {
        let (client, path) = (self.clone(), path.to_owned());
        let (lines, receiver) = mpsc::channel(STREAM_LINES_MAX);
        let opened = tokio::task::spawn_blocking(move || {
            let mut response = client.send("POST", &path, Some(body))?;
            let status = response.status().as_u16();
            if status != 200 {
                let text = response.body_mut().read_to_string()?;
                parse("POST", &path, status, &text)?;
            }
            Ok::<_, anyhow::Error>(response.into_body())
        });
        let body = opened.await??;
        tokio::task::spawn_blocking(move || {
            for line in BufReader::new(body.into_reader()).lines().map_while(Result::ok) {
                if let Some(data) = line.strip_prefix("data: ")
                    && lines.blocking_send(data.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.header("content-type", "application/json");
        let text = body.map(|b| b.to_string()).unwrap_or_default();
        agent.run(request.body(text)?).with_context(|| format!("{method} {}{path}", self.base))
    }
}

fn parse(method: &str, path: &str, status: u16, text: &str) -> Result<Value> {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    if !(200..300).contains(&status) {
        let said = value["error"]["message"].as_str().unwrap_or(text);
        bail!("{method} {path}: {status}: {said}");
    }
    Ok(value)
}
