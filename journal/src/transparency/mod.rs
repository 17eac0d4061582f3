//! The transparency log (C2SP tlog-tiles, RFC 6962 with SHA-256): leaf i is the bytes of event i. Derived from committed
//! commits, off the hot path, rebuildable; only the key's memory of what it signed is not. Normative text: `specs/log.md`.
//! Must not: decide what is in the log, or hold up the writer.

mod proof;
mod signer;
mod tiles;
mod tree;
pub mod witness;

pub use signer::Signer;

use crate::background::Background;
use crate::feed::CommitStream;
use crate::reader::ArchiveFollower;
use bytes::Bytes;
use futures::StreamExt;
use protocol::checkpoint::{Checkpoint, Policy, VerifierKey};
use protocol::id::Hash32;
use protocol::proof::ProofFile;
use protocol::tile::CHECKPOINT_PATH;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tiles::TileStore;
use tokio::sync::{mpsc, oneshot, watch};
use tree::Tree;

/// Requests that may wait for the thread; a full queue holds up who feeds it, never the writer.
pub const QUEUE_REQUESTS_MAX: usize = 256;
/// How often a checkpoint is signed while there are new leaves.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Path of the policy file beside `checkpoint`; auditors must get theirs from somewhere else.
pub const POLICY_PATH: &str = "policy";

/// Why the transparency log cannot go on or answer.
#[derive(Debug, thiserror::Error)]
pub enum TransparencyError {
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A derived file does not say what it must.
    #[error(
        "{path} is damaged: {reason}; delete the transparency directory and it is built again from the log"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A leaf that cannot be stored.
    #[error("leaf {leaf}: {reason}")]
    Leaf {
        /// Its index.
        leaf: u64,
        /// What is wrong.
        reason: String,
    },
    /// Leaves were left out.
    #[error("expected leaf {expected}, came {came}: feed the log from leaf {expected}")]
    Gap {
        /// The next leaf.
        expected: u64,
        /// The first leaf of what came.
        came: u64,
    },
    /// A proof of something that is not in the tree.
    #[error("leaf {leaf} is not covered: the tree has {size} leaves")]
    NotCovered {
        /// What was asked.
        leaf: u64,
        /// What there is.
        size: u64,
    },
    /// Two heads would not agree. Grave: the log was changed, cut, or its files damaged.
    #[error(
        "the log is not the one that was signed: {0}; stop, keep all files, and compare with other copies of the log"
    )]
    Inconsistent(String),
    /// The signature could not be made.
    #[error("the checkpoint was not signed: {0}")]
    Signature(String),
    /// The key's files.
    #[error("{path}: {reason}")]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Reading or writing a secret.
    #[error(transparent)]
    Secret(#[from] crate::auth::AuthError),
    /// Another process signs with this key.
    #[error("{path} is locked: another process signs checkpoints with this key; stop it first")]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// The thread ended.
    #[error("the transparency log stopped: {0}")]
    Stopped(String),
}

/// A signed head of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedCheckpoint {
    /// Number of leaves.
    pub size: u64,
    /// RFC 6962 root.
    pub root: Hash32,
    /// The signed note, as published.
    pub text: String,
}

/// The log: tree, tiles on disk, signer.
#[derive(Debug)]
pub struct Transparency {
    store: TileStore,
    tree: Tree,
    signer: Signer,
    published: Option<SignedCheckpoint>,
    rebuilding: Option<String>,
}

