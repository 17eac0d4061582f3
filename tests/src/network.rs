//! One whole network as a child process: `counterfoil up`, its ready file, its HTTP door.

use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// What `up --ready-file` writes.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Base URL without `/v1`.
    pub gateway: String,
    /// A funded customer's key.
    pub api_key: String,
    /// The administrator's key.
    pub admin_key: String,
    /// NATS URL.
    pub nats: String,
    /// JSON-RPC of the chain.
    pub chain_rpc: String,
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// The auditor's policy file.
    pub auditor_policy: PathBuf,
    /// Processes that tests may break.
    pub pids: Pids,
}

/// Process numbers of the children.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Pids {
    /// nats-server.
    pub nats: u32,
    /// The development chain.
    pub chain: u32,
    /// The worker.
    pub worker: u32,
}

/// How to start.
#[derive(Debug, Clone, Copy)]
pub struct NetworkOptions<'a> {
    /// Data directory; used again, the same ledger goes on.
    pub data: &'a Path,
    /// Walk the customer's story first.
    pub story: bool,
}

/// A running network; killed with all its children when dropped.
pub struct Network {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub ready: Ready,
    /// The story's steps, as printed.
    pub steps: Vec<Value>,
}

/// The built command, beside the test binaries.
pub fn counterfoil() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let target = exe.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let binary = target.join(format!("counterfoil{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.exists(), "{} is not built: cargo build --workspace --all-targets", binary.display());
    binary
}

/// The tree's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// The command with the tools' places: the environment's, else what `cargo xtask tools` fetched.
pub fn command() -> Command {
    let mut command = Command::new(counterfoil());
    let tools = root().join(".tools");
    let places = [
        ("COUNTERFOIL_NATS_SERVER", tools.join("bin/nats-server")),
        ("COUNTERFOIL_ANVIL", tools.join("bin/anvil")),
        ("COUNTERFOIL_MODEL", tools.join("models/SmolLM2-135M-Instruct.Q4_1.gguf")),
    ];
    for (variable, place) in places {
        if std::env::var_os(variable).is_none() {
            command.env(variable, place);
        }
    }
    command.stdin(Stdio::null());
    command
}

impl Network {
    /// Starts and waits until everything answers.
    pub fn up(options: NetworkOptions<'_>) -> Network {
        Network::start(command(), options, 0)
    }

    /// The same with the gateway at a port: a browser finds it again after a restart.
    pub fn up_at(options: NetworkOptions<'_>, port: u16) -> Network {
        Network::start(command(), options, port)
    }

    /// The same, and everything that it and its children write to stderr, at this level, goes to a file.
    pub fn up_logged(options: NetworkOptions<'_>, level: &str, log: &Path) -> Network {
        let mut command = command();
        let file = std::fs::File::create(log).expect("the log's file can be made");
        command.env("COUNTERFOIL_LOG", level).stderr(file);
        Network::start(command, options, 0)
    }

    fn start(mut command: Command, options: NetworkOptions<'_>, port: u16) -> Network {
        command.args(["--json", "up", "--port", &port.to_string(), "--data"]).arg(options.data);
        if !options.story {
            command.arg("--no-story");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the command starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut steps = Vec::new();
        match read_until_ready(&mut lines, &mut steps) {
            Some(ready) => Network { child, lines, ready, steps },
            None => panic!("up ended before it was ready: {:?}; steps {steps:#?}", child.wait()),
        }
    }

    /// Process number of the coordinator.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as Ctrl-C does; all children must be gone after it.
    pub fn interrupt(mut self) -> std::process::ExitStatus {
        crate::faults::signal(self.child.id(), "INT");
        let mut rest = String::new();
        let _ = self.lines.read_to_string(&mut rest);
        self.child.wait().expect("it ends")
    }

    /// `kill -9` of the coordinator; its children are left alone, as a crash leaves them.
    pub fn kill_coordinator(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// An HTTP call with the customer's key: status and body.
    pub fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_as(&self.ready.api_key, method, path, body)
    }

    /// An HTTP call with any key: status and body (text when it is no JSON).
    pub fn call_as(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let text = body.map(|b| b.to_string());
        let (status, bytes) = self.send(key, method, path, text.as_deref().map(str::as_bytes));
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (status, value)
    }

    /// An HTTP call with raw bytes.
    pub fn send(&self, key: &str, method: &str, path: &str, body: Option<&[u8]>) -> (u16, Vec<u8>) {
        let mut response = self.request(key, method, path, body);
        let status = response.status().as_u16();
        let bytes = response.body_mut().read_to_vec().unwrap_or_default();
        (status, bytes)
    }

    /// An HTTP call whose body is read as it comes.
    pub fn request(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> ureq::http::Response<ureq::Body> {
        let url = format!("{}{path}", self.ready.gateway);
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(body.unwrap_or_default().to_vec())
            .expect("a request of ours is well-formed");
        agent.run(request).expect("the gateway answers")
    }

    /// A chat, not streamed.
    pub fn chat(&self, content: &str, max_tokens: u32) -> (u16, Value) {
        self.call("POST", "/v1/chat/completions", Some(chat_body(content, max_tokens, false)))
    }

    /// A chat, streamed: the lines as they come.
    pub fn chat_stream(&self, content: &str, max_tokens: u32) -> ChatStream {
        let body = chat_body(content, max_tokens, true).to_string();
        let key = self.ready.api_key.clone();
        let response = self.request(&key, "POST", "/v1/chat/completions", Some(body.as_bytes()));
        assert_eq!(response.status().as_u16(), 200);
        ChatStream { lines: BufReader::new(Box::new(response.into_body().into_reader())) }
    }

    /// What the customer can spend, in base units of the first asset.
    pub fn available(&self) -> i128 {
        let (status, balance) = self.call("GET", "/v1/balance", None);
        assert_eq!(status, 200, "{balance}");
        balance["balances"][0]["base_units"]["available"]
            .as_str()
            .expect("a figure")
            .parse()
            .expect("an integer")
    }

    /// What is held, in base units of the first asset.
    pub fn held(&self) -> i128 {
        let (status, balance) = self.call("GET", "/v1/balance", None);
        assert_eq!(status, 200, "{balance}");
        balance["balances"][0]["base_units"]["held"].as_str().expect("a figure").parse().expect("an integer")
    }
}

/// Reads steps until the one that says where everything is; `None` at the end of the output.
fn read_until_ready(lines: &mut impl BufRead, steps: &mut Vec<Value>) -> Option<Ready> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).expect("stdout is text") == 0 {
            return None;
        }
        let step: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        if step["step"] == "ready" {
            return Some(serde_json::from_value(step["ready"].clone()).expect("ready has its fields"));
        }
        steps.push(step);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        crate::faults::signal(self.child.id(), "INT");
        let _ = self.child.wait();
    }
}

/// The JSON of a chat at temperature 0.
pub fn chat_body(content: &str, max_tokens: u32, stream: bool) -> Value {
    json!({"model": "SmolLM2-135M-Instruct", "temperature": 0, "max_tokens": max_tokens, "stream": stream,
           "messages": [{"role": "user", "content": content}]})
}

/// A stream of server-sent events.
pub struct ChatStream {
    lines: BufReader<Box<dyn Read>>,
}

impl ChatStream {
    /// The next `data:` payload; `None` at the end of the connection.
    pub fn next_data(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {
                    if let Some(data) = line.trim_end().strip_prefix("data: ") {
                        return Some(data.to_owned());
                    }
                }
            }
        }
    }

    /// Reads `count` payloads that carry text.
    pub fn read_text(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            let data = self.next_data().expect("the stream goes on");
            let chunk: Value = serde_json::from_str(&data).expect("chunks are JSON");
            if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str()
                && !text.is_empty()
            {
                texts.push(text.to_owned());
            }
        }
        texts
    }
}
