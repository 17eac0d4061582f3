//! A TCP proxy between a NATS client and its server that does to the connection what networks do. It knows frames, so
//! that it can double or cut one publish.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the next publish on the log's subject, or to what the server says after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// It arrives; whatever the server says from then on is lost, and the connection after a while.
    LoseAck,
    /// It arrives; whatever the server says waits so long.
    DelayAck(Duration),
    /// It arrives twice.
    Double,
    /// Half of it arrives, then the connection is reset.
    CutPublish,
    /// It arrives, and the connection is reset at once.
    CutAfterPublish,
}

/// How long a connection without an answer lives.
const LOST_FOR: Duration = Duration::from_millis(300);

/// The frames that are hit begin so.
const TARGET: &[u8] = b"HPUB ledger.0 ";

pub struct Proxy {
    port: u16,
    next: Arc<Mutex<Fault>>,
    hits: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn start(server_port: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::new(Mutex::new(Fault::None));
        let (hits_tx, hits) = watch::channel(0);
        let hits_tx = Arc::new(hits_tx);
        let faults = next.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (faults, hits) = (faults.clone(), hits_tx.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { return };
                    serve(client, server, faults, hits).await;
                });
            }
        });
        Proxy { port, next, hits, task }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Hits the next publish, and waits until it was hit.
    pub async fn hit(&mut self, fault: Fault) {
        let before = *self.hits.borrow_and_update();
        *self.next.lock().unwrap() = fault;
        self.hits.wait_for(|hits| *hits > before).await.unwrap();
    }
}

/// What the direction to the server tells the direction from it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    Flows,
    Waits(Duration),
    IsLost,
}

async fn serve(
    client: TcpStream,
    server: TcpStream,
    faults: Arc<Mutex<Fault>>,
    hits: Arc<watch::Sender<u64>>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let back = Arc::new(Mutex::new(Back::Flows));
    // Whichever ends first ends both: dropping the halves closes the connections.
    tokio::select! {
        _ = up(from_client, to_server, faults, hits, back.clone()) => {}
        _ = down(from_server, to_client, back) => {}
    }
}

async fn up(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    faults: Arc<Mutex<Fault>>,
    hits: Arc<watch::Sender<u64>>,
    back: Arc<Mutex<Back>>,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    loop {
        let mut frame = Vec::new();
        if from.read_until(b'\n', &mut frame).await? == 0 {
            return Ok(());
        }
        let payload = payload_bytes(&frame);
        let head = frame.len();
        frame.resize(head + payload, 0);
        from.read_exact(&mut frame[head..]).await?;
        let fault = match frame.starts_with(TARGET) {
            true => std::mem::replace(&mut *faults.lock().unwrap(), Fault::None),
            false => Fault::None,
        };
        match fault {
            Fault::None => to.write_all(&frame).await?,
            Fault::LoseAck => {
                *back.lock().unwrap() = Back::IsLost;
                to.write_all(&frame).await?;
            }
            Fault::DelayAck(time) => {
                *back.lock().unwrap() = Back::Waits(time);
                to.write_all(&frame).await?;
            }
            Fault::Double => {
                to.write_all(&frame).await?;
                to.write_all(&frame).await?;
            }
            Fault::CutPublish => to.write_all(&frame[..frame.len() / 2]).await?,
            Fault::CutAfterPublish => to.write_all(&frame).await?,
        }
        if fault != Fault::None {
            hits.send_modify(|hits| *hits += 1);
        }
        if matches!(fault, Fault::CutPublish | Fault::CutAfterPublish) {
            return Ok(());
        }
    }
}

/// Bytes after the line: the payload and its line end.
fn payload_bytes(line: &[u8]) -> usize {
    if !line.starts_with(b"PUB ") && !line.starts_with(b"HPUB ") {
        return 0;
    }
    let text = std::str::from_utf8(line).unwrap();
    text.split_whitespace().last().unwrap().parse::<usize>().unwrap() + 2
}

async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    back: Arc<Mutex<Back>>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        // What was asked for before the publish went out holds for everything that the server says after it.
        let state = std::mem::replace(&mut *back.lock().unwrap(), Back::Flows);
        match state {
            Back::Flows => {}
            Back::Waits(time) => held_back(time).await,
            Back::IsLost => {
                held_back(LOST_FOR).await;
                return Ok(());
            }
        }
        to.write_all(&buffer[..count]).await?;
    }
}

async fn held_back(time: Duration) {
    tokio::time::sleep_until(tokio::time::Instant::now() + time).await;
}
