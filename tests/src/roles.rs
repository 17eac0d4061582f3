//! The coordinator's roles as processes, and the nats-server they share.

use crate::network::command;
use journal::auth::connect;
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::init_streams;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use tokio::runtime::Runtime;

/// A nats-server with its streams.
pub struct Broker {
    /// Keeps the server's watch running; dropped after it.
    server: Option<NatsServer>,
    runtime: Runtime,
}

impl Broker {
    /// In a folder; its own files go to `broker/`, with the credentials of its roles under `broker/keys/`.
    pub fn start(dir: &Path) -> Broker {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(async {
            let root = crate::network::root().join(".tools/bin/nats-server");
            let binary = find_nats_server().unwrap_or(root);
            let options = NatsServerOptions { binary, data_dir: dir.join("broker"), port: PortChoice::Any };
            let server = NatsServer::start(options).await.expect("nats-server starts");
            let init = server.keys().init_credentials().expect("the account's seed is there");
            let init = connect(&server.url(), &init).await.expect("it answers");
            init_streams(&init).await.expect("streams can be made");
            server
        });
        Broker { server: Some(server), runtime }
    }

    /// Its process number now: it is started again when it ends.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().and_then(NatsServer::pid).expect("it runs")
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.server.as_ref().expect("it runs").url()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.server.take();
    }
}

/// A process of `counterfoil serve`; killed when dropped.
pub struct Role {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Role {
    /// With a configuration file.
    pub fn start(config: &str) -> Role {
        let mut command = command();
        command.args(["--json", "serve", "--config", config]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the command starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Role { child, lines }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says that something happened; panics when it ends before.
    pub fn says(&mut self, event: &str) -> Value {
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).expect("stdout is text");
            assert!(read > 0, "it ended before {event:?}: {:?}", self.child.wait());
            let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            if said["event"] == event {
                return said;
            }
        }
    }

    /// Ends it as Ctrl-C does.
    pub fn interrupt(mut self) -> ExitStatus {
        crate::faults::signal(self.child.id(), "INT");
        self.child.wait().expect("it ends")
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP call with any key: status and body (text when it is no JSON). A gateway that does not answer is status 599.
pub fn http(method: &str, url: &str, key: &str, body: Option<Value>) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request =
        ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = request.body(body.into_bytes()).expect("a request of ours is well-formed");
    match agent.run(request) {
        Ok(mut response) => {
            let status = response.status().as_u16();
            let bytes = response.body_mut().read_to_vec().unwrap_or_default();
            let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
            (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
        }
        Err(error) => (599, Value::String(error.to_string())),
    }
}
