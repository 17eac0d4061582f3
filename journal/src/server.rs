//! The supervised nats-server child: finds the binary, writes its configuration, starts it, waits until it serves,
//! stops and restarts it, and cleans up after a coordinator that was killed. Must not: know streams or permissions.
//!
//! Life and death: `kill -9` of the coordinator leaves the server running (a parent-death signal would need unsafe code,
//! and on Linux it is tied to the thread that forked). So the data directory is locked while we live, and the next start
//! on it finds the old server by its pid file, checks its command line, ends it, and starts its own.

mod cluster;

pub use cluster::{NatsCluster, NatsClusterOptions};

use crate::auth::{AuthError, Keys};
use cluster::Member;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The port everybody expects NATS on.
pub const DEFAULT_PORT: u16 = 4222;
/// The oldest server that knows what we rely on (`persist_mode`, fencing by expected sequence under JWT).
pub const SERVER_VERSION_MIN: (u64, u64) = (2, 12);
/// The variable that names the binary.
pub const BINARY_VARIABLE: &str = "COUNTERFOIL_NATS_SERVER";
/// How long a start may take; recovery of a large store comes before the port opens.
const START_SECONDS_MAX: u64 = 120;
/// How often the port is tried while the server starts: another process offers nothing to await.
const PROBE_MS: u64 = 10;
/// How long an orderly stop may take before the server is killed.
const STOP_SECONDS_MAX: u64 = 10;
/// Ports tried when somebody takes ours between choosing and starting.
const START_TRIES_MAX: u32 = 3;
/// Bytes of the server's log that an error shows.
const LOG_TAIL_BYTES: usize = 2_000;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No binary.
    #[error(
        "nats-server was not found (looked at ${BINARY_VARIABLE}, in PATH and in .tools/bin): run `cargo xtask tools`"
    )]
    NoBinary,
    /// A port was asked for and is taken.
    #[error(
        "port {port} is in use; stop what listens there, or choose another port, or leave the choice to us"
    )]
    PortBusy {
        /// Which.
        port: u16,
    },
    /// Another coordinator lives.
    #[error(
        "{path} is locked: another process runs the log in this data directory; stop it, or use another directory"
    )]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// A file or process call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// It ended, or never opened its port.
    #[error("nats-server did not start ({reason}); the end of {log}:\n{log_tail}")]
    NotStarted {
        /// How it failed.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines.
        log_tail: String,
    },
    /// Too old, or without JetStream, or not our server.
    #[error("the server on port {port} is not usable: {reason}")]
    Unfit {
        /// Where.
        port: u16,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Keys.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// Which port to serve on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortChoice {
    /// [`DEFAULT_PORT`]; a free one when that is busy ([`NatsServer::port_note`] says so).
    Default,
    /// This one; busy is an error.
    Explicit(u16),
    /// Any free one.
    Any,
}

/// How to start.
#[derive(Clone, Debug)]
pub struct NatsServerOptions {
    /// The nats-server binary ([`find_nats_server`]).
    pub binary: PathBuf,
    /// The coordinator's data directory; the server's own files go to `nats/`, keys to `keys/`.
    pub data_dir: PathBuf,
    /// The port.
    pub port: PortChoice,
}

/// A running server. Dropping it kills it (`kill -9` never loses what was acknowledged).
#[derive(Debug)]
pub struct NatsServer {
    options: NatsServerOptions,
    keys: Keys,
    child: Option<Child>,
    port: u16,
    port_note: Option<String>,
    /// One of several servers.
    member: Option<Member>,
    /// See [`NatsServer::limit_store`].
    store_bytes_max: Option<u64>,
    // Held while this value lives, by this process alone (the child does not inherit it).
    _lock: File,
}

/// Finds the binary: the variable, then PATH, then `.tools/bin` here or in a directory above.
pub fn find_nats_server() -> Result<PathBuf, ServerError> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(ServerError::NoBinary) };
    }
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&in_path).collect();
    let here = std::env::current_dir().map_err(|e| io("current directory", e))?;
    places.extend(here.ancestors().map(|dir| dir.join(".tools/bin")));
    let found = places.into_iter().map(|dir| dir.join("nats-server")).find(|path| path.is_file());
    found.ok_or(ServerError::NoBinary)
}

