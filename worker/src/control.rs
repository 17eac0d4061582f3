//! The worker's own socket, `<data_dir>/control.sock`: one line in (`status` or `drain`), one JSON [`Status`] out. Whoever
//! may open the data directory may ask.

use crate::error::WorkerError;
use crate::worker::{Status, WorkerHandle};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Longest request.
const REQUEST_BYTES_MAX: u64 = 64;
/// Longest answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long a request and its answer may take.
const ANSWER_MS_MAX: u64 = 5_000;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Only the status.
    Status,
    /// Drain; the status afterwards.
    Drain,
}

impl Request {
    fn word(self) -> &'static str {
        match self {
            Request::Status => "status",
            Request::Drain => "drain",
        }
    }
}

fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Asks the worker that runs on `data_dir`.
///
/// # Errors
/// [`WorkerError::NotRunning`].
pub async fn ask(data_dir: &Path, request: Request) -> Result<Status, WorkerError> {
    let path = socket_path(data_dir);
    let exchange = async {
        let mut stream = UnixStream::connect(&path).await?;
        stream.write_all(format!("{}\n", request.word()).as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        serde_json::from_slice(&answer).map_err(std::io::Error::from)
    };
    let answered = tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), exchange).await;
    let answered = answered.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    answered.map_err(|e| WorkerError::NotRunning { path, detail: e.to_string() })
}

/// Takes the socket; what a dead worker left is replaced (the caller holds the directory's lock).
pub(crate) fn bind(data_dir: &Path) -> Result<UnixListener, WorkerError> {
    let path = socket_path(data_dir);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(WorkerError::file(&path, e)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(|e| {
        WorkerError::file(
            &path,
            format!("{e}; socket paths are short (about 100 bytes): a shorter data_dir may help"),
        )
    })?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, private).map_err(|e| WorkerError::file(&path, e))?;
    Ok(listener)
}

/// Answers for as long as the worker lives.
pub(crate) async fn serve(listener: UnixListener, handle: WorkerHandle) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file handles, say; the next caller may have more luck, and the worker does not depend on it.
                tracing::warn!(target: "worker", %error, "control socket");
                tokio::task::yield_now().await;
                continue;
            }
        };
        // One caller at a time is enough; a slow one is cut off.
        let answer = answer(stream, &handle);
        match tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), answer).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(target: "worker", %error, "control socket"),
            Err(_) => tracing::debug!(target: "worker", "control socket: caller too slow"),
        }
    }
}

async fn answer(stream: UnixStream, handle: &WorkerHandle) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    match line.trim() {
        "status" => {}
        "drain" => handle.drain(),
        _ => return write.write_all(b"expected status or drain\n").await,
    }
    let status = serde_json::to_vec(&handle.status())?;
    write.write_all(&status).await?;
    write.shutdown().await
}