impl Transparency {
    /// Opens the log under `dir`. The tree is taken up where the last signed head left it; when its files do not lead to
    /// that head it is built again from leaf 0 ([`Transparency::rebuilding`] says why). Feed it from
    /// [`Transparency::next_leaf`].
    pub fn open(dir: &Path, signer: Signer) -> Result<Transparency, TransparencyError> {
        let store = TileStore::new(dir);
        let published = read_published(&store, signer.verifier_key())?;
        let published_size = published.as_ref().map_or(0, |p| p.size);
        let head_size = signer.last_head().map_or(0, |h| h.size);
        if published_size > head_size {
            return Err(TransparencyError::Inconsistent(format!(
                "the published checkpoint has {published_size} leaves, the key remembers signing {head_size}"
            )));
        }
        let (tree, rebuilding) = match signer.last_head() {
            None => (Tree::empty(store.clone()), None),
            Some(head) => match load_head(&store, head) {
                Ok(tree) => (tree, None),
                Err(reason) => (Tree::empty(store.clone()), Some(reason.to_string())),
            },
        };
        if let Some(reason) = &rebuilding {
            tracing::warn!(target: "journal", %reason, "the transparency log is built again from leaf 0");
        }
        let policy = Policy::of_log(signer.verifier_key().clone()).text();
        if store.read_file(POLICY_PATH)?.as_deref() != Some(&policy) {
            store.write_file(POLICY_PATH, policy.as_bytes())?;
        }
        Ok(Transparency { store, tree, signer, published, rebuilding })
    }

    /// The leaf that must come next: number of leaves so far.
    pub fn next_leaf(&self) -> u64 {
        self.tree.size()
    }

    /// Why the tree is being built again from leaf 0, if it is.
    pub fn rebuilding(&self) -> Option<&str> {
        self.rebuilding.as_deref()
    }

    /// The key that auditors need.
    pub fn verifier_key(&self) -> &VerifierKey {
        self.signer.verifier_key()
    }

    /// The checkpoint that the world sees.
    pub fn published(&self) -> Option<&SignedCheckpoint> {
        self.published.as_ref()
    }

    /// Appends a commit's leaves. Leaves that are there already are skipped, so that feeding may begin early; a gap is an
    /// error and changes nothing.
    pub fn append_commit(&mut self, first_leaf: u64, leaves: &[&[u8]]) -> Result<(), TransparencyError> {
        let expected = self.tree.size();
        let Some(known) = expected.checked_sub(first_leaf) else {
            return Err(TransparencyError::Gap { expected, came: first_leaf });
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(leaves.len());
        leaves[known..].iter().try_for_each(|leaf| self.tree.append(leaf))
    }

    /// Signs and publishes a checkpoint of everything appended: partial tiles first, then the key's memory, then the file.
    /// Fails with [`TransparencyError::Inconsistent`] when that would contradict anything signed before.
    pub fn checkpoint(&mut self) -> Result<SignedCheckpoint, TransparencyError> {
        let size = self.tree.size();
        if let Some(published) =
            self.published.as_ref().filter(|p| p.size == size && self.rebuilding.is_none())
        {
            return Ok(published.clone());
        }
        let root = self.tree.root(size)?;
        let old = self.signer.last_head().map_or(0, |h| h.size);
        let proof = if old <= size { proof::consistency(&self.tree, old, size)? } else { Vec::new() };
        self.tree.write_partial()?;
        let text = self.signer.sign(size, root, &proof)?;
        self.store.write_file(CHECKPOINT_PATH, text.as_bytes())?;
        let signed = SignedCheckpoint { size, root, text };
        self.published = Some(signed.clone());
        self.rebuilding = None;
        Ok(signed)
    }

    /// The hashes that prove leaf `leaf` to be in the tree of the first `size` leaves.
    pub fn prove_inclusion(&self, leaf: u64, size: u64) -> Result<Vec<Hash32>, TransparencyError> {
        if size > self.tree.size() {
            return Err(TransparencyError::NotCovered { leaf, size: self.tree.size() });
        }
        proof::inclusion(&self.tree, leaf, size, &self.tree.root(size)?)
    }

    /// The hashes that prove the tree of `old` leaves to be a prefix of the tree of `new` leaves.
    pub fn prove_consistency(&self, old: u64, new: u64) -> Result<Vec<Hash32>, TransparencyError> {
        proof::consistency(&self.tree, old, new)
    }

    /// The proof file of a leaf under the published checkpoint; [`TransparencyError::NotCovered`] when that is older.
    pub fn proof_file(&self, leaf: u64) -> Result<ProofFile, TransparencyError> {
        let published = self.published.as_ref().filter(|p| leaf < p.size && p.size <= self.tree.size());
        let covered = self.published.as_ref().map_or(0, |p| p.size.min(self.tree.size()));
        let published = published.ok_or(TransparencyError::NotCovered { leaf, size: covered })?;
        let hashes = proof::inclusion(&self.tree, leaf, published.size, &published.root)?;
        Ok(ProofFile { index: leaf, hashes, checkpoint: published.text.clone() })
    }
}

fn read_published(
    store: &TileStore,
    key: &VerifierKey,
) -> Result<Option<SignedCheckpoint>, TransparencyError> {
    let Some(text) = store.read_file(CHECKPOINT_PATH)? else { return Ok(None) };
    match Checkpoint::open(&text, key) {
        Ok(Checkpoint { size, root, .. }) => Ok(Some(SignedCheckpoint { size, root, text })),
        Err(e) => {
            let path = store.dir().join(CHECKPOINT_PATH);
            Err(TransparencyError::Damaged { path, reason: e.to_string() })
        }
    }
}

fn load_head(store: &TileStore, head: &Checkpoint) -> Result<Tree, TransparencyError> {
    let tree = Tree::load(store.clone(), head.size)?;
    let root = tree.root(head.size)?;
    if root != head.root {
        let reason = format!("its {} leaves have root {root}, signed was {}", head.size, head.root);
        return Err(TransparencyError::Damaged { path: store.dir().to_owned(), reason });
    }
    Ok(tree)
}

enum Request {
    Append { first_leaf: u64, leaves: Vec<Bytes> },
    Checkpoint { reply: oneshot::Sender<Result<SignedCheckpoint, TransparencyError>> },
    Proof { leaf: u64, reply: oneshot::Sender<Result<ProofFile, TransparencyError>> },
}

/// The log on its own thread. Clones share it; it ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct TransparencyHandle {
    requests: mpsc::Sender<Request>,
    published: watch::Receiver<Option<SignedCheckpoint>>,
    failure: watch::Receiver<Option<String>>,
    key: VerifierKey,
    first_needed: u64,
}