impl NatsServer {
    /// Starts a server on the data directory and waits until it serves. A server that a killed coordinator left behind
    /// there is ended first. Keys are made when there are none.
    pub async fn start(options: NatsServerOptions) -> Result<NatsServer, ServerError> {
        Self::start_as(options, None).await
    }

    async fn start_as(
        mut options: NatsServerOptions,
        member: Option<Member>,
    ) -> Result<NatsServer, ServerError> {
        let data_dir = std::path::absolute(&options.data_dir);
        options.data_dir = data_dir.map_err(|e| io(format!("find {}", options.data_dir.display()), e))?;
        let dir = options.data_dir.join("nats");
        std::fs::create_dir_all(&dir).map_err(|e| io(format!("create {}", dir.display()), e))?;
        let lock = lock_directory(&dir)?;
        let own_keys = options.data_dir.join("keys");
        let keys = Keys::load_or_create(member.as_ref().map_or(&own_keys, |member| &member.keys_dir))?;
        end_orphan(&dir).await?;
        let (port, port_note) = choose_port(options.port)?;
        let store_bytes_max = None;
        let mut server =
            NatsServer { options, keys, child: None, port, port_note, member, store_bytes_max, _lock: lock };
        let mut tries = 1;
        loop {
            match server.spawn().await {
                Ok(()) => return Ok(server),
                // Somebody took the port between choosing it and listening on it.
                Err(error) => {
                    if server.options.port == PortChoice::Explicit(server.port)
                        || tries == START_TRIES_MAX
                        || is_free(server.port)
                    {
                        return Err(error);
                    }
                    server.port = free_port()?;
                    tries += 1;
                }
            }
        }
    }

    /// `nats://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What to tell people when the default port was busy.
    pub fn port_note(&self) -> Option<&str> {
        self.port_note.as_deref()
    }

    /// Process id; `None` when it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The keys of this data directory.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The server's own log.
    pub fn log_path(&self) -> PathBuf {
        self.nats_dir().join("nats-server.log")
    }

    /// `kill -9`, and waits until it is gone. For chaos.
    pub async fn kill(&mut self) -> Result<(), ServerError> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.map_err(|e| io("kill nats-server", e))?;
        }
        Ok(())
    }

    /// Stops it in good order; kills it when that takes too long.
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id() {
            signal(pid, Signal::SIGTERM);
        }
        match tokio::time::timeout(Duration::from_secs(STOP_SECONDS_MAX), child.wait()).await {
            Ok(ended) => ended.map(|_| ()).map_err(|e| io("wait for nats-server", e)),
            Err(_) => child.kill().await.map_err(|e| io("kill nats-server", e)),
        }
    }

    /// Starts it again on the same data and port (killing it when it runs).
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.kill().await?;
        self.spawn().await
    }

    /// Lets the store take no more than so many bytes from the next start on; `None`: what the disk has. For chaos, in
    /// place of a full disk.
    pub fn limit_store(&mut self, bytes_max: Option<u64>) {
        self.store_bytes_max = bytes_max;
    }

    /// Waits until the server ends by itself; for whoever supervises it. Never returns while it runs.
    pub async fn ended(&mut self) -> Result<std::process::ExitStatus, ServerError> {
        match &mut self.child {
            Some(child) => child.wait().await.map_err(|e| io("wait for nats-server", e)),
            None => std::future::pending().await,
        }
    }

    fn nats_dir(&self) -> PathBuf {
        self.options.data_dir.join("nats")
    }

    async fn spawn(&mut self) -> Result<(), ServerError> {
        let config = self.nats_dir().join("server.conf");
        let text = self.config_text();
        std::fs::write(&config, text).map_err(|e| io(format!("write {}", config.display()), e))?;
        let log_from = std::fs::metadata(self.log_path()).map_or(0, |m| m.len());
        let binary = &self.options.binary;
        let child = Command::new(binary)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in the terminal is for us: we stop the server last.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| io(format!("start {}", binary.display()), e))?;
        let child = self.child.insert(child);
        let served = async {
            tokio::select! {
                ended = child.wait() => Err(match ended {
                    Ok(status) => format!("it ended with {status}"),
                    Err(error) => error.to_string(),
                }),
                info = probe(self.port) => Ok(info),
            }
        };
        let served = tokio::time::timeout(Duration::from_secs(START_SECONDS_MAX), served).await;
        let late = || format!("port {} was not open after {START_SECONDS_MAX} s", self.port);
        let served = served.unwrap_or_else(|_| Err(late()));
        let checked = match served {
            Ok(info) => check_info(&info, self.port, &self.name()),
            Err(reason) => {
                let log = self.log_path();
                let log_tail = log_tail(&log, log_from);
                Err(ServerError::NotStarted { reason, log, log_tail })
            }
        };
        if checked.is_err() {
            self.kill().await?;
        }
        checked
    }

    fn name(&self) -> String {
        self.member.as_ref().map_or_else(|| server_name(&self.keys), |member| member.name.clone())
    }

    fn config_text(&self) -> String {
        let dir = self.nats_dir();
        let quoted = |name: &str| serde_json::Value::from(dir.join(name).to_string_lossy()).to_string();
        let limit = self.store_bytes_max.map_or_else(String::new, |bytes| format!("  max_file: {bytes}\n"));
        let (jetstream, cluster) = self.member.as_ref().map_or_else(Default::default, Member::config_text);
        format!(
            "# Written by counterfoil at every start; edits are lost.\n\
             server_name: \"{name}\"\nlisten: \"127.0.0.1:{port}\"\nmax_payload: 8MB\n\
             pid_file: {pid}\nlog_file: {log}\nlogfile_size_limit: 64MB\nlogfile_max_num: 4\n\
             jetstream {{\n  store_dir: {store}\n  # Every acknowledgement follows an fsync. Do not weaken.\n  sync_interval: always\n{limit}{jetstream}}}\n\
             {cluster}resolver: {{ type: full, dir: {jwt}, allow_delete: false, interval: \"2m\" }}\n{accounts}",
            name = self.name(),
            port = self.port,
            pid = quoted("nats-server.pid"),
            log = quoted("nats-server.log"),
            store = quoted("store"),
            jwt = quoted("jwt"),
            accounts = self.keys.server_config(),
        )
    }
}

