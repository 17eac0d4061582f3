//! The lock of a data folder that a leader on this machine holds: waiting for it, finding its owner, ending an owner
//! that does not move. Must not: judge whether the leader is gone.

use super::StuckOwner;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// Why the owner was not ended.
#[derive(Debug, thiserror::Error)]
enum OwnerError {
    /// Nobody to be seen.
    #[error(
        "{path} is held, and its owner is not to be seen from here (another machine or container?); end it by hand"
    )]
    Unseen { path: PathBuf },
    /// The system said no.
    #[error("process {pid}, which holds {path}, cannot be ended: {source}; end it by hand")]
    NotEnded { path: PathBuf, pid: i32, source: nix::Error },
}

/// A thread that waits for the lock; it ends when it has it.
pub(super) struct LockWait {
    path: PathBuf,
    freed: Option<oneshot::Receiver<File>>,
    /// Held from the moment it was freed until it is given away.
    lock: Option<File>,
}

impl LockWait {
    pub(super) fn start(path: PathBuf) -> LockWait {
        let (freed_tx, freed) = oneshot::channel();
        let file = File::options().write(true).open(&path);
        // A thread of its own: it cannot be called back, and a runtime would wait for it.
        let wait = move || {
            if let Ok(file) = file
                && file.lock().is_ok()
            {
                // When nobody waits any more it is dropped, and free again.
                let _ = freed_tx.send(file);
            }
        };
        let thread = std::thread::Builder::new().name("lock-wait".into()).spawn(wait);
        if let Err(error) = thread {
            tracing::warn!(target: "journal", "no thread to wait for {}: {error}", path.display());
        }
        LockWait { path, freed: Some(freed), lock: None }
    }

    /// Returns when the owner has ended; never when there is nothing to wait for.
    pub(super) async fn freed(wait: &mut Option<LockWait>) {
        if let Some(wait) = wait
            && let Some(freed) = &mut wait.freed
        {
            let file = freed.await;
            wait.freed = None;
            if let Ok(file) = file {
                wait.lock = Some(file);
                return;
            }
        }
        std::future::pending().await
    }

    /// Returns when the lock is free; ends its owner where `stuck` says so.
    pub(super) async fn free(self, stuck: StuckOwner) {
        let LockWait { path, freed, lock } = self;
        if lock.is_some() {
            return;
        }
        match stuck {
            StuckOwner::Kill => match end_owner(&path) {
                Ok(pid) => {
                    tracing::error!(target: "journal", pid, lock = %path.display(), "the owner of the data folder was silent; killed");
                }
                Err(error) => tracing::error!(target: "journal", "{error}"),
            },
            StuckOwner::Leave => {
                tracing::error!(target: "journal", lock = %path.display(), "the owner of the data folder is silent; end it by hand");
            }
        }
        if let Some(freed) = freed {
            let _ = freed.await;
        }
    }
}

fn end_owner(path: &Path) -> Result<i32, OwnerError> {
    let pid = owner_of(path).ok_or_else(|| OwnerError::Unseen { path: path.to_owned() })?;
    let killed = kill(Pid::from_raw(pid), Signal::SIGKILL);
    killed.map_err(|source| OwnerError::NotEnded { path: path.to_owned(), pid, source })?;
    Ok(pid)
}

/// The process that holds the lock on a file: as the kernel says (`/proc/locks`), and with that very file open.
fn owner_of(path: &Path) -> Option<i32> {
    let inode = std::fs::metadata(path).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let holders = locks.lines().filter_map(|line| {
        // `7: FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF`; who waits has an arrow after the number.
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", "ADVISORY", "WRITE", pid, file, ..] = words[..] else { return None };
        let same = file.rsplit(':').next()?.parse::<u64>().ok()? == inode;
        same.then(|| pid.parse::<i32>().ok()).flatten()
    });
    let path = path.canonicalize().ok()?;
    let ours = i32::try_from(std::process::id()).ok();
    holders.filter(|pid| *pid > 1 && Some(*pid) != ours).find(|pid| has_open(*pid, &path))
}

fn has_open(pid: i32, path: &Path) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|link| link == path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_process_that_holds_the_lock_is_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = File::create(&path).unwrap();
        assert_eq!(owner_of(&path), None, "nobody");
        file.lock().unwrap();
        assert_eq!(owner_of(&path), None, "we ourselves are never ended");
    }
}