/// Moves the log to its own thread, which signs every `interval` while there are new leaves.
pub fn spawn(log: Transparency, interval: Duration) -> Result<TransparencyHandle, TransparencyError> {
    let (requests, mut inbox) = mpsc::channel(QUEUE_REQUESTS_MAX);
    let (publish, published) = watch::channel(log.published.clone());
    let (fail, failure) = watch::channel(None);
    let (key, first_needed) = (log.verifier_key().clone(), log.next_leaf());
    let stopped = |e: std::io::Error| TransparencyError::Stopped(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(stopped)?;
    let work = move || {
        crate::background::step_back();
        if let Err(error) = runtime.block_on(serve(log, &mut inbox, &publish, interval)) {
            tracing::error!(target: "journal", %error, "the transparency log stopped");
            fail.send_replace(Some(error.to_string()));
        }
        // In this order: who finds the inbox closed asks for the failure; who waits for the end wants the key free.
        drop(inbox);
        drop(publish);
    };
    std::thread::Builder::new().name("transparency".to_owned()).spawn(work).map_err(stopped)?;
    Ok(TransparencyHandle { requests, published, failure, key, first_needed })
}

async fn serve(
    mut log: Transparency,
    inbox: &mut mpsc::Receiver<Request>,
    publish: &watch::Sender<Option<SignedCheckpoint>>,
    interval: Duration,
) -> Result<(), TransparencyError> {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            request = inbox.recv() => match request {
                // Everybody left: publish what there is.
                None => return sign_new(&mut log, publish),
                Some(Request::Append { first_leaf, leaves }) => {
                    let leaves: Vec<&[u8]> = leaves.iter().map(|l| &l[..]).collect();
                    log.append_commit(first_leaf, &leaves)?;
                }
                Some(Request::Checkpoint { reply }) => {
                    let signed = log.checkpoint();
                    if let Ok(signed) = &signed {
                        publish.send_replace(Some(signed.clone()));
                    }
                    // Who asked may have gone; the checkpoint stands all the same.
                    let _ = reply.send(signed);
                }
                Some(Request::Proof { leaf, reply }) => {
                    let _ = reply.send(log.proof_file(leaf));
                }
            },
            _ = ticks.tick() => sign_new(&mut log, publish)?,
        }
    }
}