/// Bound to the ledger's account, so that a stranger on our port is told apart.
fn server_name(keys: &Keys) -> String {
    format!("counterfoil-{}", &keys.ledger_account()[..12])
}

fn lock_directory(dir: &Path) -> Result<File, ServerError> {
    let path = dir.join("lock");
    let file = File::options().create(true).write(true).truncate(false).open(&path);
    let file = file.map_err(|e| io(format!("open {}", path.display()), e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServerError::InUse { path }),
        Err(TryLockError::Error(e)) => Err(io(format!("lock {}", path.display()), e)),
    }
}

/// Ends the server that a killed coordinator left on this directory. We hold the lock, so nobody owns it.
async fn end_orphan(dir: &Path) -> Result<(), ServerError> {
    let pid_file = dir.join("nats-server.pid");
    let Ok(text) = std::fs::read_to_string(&pid_file) else { return Ok(()) };
    let Ok(pid) = text.trim().parse::<u32>() else { return Ok(()) };
    // The number may be anybody's by now: only a process started with our configuration file is ours.
    let config = dir.join("server.conf");
    let is_ours = || command_line(pid).is_some_and(|line| line.contains(&*config.to_string_lossy()));
    if !is_ours() {
        return Ok(());
    }
    tracing::warn!(target: "journal", pid, "ending the nats-server that a killed coordinator left behind");
    let mut ticks = tokio::time::interval(Duration::from_millis(PROBE_MS));
    for (wanted, seconds_max) in [(Signal::SIGTERM, STOP_SECONDS_MAX), (Signal::SIGKILL, STOP_SECONDS_MAX)] {
        signal(pid, wanted);
        for _ in 0..seconds_max * 1_000 / PROBE_MS {
            ticks.tick().await;
            if !is_ours() {
                return Ok(());
            }
        }
    }
    let log = dir.join("nats-server.log");
    let log_tail = log_tail(&log, 0);
    let reason = format!("an old server, process {pid}, does not end; end it by hand");
    Err(ServerError::NotStarted { reason, log, log_tail })
}

