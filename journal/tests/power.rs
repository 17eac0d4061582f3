//! Power loss of the broker's machine, emulated: strace watches what nats-server writes and syncs; after kill -9 everything
//! that was written and not synced is taken from its files, as a disk that lost power may do. Every acknowledged commit must
//! still be there. Skipped, with the reason, where strace cannot trace.

mod harness;

use harness::*;
use journal::server::{NatsServer, NatsServerOptions, PortChoice, find_nats_server};
use journal::stream::init_streams;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ROUNDS: u64 = 3;
/// Commands between two losses, some of them on their way when it happens.
const COMMANDS: u64 = 150;

/// Why the machine cannot trace, if it cannot.
fn unfit() -> Option<String> {
    match Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output() {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(String::from_utf8_lossy(&done.stderr).into_owned()),
        Err(error) => Some(format!("strace: {error}")),
    }
}

/// A nats-server that is traced: the same arguments, the same process beneath.
fn traced(dir: &Path) -> PathBuf {
    let script = dir.join("nats-server");
    let binary = find_nats_server().expect("run cargo xtask tools");
    let calls = "trace=openat,pwrite64,write,fsync,fdatasync,ftruncate";
    let text = format!(
        "#!/bin/sh\ncase \"$1\" in --version|-v) exec {0} \"$@\";; esac\nexec strace -f -qq -y -s 0 -A -o {1} -e {calls} {0} \"$@\"\n",
        binary.display(),
        dir.join("calls").display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// Files that lost power: what is durable of each.
#[derive(Default, Debug)]
struct Disk {
    files: BTreeMap<String, File>,
}

#[derive(Default, Debug)]
struct File {
    /// Every write is a sync.
    always: bool,
    length: u64,
    synced: u64,
    dirty: bool,
}

impl Disk {
    /// From strace's lines. A write counts from its beginning, a sync from its beginning too: what was written while it ran
    /// is not believed to be durable.
    fn of(calls: &str) -> Disk {
        let mut disk = Disk::default();
        for line in calls.lines() {
            let Some((_, call)) = line.split_once(' ') else { continue };
            let Some((name, rest)) = call.trim_start().split_once('(') else { continue };
            match name {
                "openat" => disk.opened(rest),
                "pwrite64" | "write" | "fsync" | "fdatasync" | "ftruncate" => disk.called(name, rest),
                _ => {}
            }
        }
        disk
    }

    /// `AT_FDCWD</here>, "/path", O_RDWR|O_SYNC, 0640) = 7</path>`
    fn opened(&mut self, rest: &str) {
        let Some(path) = rest.rsplit_once('<').and_then(|(_, path)| path.split_once('>')) else { return };
        if !rest.contains(") = ") {
            return;
        }
        let file = self.files.entry(path.0.to_owned()).or_default();
        file.always |= rest.contains("O_SYNC") || rest.contains("O_DSYNC");
    }

    /// `7</path>, ""..., 300, 4096) = 300`, or its beginning alone.
    fn called(&mut self, name: &str, rest: &str) {
        let Some((_, after)) = rest.split_once('<') else { return };
        let Some((path, arguments)) = after.split_once('>') else { return };
        let numbers: Vec<u64> =
            arguments.split([',', ')', ' ']).filter_map(|word| word.parse().ok()).collect();
        let file = self.files.entry(path.to_owned()).or_default();
        match name {
            "fsync" | "fdatasync" => (file.synced, file.dirty) = (file.length, false),
            "ftruncate" => file.length = numbers.first().copied().unwrap_or(0),
            "pwrite64" => {
                let (count, offset) =
                    (numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(0));
                file.length = file.length.max(offset + count);
                file.dirty = true;
            }
            _ => {
                file.length += numbers.first().copied().unwrap_or(0);
                file.dirty = true;
            }
        }
    }

    /// Takes from the files below `store` what was not durable; how many bytes that were.
    fn lose_power(&self, store: &Path) -> u64 {
        let mut lost = 0;
        let below = |path: &str| Path::new(path).starts_with(store);
        let dirty = self.files.iter().filter(|(path, file)| below(path) && file.dirty && !file.always);
        for (path, file) in dirty {
            let Ok(handle) = std::fs::File::options().write(true).open(path) else { continue };
            let length = handle.metadata().unwrap().len();
            // Blocks of messages grow at their end; of any other file nothing is left.
            let kept = if path.ends_with(".blk") { file.synced } else { 0 };
            if kept < length {
                handle.set_len(kept).unwrap();
                lost += length - kept;
            }
        }
        lost
    }
}

async fn start(dir: &Path) -> NatsServer {
    let options =
        NatsServerOptions { binary: traced(dir), data_dir: dir.join("broker"), port: PortChoice::Any };
    NatsServer::start(options).await.unwrap()
}

/// kill -9 of the server beneath strace, which then ends by itself.
async fn cut_power(server: &mut NatsServer) {
    let strace = server.pid().expect("it runs");
    let children =
        std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        let _ = Command::new("kill").args(["-KILL", child]).status();
    }
    tokio::time::timeout(Duration::from_secs(10), server.ended()).await.expect("it ends").unwrap();
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_power() {
    if let Some(reason) = unfit() {
        eprintln!("skipped: {reason}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path()).await;
    let init =
        journal::auth::connect(&server.url(), &server.keys().init_credentials().unwrap()).await.unwrap();
    init_streams(&init).await.unwrap();
    let mut harness = Harness { dir, server };
    let journal = harness.open("a").await;
    let mut acknowledged = Vec::new();
    let mut lost = 0;
    for round in 0..ROUNDS {
        let numbers = round * COMMANDS..(round + 1) * COMMANDS;
        let load = submit_many(&journal, numbers, 16);
        tokio::pin!(load);
        let half = harness.dir.path().join("calls");
        // Under way: some are acknowledged, some are not.
        let waited = tokio::time::timeout(Duration::from_millis(150 + 40 * round), &mut load).await;
        cut_power(&mut harness.server).await;
        let calls = std::fs::read_to_string(&half).unwrap();
        let disk = Disk::of(&calls);
        let store = harness.dir.path().join("broker/nats");
        assert!(
            disk.files.keys().any(|path| path.ends_with(".blk")),
            "the log's blocks were seen: {:?}",
            disk.files.keys()
        );
        lost += disk.lose_power(&store);
        harness.server.restart().await.unwrap();
        acknowledged.extend(match waited {
            Ok(outcomes) => outcomes,
            Err(_) => load.await,
        });
    }
    println!("power lost {ROUNDS} times, {lost} bytes with it; {} commands acknowledged", acknowledged.len());
    check_acknowledged(&whole_log(&journal).await, &acknowledged);
    journal.shutdown().await.unwrap();
}
