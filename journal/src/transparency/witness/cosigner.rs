//! Being a witness: for each log of its policy it remembers the newest head it cosigned, and cosigns a newer one only when
//! that is proved to extend it. What it is about to cosign is durable before the cosignature leaves.
//! Must not: share its key with a log, or forget: a witness that lost its memory is retired, not restarted.

use super::super::TransparencyError;
use super::super::tiles::{read_optional, write_durably};
use crate::auth::{read_secret, write_secret};
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer as _, SigningKey};
use protocol::checkpoint::{Checkpoint, CheckpointError, Policy};
use protocol::id::Hash32;
use protocol::proof::{PROOF_HASHES_MAX, empty_root, verify_consistency};
use protocol::witness::{WitnessKey, cosignature_line, cosigned_bytes};
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// File of the key: the 32 bytes of its seed, hex.
const KEY_FILE: &str = "witness.key";
/// Heads are `<SHA-256 of origin>.head` in here: a checkpoint's three lines.
const HEADS_FOLDER: &str = "heads";
/// Requests that prove a rewritten history, kept as they came.
const EVIDENCE_FOLDER: &str = "evidence";
/// Held while a witness lives: two of them could cosign two heads.
const LOCK_FILE: &str = "witness.lock";

/// Why a checkpoint was not cosigned; the number is HTTP's, as the protocol gives it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not a request, or the old size is beyond the new one (400).
    #[error(
        "not a request of tlog-witness: {0}; expected `old N`, proof lines, a blank line and a signed checkpoint"
    )]
    Malformed(String),
    /// No signature by the key of the log (403).
    #[error("{0}")]
    NotSigned(CheckpointError),
    /// A log that the policy does not name (404).
    #[error("this witness does not know the log {0:?}")]
    UnknownLog(String),
    /// It knows another size (409): the body is that size.
    #[error("{known}")]
    Conflict {
        /// Leaves of the head that it cosigned last.
        known: u64,
    },
    /// The proof does not lead from the known head to the new one (422).
    #[error("the history was rewritten, or the proof is wrong: {0}; the request is kept as evidence")]
    Inconsistent(String),
    /// Its own disk (500).
    #[error("the witness could not remember the head: {0}")]
    Store(#[from] TransparencyError),
}

impl Refusal {
    /// HTTP's number.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::NotSigned(_) => 403,
            Refusal::UnknownLog(_) => 404,
            Refusal::Conflict { .. } => 409,
            Refusal::Inconsistent(_) => 422,
            Refusal::Store(_) => 500,
        }
    }
}

/// A witness.
pub struct Cosigner {
    secret: SigningKey,
    key: WitnessKey,
    logs: Policy,
    folder: PathBuf,
    _lock: File,
}

impl std::fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cosigner").field("key", &self.key.to_string()).finish_non_exhaustive()
    }
}