/// The command line of a live process; from /proc, elsewhere from `ps`. A zombie has none.
fn command_line(pid: u32) -> Option<String> {
    if Path::new("/proc/self/cmdline").exists() {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        return Some(String::from_utf8_lossy(&bytes).replace('\0', " "));
    }
    let output =
        std::process::Command::new("ps").args(["-ww", "-o", "command=", "-p", &pid.to_string()]).output();
    output.ok().map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
}

fn signal(pid: u32, wanted: Signal) {
    let Ok(pid) = i32::try_from(pid) else { return };
    if let Err(error) = kill(Pid::from_raw(pid), wanted) {
        // Gone already, most likely; the wait that follows tells.
        tracing::debug!(target: "journal", pid, %error, "signal not delivered");
    }
}

fn choose_port(choice: PortChoice) -> Result<(u16, Option<String>), ServerError> {
    match choice {
        PortChoice::Explicit(port) if is_free(port) => Ok((port, None)),
        PortChoice::Explicit(port) => Err(ServerError::PortBusy { port }),
        PortChoice::Any => Ok((free_port()?, None)),
        PortChoice::Default if is_free(DEFAULT_PORT) => Ok((DEFAULT_PORT, None)),
        PortChoice::Default => {
            let port = free_port()?;
            let note = format!("port {DEFAULT_PORT} is in use; NATS serves on {port} instead");
            tracing::warn!(target: "journal", port, "{note}");
            Ok((port, Some(note)))
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> Result<u16, ServerError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| io("find a free port", e))?;
    listener.local_addr().map(|a| a.port()).map_err(|e| io("find a free port", e))
}

/// Connects until the server says INFO; returns its JSON.
async fn probe(port: u16) -> String {
    let mut ticks = tokio::time::interval(Duration::from_millis(PROBE_MS));
    loop {
        ticks.tick().await;
        let Ok(stream) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await else {
            continue;
        };
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line).await;
        if let (Ok(_), Some(info)) = (read, line.strip_prefix("INFO ")) {
            return info.to_owned();
        }
    }
}

fn check_info(info: &str, port: u16, name: &str) -> Result<(), ServerError> {
    let unfit = |reason: String| Err(ServerError::Unfit { port, reason });
    let Ok(info) = serde_json::from_str::<serde_json::Value>(info) else {
        return unfit(format!("its INFO is not JSON: {info:?}"));
    };
    if info["server_name"] != name {
        return unfit(format!(
            "expected server {name}, found {}; another server took the port",
            info["server_name"]
        ));
    }
    let version = info["version"].as_str().unwrap_or_default();
    let mut parts = version.split('.').map_while(|p| p.parse::<u64>().ok());
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if (major, minor) < SERVER_VERSION_MIN {
        let (want_major, want_minor) = SERVER_VERSION_MIN;
        return unfit(format!(
            "version {version:?}, expected {want_major}.{want_minor} or newer: run `cargo xtask tools`"
        ));
    }
    if info["jetstream"] != true {
        return unfit("JetStream is off".to_owned());
    }
    Ok(())
}

fn log_tail(log: &Path, from: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(0).min(bytes.len());
    let new = &bytes[from..];
    String::from_utf8_lossy(&new[new.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
}

fn io(what: impl Into<String>, source: std::io::Error) -> ServerError {
    ServerError::Io { what: what.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(info: &str) -> String {
        check_info(info, 1, "us").err().map_or_else(|| "ok".to_owned(), |e| e.to_string())
    }

    #[test]
    fn info_is_read_strictly() {
        assert_eq!(check(r#"{"server_name":"us","version":"2.15.1","jetstream":true}"#), "ok");
        assert_eq!(check(r#"{"server_name":"us","version":"3.0.0","jetstream":true}"#), "ok");
        assert!(check(r#"{"server_name":"us","version":"2.11.9","jetstream":true}"#).contains("2.12"));
        assert!(check(r#"{"server_name":"us","version":"x","jetstream":true}"#).contains("2.12"));
        assert!(check(r#"{"server_name":"us","version":"2.15.1"}"#).contains("JetStream"));
        assert!(
            check(r#"{"server_name":"them","version":"2.15.1","jetstream":true}"#).contains("another server")
        );
        assert!(check("nonsense").contains("not JSON"));
    }

    #[test]
    fn a_busy_explicit_port_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = choose_port(PortChoice::Explicit(port)).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("choose another port"), "{error}");
    }
}
