//! The development chain: a supervised anvil. It listens on loopback, says nothing, keeps its state in a file when
//! told to, and ends with us, however we end.

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::chain::{Chain, ChainConfig};
use crate::error::ChainError;

/// A start that takes longer than this has failed.
const READY_WAIT: Duration = Duration::from_secs(30);
/// The pause between two questions whether it is ready.
const READY_POLL: Duration = Duration::from_millis(20);
/// Free ports that are tried when none is asked for.
const FREE_PORT_TRIES_MAX: u32 = 3;
/// How long it may take to write its state and end.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Runs anvil in place of the shell, with a watchdog beside it that waits for the end of a pipe which only we hold.
/// The kernel closes that pipe when we end, also by SIGKILL; then the watchdog ends anvil, which writes its state.
/// (The usual way, PR_SET_PDEATHSIG in the child, needs unsafe code, which the house forbids outside `kernels`.)
const WATCHED: &str =
    r#"exec 3<&0 </dev/null; { read -r _ <&3; kill -TERM $$; } & exec 3<&-; exec "$0" "$@""#;

/// When blocks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mining {
    /// One for each transaction, at once.
    Instant,
    /// One every so many seconds.
    Interval {
        /// The seconds.
        block_time_s: u64,
    },
    /// Both: at once for each transaction, and every so many seconds, so that confirmations grow by themselves.
    Mixed {
        /// The seconds.
        block_time_s: u64,
    },
}

/// How to start anvil.
#[derive(Debug, Clone)]
pub struct AnvilOptions {
    /// The program; see [`find_anvil`].
    pub program: PathBuf,
    /// The port on loopback; 0 picks a free one.
    pub port: u16,
    /// The chain id.
    pub chain_id: u64,
    /// When blocks are made.
    pub mining: Mining,
    /// Where the chain is kept, written every second and at the end; `None` forgets it.
    pub state_file: Option<PathBuf>,
}

/// A running anvil. Dropping it ends it.
#[derive(Debug)]
pub struct Anvil {
    child: Child,
    port: u16,
    chain_id: u64,
}

/// Finds anvil: `COUNTERFOIL_ANVIL`, then `PATH`, then `.tools/bin/anvil` under `root`.
pub fn find_anvil(root: &Path) -> Result<PathBuf, ChainError> {
    if let Some(named) = std::env::var_os("COUNTERFOIL_ANVIL") {
        let named = PathBuf::from(named);
        return match named.is_file() {
            true => Ok(named),
            false => Err(cause(format!("is not at {} (COUNTERFOIL_ANVIL)", named.display()))),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("anvil"));
    let candidates = on_path.chain([root.join(".tools/bin/anvil")]);
    let found = candidates.into_iter().find(|place| place.is_file());
    found.ok_or_else(|| cause("was not found on PATH or in .tools/bin: run cargo xtask tools".to_string()))
}

impl Anvil {
    /// Starts it and waits until it answers.
    pub async fn start(options: &AnvilOptions) -> Result<Self, ChainError> {
        if options.port != 0 {
            return Self::start_at(options, options.port).await;
        }
        let mut started = Self::start_at(options, free_port()?).await;
        for _ in 1..FREE_PORT_TRIES_MAX {
            if started.is_ok() {
                break;
            }
            // Somebody may have taken the free port in the moment before anvil did.
            started = Self::start_at(options, free_port()?).await;
        }
        started
    }

    async fn start_at(options: &AnvilOptions, port: u16) -> Result<Self, ChainError> {
        require_free(port)?;
        let child = command(options, port).spawn();
        let child = child.map_err(|error| cause(format!("could not be started through sh: {error}")))?;
        let mut anvil = Self { child, port, chain_id: options.chain_id };
        anvil.wait_ready().await?;
        Ok(anvil)
    }

    /// Its HTTP address.
    pub fn rpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id; `None` once it has ended.
    pub fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How to connect to it.
    pub fn config(&self, confirmations: u64, poll_interval_ms: u64) -> ChainConfig {
        ChainConfig { rpc_url: self.rpc_url(), chain_id: self.chain_id, confirmations, poll_interval_ms }
    }

    /// Ends it in order: it writes its state first.
    pub async fn stop(mut self) -> Result<(), ChainError> {
        // Closing the pipe wakes the watchdog, which sends SIGTERM.
        drop(self.child.stdin.take());
        match tokio::time::timeout(STOP_WAIT, self.child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(cause(format!("could not be waited for: {error}"))),
            Err(_) => {
                Err(cause(format!("did not end within {STOP_WAIT:?}; it is killed, its state may be old")))
            }
        }
    }

    async fn wait_ready(&mut self) -> Result<(), ChainError> {
        let started = Instant::now();
        loop {
            let answer = Chain::connect(self.config(0, 20)).await;
            // Asked after the answer: on a port that was just taken, the answer is somebody else's.
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(cause(format!(
                    "ended at once with {status}; is its state file of another version?"
                )));
            }
            match answer {
                Ok(_) => return Ok(()),
                Err(error @ ChainError::WrongChain { .. }) => return Err(error),
                Err(_) if started.elapsed() < READY_WAIT => tokio::time::sleep(READY_POLL).await,
                Err(error) => return Err(cause(format!("did not answer within {READY_WAIT:?}: {error}"))),
            }
        }
    }
}

fn command(options: &AnvilOptions, port: u16) -> Command {
    let mut arguments: Vec<OsString> =
        ["--silent", "--host", "127.0.0.1", "--accounts", "20"].map(OsString::from).into();
    let mut add = |flag: &str, value: OsString| arguments.extend([OsString::from(flag), value]);
    add("--port", port.to_string().into());
    add("--chain-id", options.chain_id.to_string().into());
    if let Mining::Interval { block_time_s } | Mining::Mixed { block_time_s } = options.mining {
        add("--block-time", block_time_s.to_string().into());
    }
    if let Some(file) = &options.state_file {
        add("--state", file.clone().into_os_string());
        add("--state-interval", "1".into());
    }
    if let Mining::Mixed { .. } = options.mining {
        arguments.push("--mixed-mining".into());
    }
    let mut command = Command::new("sh");
    command.arg("-c").arg(WATCHED).arg(&options.program).args(arguments);
    // A group of its own: Ctrl-C in a terminal goes to us, and we end it in order.
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn free_port() -> Result<u16, ChainError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|error| cause(format!("found no free port: {error}")))
}

fn require_free(port: u16) -> Result<(), ChainError> {
    // The listener is closed at once; anvil takes the port a moment later.
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|_| ()).map_err(|error| {
        cause(format!("cannot listen on port {port}: {error}; stop what uses it, or choose another port"))
    })
}

fn cause(cause: String) -> ChainError {
    ChainError::Anvil { cause }
}
