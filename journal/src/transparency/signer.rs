//! The checkpoint key and the memory of what it signed. It never signs a smaller head, another root of a size it signed,
//! or a head that is not proved to extend the last one. What was signed is durable before the signature leaves.
//! Must not: share its key with any other duty (writer, settlement, treasury).

use super::TransparencyError;
use super::tiles::{read_optional, write_durably};
use crate::auth::{read_secret, write_secret};
use data_encoding::BASE64;
use protocol::checkpoint::{Checkpoint, VerifierKey};
use protocol::id::Hash32;
use protocol::proof::verify_consistency;
use signed_note::{Note, StandardSigner};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// File of the key: C2SP's `PRIVATE+KEY+name+hash+base64` in one line.
const KEY_FILE: &str = "checkpoint.key";
/// File of the last signed head: a checkpoint's three lines.
const HEAD_FILE: &str = "checkpoint.head";
/// Held while a signer lives: two of them could sign two heads.
const LOCK_FILE: &str = "checkpoint.lock";

/// The one who signs checkpoints of one log.
pub struct Signer {
    signer: StandardSigner,
    key: VerifierKey,
    head_path: PathBuf,
    head: Option<Checkpoint>,
    _lock: File,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("key", &self.key.to_string()).field("head", &self.head).finish()
    }
}

impl Signer {
    /// Loads the key under `keys_dir`, or makes one, for the log named `origin` (a URL without scheme, such as
    /// `ledger.example/log1`). Fails when the key there is another log's, or another process holds it.
    pub fn load_or_create(keys_dir: &Path, origin: &str) -> Result<Signer, TransparencyError> {
        let io = |path: &Path, source| TransparencyError::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(keys_dir).map_err(|e| io(keys_dir, e))?;
        let lock_path = keys_dir.join(LOCK_FILE);
        let lock = File::options().create(true).write(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(|e| io(&lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TransparencyError::InUse { path: lock_path }),
            Err(TryLockError::Error(e)) => return Err(io(&lock_path, e)),
        }
        let path = keys_dir.join(KEY_FILE);
        if read_secret(&path)?.is_none() {
            write_secret(&path, &new_key(origin, &path)?)?;
        }
        let text = read_secret(&path)?.unwrap_or_default();
        let wrong = |reason: String| TransparencyError::Key { path: path.clone(), reason };
        let signer = StandardSigner::new(text.trim()).map_err(|e| wrong(e.to_string()))?;
        let key = verifier_key(text.trim()).ok_or_else(|| wrong("not an Ed25519 key".to_owned()))?;
        if key.name() != origin {
            return Err(wrong(format!("it is the key of log {:?}, expected {origin:?}", key.name())));
        }
        let head_path = keys_dir.join(HEAD_FILE);
        let head = match read_optional(&head_path)? {
            None => None,
            Some(text) => Some(Checkpoint::parse(&text).map_err(|e| TransparencyError::Key {
                path: head_path.clone(),
                reason: format!("{e}; the memory of what was signed is lost: restore it from the newest checkpoint anybody has"),
            })?),
        };
        Ok(Signer { signer, key, head_path, head, _lock: lock })
    }

    /// The public key, for policies.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    /// The last head that was signed (or was about to be when the process died).
    pub fn last_head(&self) -> Option<&Checkpoint> {
        self.head.as_ref()
    }

    /// Signs a head. `proof` shows that it extends the last one; it is checked here against the remembered root.
    pub(crate) fn sign(
        &mut self,
        size: u64,
        root: Hash32,
        proof: &[Hash32],
    ) -> Result<String, TransparencyError> {
        let new = Checkpoint { origin: self.key.name().to_owned(), size, root };
        if let Some(old) = &self.head {
            verify_consistency(old.size, &old.root, size, &root, proof).map_err(|e| {
                TransparencyError::Inconsistent(format!(
                    "refused to sign size {size} after size {}: {e}",
                    old.size
                ))
            })?;
        }
        if self.head.as_ref() != Some(&new) {
            write_durably(&self.head_path, new.text().as_bytes())?;
            self.head = Some(new.clone());
        }
        let failed = |e: signed_note::NoteError| TransparencyError::Signature(e.to_string());
        let mut note = Note::new(new.text().as_bytes(), &[]).map_err(failed)?;
        note.add_sigs(&[&self.signer]).map_err(failed)?;
        let text =
            String::from_utf8(note.to_bytes()).map_err(|e| TransparencyError::Signature(e.to_string()))?;
        // Read back as every reader will: a checkpoint nobody can open must not be published.
        match Checkpoint::open(&text, &self.key) {
            Ok(opened) if opened == new => Ok(text),
            Ok(_) => Err(TransparencyError::Signature("it reads back as another head".to_owned())),
            Err(e) => Err(TransparencyError::Signature(e.to_string())),
        }
    }
}

fn new_key(origin: &str, path: &Path) -> Result<String, TransparencyError> {
    let wrong = |reason: String| TransparencyError::Key { path: path.to_owned(), reason };
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed).map_err(|e| wrong(e.to_string()))?;
    let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
    let key = VerifierKey::new(origin, public.as_bytes()).map_err(|e| wrong(e.to_string()))?;
    let private = BASE64.encode(&[&[1u8][..], &seed].concat());
    Ok(format!("PRIVATE+KEY+{origin}+{:08x}+{private}\n", key.id()))
}

fn verifier_key(private: &str) -> Option<VerifierKey> {
    let mut parts = private.strip_prefix("PRIVATE+KEY+")?.splitn(3, '+');
    let (name, base64) = (parts.next()?, parts.nth(1)?);
    let typed = BASE64.decode(base64.as_bytes()).ok()?;
    let (&[1], seed) = typed.split_first_chunk::<1>()? else { return None };
    let public = ed25519_dalek::SigningKey::from_bytes(seed.try_into().ok()?).verifying_key();
    VerifierKey::new(name, public.as_bytes()).ok()
}
