//! nats-server as a supervised child: started again when it ends, on the same port and data.

use anyhow::Result;
use journal::auth::{self, Role};
use journal::server::NatsServer;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Tries to start it again before giving up; each waits for the port.
const RESTARTS_MAX: u32 = 20;
/// Between two tries.
const RESTART_PERIOD: Duration = Duration::from_millis(250);

/// The running server's keeper.
pub struct Broker {
    pid: watch::Receiver<u32>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Broker {
    /// Takes the server over.
    pub fn keep(mut server: NatsServer) -> Broker {
        let (pids, pid) = watch::channel(server.pid().unwrap_or_default());
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => {
                        server.stop().await?;
                        return Ok(());
                    }
                    ended = server.ended() => {
                        tracing::warn!(target: "up", ?ended, "nats-server ended; starting it again");
                        restart(&mut server).await?;
                        pids.send_replace(server.pid().unwrap_or_default());
                    }
                }
            }
        });
        Broker { pid, stop, task }
    }

    /// Its process number now.
    pub fn pid(&self) -> u32 {
        *self.pid.borrow()
    }

    /// Ends it in order.
    pub async fn stop(self) -> Result<()> {
        // A keeper that gave up has ended already and says why.
        let _ = self.stop.send(());
        self.task.await?
    }
}

async fn restart(server: &mut NatsServer) -> Result<()> {
    let mut tick = tokio::time::interval(RESTART_PERIOD);
    for tried in 1.. {
        tick.tick().await;
        match server.restart().await {
            Ok(()) => return Ok(()),
            Err(error) if tried < RESTARTS_MAX => {
                tracing::warn!(target: "up", %error, "nats-server does not start yet");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Refuses a server that does not sync every write, as the server itself says.
pub async fn verify_durability(server: &NatsServer) -> Result<()> {
    let monitor = auth::connect(&server.url(), server.keys().credentials(Role::Monitor)).await?;
    Ok(journal::stream::verify_sync_always(&monitor).await?)
}