/// Signs when there is more than was signed ever. While the tree is built again there is nothing new to say.
fn sign_new(
    log: &mut Transparency,
    publish: &watch::Sender<Option<SignedCheckpoint>>,
) -> Result<(), TransparencyError> {
    let signed = log.signer.last_head().map_or(0, |h| h.size);
    let published = log.published().map_or(0, |p| p.size);
    if log.next_leaf() < signed || log.next_leaf() == published {
        return Ok(());
    }
    publish.send_replace(Some(log.checkpoint()?));
    Ok(())
}

impl TransparencyHandle {
    /// Hands over a commit's leaves; waits while the queue is full. An error means that the thread ended.
    pub async fn append(&self, first_leaf: u64, leaves: Vec<Bytes>) -> Result<(), TransparencyError> {
        let request = Request::Append { first_leaf, leaves };
        self.requests.send(request).await.map_err(|_| self.stopped())
    }

    /// The leaf from which it must be fed (or earlier): where it stood when its thread began.
    pub fn first_needed(&self) -> u64 {
        self.first_needed
    }

    /// Feeds it until the commits end; they begin at or before [`TransparencyHandle::first_needed`].
    pub async fn follow(&self, mut commits: CommitStream) -> Result<(), TransparencyError> {
        while let Some(commit) = commits.next().await {
            let commit = commit.map_err(|e| TransparencyError::Stopped(e.to_string()))?.commit;
            let leaves = commit.events.into_iter().map(|leaf| Bytes::from(Vec::from(leaf))).collect();
            self.append(commit.first_leaf, leaves).await?;
        }
        Ok(())
    }

    /// [`TransparencyHandle::follow`] on a background thread of its own, until the commits end or the returned is dropped.
    pub fn follow_behind(&self, follower: &ArchiveFollower) -> Result<Background, TransparencyError> {
        let (handle, commits) = (self.clone(), follower.from_leaf(self.first_needed));
        let work = move || async move {
            if let Err(error) = handle.follow(commits).await {
                tracing::error!(target: "journal", %error, "the transparency log does not follow any more");
            }
        };
        let started = Background::start("tlog-follower", work);
        started.map_err(|error| TransparencyError::Stopped(error.to_string()))
    }

    /// A checkpoint of everything handed over before this call; settlements call it first.
    pub async fn checkpoint(&self) -> Result<SignedCheckpoint, TransparencyError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Checkpoint { reply }).await.map_err(|_| self.stopped())?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// The proof file of a leaf under the published checkpoint.
    pub async fn proof_file(&self, leaf: u64) -> Result<ProofFile, TransparencyError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Proof { leaf, reply }).await.map_err(|_| self.stopped())?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// Gives this handle up and waits until the thread has signed what there is and freed its key; every other handle must
    /// be gone too. Fails when the log had stopped for another reason.
    pub async fn shutdown(self) -> Result<(), TransparencyError> {
        let (mut published, failure) = (self.published.clone(), self.failure.clone());
        drop(self);
        while published.changed().await.is_ok() {}
        let reason = failure.borrow().clone();
        reason.map_or(Ok(()), |reason| Err(TransparencyError::Stopped(reason)))
    }

    /// The newest published checkpoint, and a way to wait for the next.
    pub fn published(&self) -> watch::Receiver<Option<SignedCheckpoint>> {
        self.published.clone()
    }

    /// The key that auditors need.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    fn stopped(&self) -> TransparencyError {
        let reason = self.failure.borrow().clone();
        TransparencyError::Stopped(reason.unwrap_or_else(|| "its thread ended".to_owned()))
    }
}
