//! Keeps a child command running: started again when it ends, ended in order when we end, also when we are killed.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// The command in place of a shell, with a watchdog that waits for the end of a pipe only we hold; the kernel closes it
/// when we end, however we end, and the watchdog sends SIGTERM.
const WATCHED: &str =
    r#"exec 3<&0 </dev/null; { read -r _ <&3; kill -TERM $$; } & exec 3<&-; exec "$0" "$@""#;
/// Pause before an ended child is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// How long a child may take to end after SIGTERM.
const STOP_WAIT: Duration = Duration::from_secs(8);

/// A supervised child. Dropping it ends the child at once.
pub struct Supervised {
    pid: watch::Receiver<u32>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts `program` with `arguments`; its output goes to `log`.
    pub fn start(program: OsString, arguments: Vec<OsString>, log: std::fs::File) -> Result<Supervised> {
        let (first, lifeline) = spawn(&program, &arguments, &log)?;
        let (pid_sender, pid) = watch::channel(first.id().unwrap_or_default());
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let (mut child, mut lifeline) = (first, lifeline);
            loop {
                tokio::select! {
                    _ = &mut stopped => return end(child, lifeline).await,
                    ended = child.wait() => {
                        tracing::warn!(target: "up", ?ended, "a child ended; starting it again");
                    }
                }
                // Spread out, so that a child that cannot start does not fill the log.
                tokio::select! {
                    _ = &mut stopped => return,
                    () = tokio::time::sleep(RESTART_PAUSE) => {}
                }
                match spawn(&program, &arguments, &log) {
                    Ok(again) => (child, lifeline) = again,
                    Err(error) => {
                        tracing::error!(target: "up", %error, "a child cannot be started");
                        return;
                    }
                }
                pid_sender.send_replace(child.id().unwrap_or_default());
            }
        });
        Ok(Supervised { pid, stop: Some(stop), task })
    }

    /// Its process number now.
    pub fn pid(&self) -> u32 {
        *self.pid.borrow()
    }

    /// SIGTERM, then, after a while, SIGKILL.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The child and the pipe whose end is its SIGTERM. The pipe is kept apart: waiting for a child would close it.
fn spawn(
    program: &OsString,
    arguments: &[OsString],
    log: &std::fs::File,
) -> Result<(Child, Option<ChildStdin>)> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(WATCHED).arg(program).args(arguments);
    command.process_group(0).kill_on_drop(true).stdin(Stdio::piped());
    command.stdout(log.try_clone()?).stderr(log.try_clone()?);
    let mut child =
        command.spawn().with_context(|| format!("{} cannot be started", program.to_string_lossy()))?;
    let lifeline = child.stdin.take();
    Ok((child, lifeline))
}

async fn end(mut child: Child, lifeline: Option<ChildStdin>) {
    drop(lifeline);
    if tokio::time::timeout(STOP_WAIT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