impl Cosigner {
    /// Opens the witness under a folder, and makes its key the first time. `name` is a URL without scheme; `logs` are those
    /// it cosigns for.
    pub fn open(folder: &Path, name: &str, logs: Policy) -> Result<Cosigner, TransparencyError> {
        let io = |path: &Path, source| TransparencyError::Io { path: path.to_owned(), source };
        let heads = folder.join(HEADS_FOLDER);
        std::fs::create_dir_all(&heads).map_err(|e| io(&heads, e))?;
        let lock_path = folder.join(LOCK_FILE);
        let lock = File::options().create(true).write(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(|e| io(&lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TransparencyError::InUse { path: lock_path }),
            Err(TryLockError::Error(e)) => return Err(io(&lock_path, e)),
        }
        let path = folder.join(KEY_FILE);
        let wrong = |reason: String| TransparencyError::Key { path: path.clone(), reason };
        if read_secret(&path)?.is_none() {
            let mut seed = [0u8; 32];
            getrandom::fill(&mut seed).map_err(|e| wrong(e.to_string()))?;
            write_secret(&path, &format!("{}\n", HEXLOWER.encode(&seed)))?;
        }
        let text = read_secret(&path)?.unwrap_or_default();
        let seed =
            HEXLOWER.decode(text.trim().as_bytes()).ok().and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        let seed =
            seed.ok_or_else(|| wrong("expected 64 hex digits, the seed of an Ed25519 key".to_owned()))?;
        let secret = SigningKey::from_bytes(&seed);
        let key =
            WitnessKey::new(name, secret.verifying_key().as_bytes()).map_err(|e| wrong(e.to_string()))?;
        Ok(Cosigner { secret, key, logs, folder: folder.to_owned(), _lock: lock })
    }

    /// The public key, for policies.
    pub fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// The newest head it cosigned of a log.
    pub fn head(&self, origin: &str) -> Result<Option<Checkpoint>, TransparencyError> {
        let path = self.head_path(origin);
        let Some(text) = read_optional(&path)? else { return Ok(None) };
        let head = Checkpoint::parse(&text);
        head.map(Some).map_err(|e| TransparencyError::Damaged { path, reason: e.to_string() })
    }

    /// `POST add-checkpoint`: the cosignature's line. `now_s` is the second that is signed with it.
    pub fn add_checkpoint(&mut self, body: &str, now_s: u64) -> Result<String, Refusal> {
        let asked = Request::parse(body)?;
        let origin = asked.note.lines().next().unwrap_or_default();
        if !self.logs.logs.iter().any(|log| log.name() == origin) {
            return Err(Refusal::UnknownLog(origin.chars().take(200).collect()));
        }
        let new = self.logs.open_log(asked.note).map_err(|error| match error {
            CheckpointError::Malformed(reason) => Refusal::Malformed(reason.to_owned()),
            error => Refusal::NotSigned(error),
        })?;
        if asked.old > new.size {
            return Err(Refusal::Malformed(format!(
                "old {} is beyond the checkpoint's {}",
                asked.old, new.size
            )));
        }
        let known = self.head(&new.origin)?;
        let known_size = known.as_ref().map_or(0, |head| head.size);
        if asked.old != known_size {
            return Err(Refusal::Conflict { known: known_size });
        }
        let known_root = known.as_ref().map_or_else(empty_root, |head| head.root);
        if known_size == new.size && known.is_some() && known_root != new.root {
            self.keep(&asked, body, "two heads of one size")?;
            return Err(Refusal::Conflict { known: known_size });
        }
        if let Err(error) = verify_consistency(known_size, &known_root, new.size, &new.root, &asked.proof) {
            self.keep(&asked, body, &error.to_string())?;
            return Err(Refusal::Inconsistent(error.to_string()));
        }
        if known.as_ref() != Some(&new) {
            write_durably(&self.head_path(&new.origin), new.text().as_bytes())?;
        }
        let signature = self.secret.sign(&cosigned_bytes(now_s, &new.text())).to_bytes();
        Ok(cosignature_line(&self.key, now_s, &signature))
    }

    fn head_path(&self, origin: &str) -> PathBuf {
        let name = HEXLOWER.encode(&Sha256::digest(origin.as_bytes()));
        self.folder.join(HEADS_FOLDER).join(format!("{name}.head"))
    }

    /// A request signed by the log that contradicts what it signed before: nobody can take that back.
    /// One file a signed checkpoint, so that strangers who send wrong proofs of good ones cannot fill the disk.
    fn keep(&self, asked: &Request<'_>, body: &str, reason: &str) -> Result<(), TransparencyError> {
        let name = HEXLOWER.encode(&Sha256::digest(asked.note.as_bytes()));
        let path = self.folder.join(EVIDENCE_FOLDER).join(format!("{name}.request"));
        tracing::error!(target: "witness", reason, evidence = name, "a log contradicts its earlier head");
        if path.exists() { Ok(()) } else { write_durably(&path, body.as_bytes()) }
    }
}

/// The body of a request, in parts.
struct Request<'a> {
    old: u64,
    proof: Vec<Hash32>,
    note: &'a str,
}

impl<'a> Request<'a> {
    fn parse(body: &'a str) -> Result<Request<'a>, Refusal> {
        let wrong = |reason: &str| Refusal::Malformed(reason.to_owned());
        let (head, note) = body.split_once("\n\n").ok_or_else(|| wrong("no blank line"))?;
        let mut lines = head.split('\n');
        let old =
            lines.next().and_then(|line| line.strip_prefix("old ")).ok_or_else(|| wrong("no `old` line"))?;
        let number: u64 = old.parse().map_err(|_| wrong("the old size is not a number"))?;
        if number.to_string() != old {
            return Err(wrong("the old size is not in canonical form"));
        }
        let mut proof = Vec::new();
        for line in lines {
            let hash = BASE64.decode(line.as_bytes()).ok().and_then(|hash| <[u8; 32]>::try_from(hash).ok());
            proof.push(Hash32(hash.ok_or_else(|| wrong("a hash is not base64 of 32 bytes"))?));
            if proof.len() >= PROOF_HASHES_MAX {
                return Err(wrong("more hashes than any tree has levels"));
            }
        }
        Ok(Request { old: number, proof, note })
    }
}
