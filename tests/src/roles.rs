//! The coordinator's roles as processes, and the nats-server they share.

use crate::network::command;
use journal::auth::connect;
use journal::server::{
    NatsCluster, NatsClusterOptions, NatsServer, NatsServerOptions, PortChoice, find_nats_server,
};
use journal::stream::{init_streams, init_streams_replicated};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long three servers may take to elect their first leaders.
const ELECTION_WAIT: Duration = Duration::from_secs(60);

enum Servers {
    One(Box<NatsServer>),
    Three(Box<NatsCluster>),
}

/// A nats-server with its streams, or three.
pub struct Broker {
    /// Keeps the servers' watch running; dropped after them.
    servers: Option<Servers>,
    runtime: Runtime,
}

impl Broker {
    /// In a folder; its own files go to `broker/`, with the credentials of its roles under `broker/keys/`.
    pub fn start(dir: &Path) -> Broker {
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(async {
            let options =
                NatsServerOptions { binary: binary(), data_dir: dir.join("broker"), port: PortChoice::Any };
            let server = NatsServer::start(options).await.expect("nats-server starts");
            let init = server.keys().init_credentials().expect("the account's seed is there");
            let init = connect(&server.url(), &init).await.expect("it answers");
            init_streams(&init).await.expect("streams can be made");
            server
        });
        Broker { servers: Some(Servers::One(Box::new(server))), runtime }
    }

    /// Three servers, every stream on each.
    pub fn start_three(dir: &Path) -> Broker {
        let runtime = Runtime::new().expect("a runtime");
        let cluster = runtime.block_on(async {
            let options = NatsClusterOptions { binary: binary(), data_dir: dir.join("broker") };
            let cluster = NatsCluster::start(options).await.expect("three nats-servers start");
            let init = cluster.keys().init_credentials().expect("the account's seed is there");
            let init = connect(&cluster.url(), &init).await.expect("they answer");
            let mut again = tokio::time::interval(Duration::from_millis(100));
            let made = async {
                // Until they have elected who may make streams, they say no.
                while init_streams_replicated(&init, 3).await.is_err() {
                    again.tick().await;
                }
            };
            tokio::time::timeout(ELECTION_WAIT, made).await.expect("the servers elect a leader");
            cluster
        });
        Broker { servers: Some(Servers::Three(Box::new(cluster))), runtime }
    }

    /// Where it listens; several addresses with commas between them.
    pub fn url(&self) -> String {
        match self.servers.as_ref().expect("they run") {
            Servers::One(server) => server.url(),
            Servers::Three(cluster) => cluster.url(),
        }
    }

    /// How many servers every stream stands on.
    pub fn replicas(&self) -> usize {
        match self.servers.as_ref().expect("they run") {
            Servers::One(_) => 1,
            Servers::Three(_) => 3,
        }
    }

    /// kill -9 of a single server, and started again.
    pub fn kill_and_restart(&mut self) {
        let Some(Servers::One(server)) = &mut self.servers else { panic!("they are three servers") };
        self.runtime.block_on(async {
            server.kill().await.expect("it can be killed");
            server.restart().await.expect("it starts again");
        });
    }

    /// kill -9 of one of three; it stays dead.
    pub fn kill_member(&mut self, index: usize) {
        let Some(Servers::Three(cluster)) = &mut self.servers else { panic!("it is one server") };
        self.runtime.block_on(cluster.server(index).kill()).expect("it can be killed");
    }

    /// Starts a killed one again.
    pub fn restart_member(&mut self, index: usize) {
        let Some(Servers::Three(cluster)) = &mut self.servers else { panic!("it is one server") };
        self.runtime.block_on(cluster.server(index).restart()).expect("it starts again");
    }
}

fn binary() -> std::path::PathBuf {
    find_nats_server().unwrap_or(crate::network::root().join(".tools/bin/nats-server"))
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.servers.take();
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
