//! The worker's keys: the operator's NKEY (signs the connection's nonce and every receipt) and each node's X25519 key
//! (job bodies are sealed to it). Secrets never reach `Debug`, errors or logs.

use crate::error::WorkerError;
use crypto_box::SecretKey;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use nkeys::{KeyPair, KeyPairType};
use protocol::id::{NodeId, OperatorId, SealingKey};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The operator's signing key.
#[derive(Clone)]
pub struct OperatorKey {
    pair: Arc<KeyPair>,
    operator: OperatorId,
}

impl std::fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OperatorKey({})", self.operator)
    }
}

impl OperatorKey {
    /// From a user seed (`SU...`), surrounding white space allowed.
    ///
    /// # Errors
    /// [`WorkerError::Seed`].
    pub fn from_seed(seed: &str) -> Result<OperatorKey, WorkerError> {
        let pair = KeyPair::from_seed(seed.trim()).map_err(|e| WorkerError::Seed(e.to_string()))?;
        if !matches!(pair.key_pair_type(), KeyPairType::User) {
            return Err(WorkerError::Seed("this is the seed of another kind of key".into()));
        }
        let operator = pair.public_key().parse().map_err(|e| WorkerError::Seed(format!("{e}")))?;
        Ok(OperatorKey { pair: Arc::new(pair), operator })
    }

    /// Who signs.
    pub fn operator(&self) -> OperatorId {
        self.operator
    }

    /// Ed25519 over the bytes as they are: an NKEY signature is exactly that.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(bytes).expect("a key made from a seed has its private half");
        signature.try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// The user that a NATS JWT was issued to. The server checks the signature; we only look whether it is ours.
///
/// # Errors
/// [`WorkerError::Jwt`].
pub(crate) fn jwt_subject(jwt: &str) -> Result<OperatorId, WorkerError> {
    let malformed = |what: &str| WorkerError::Jwt(format!("expected header.claims.signature: {what}"));
    let claims = jwt.trim().split('.').nth(1).ok_or_else(|| malformed("no dots"))?;
    let claims =
        BASE64URL_NOPAD.decode(claims.as_bytes()).map_err(|_| malformed("claims are not base64url"))?;
    let claims: serde_json::Value =
        serde_json::from_slice(&claims).map_err(|_| malformed("claims are not JSON"))?;
    let subject = claims["sub"].as_str().ok_or_else(|| malformed("claims have no sub"))?;
    subject.parse().map_err(|e| WorkerError::Jwt(format!("{e}")))
}

/// A node's key, to which job bodies are sealed.
pub struct NodeKey {
    secret: SecretKey,
}

impl NodeKey {
    /// Where the key of `node` lies.
    pub fn path(data_dir: &Path, node: &NodeId) -> PathBuf {
        data_dir.join("nodes").join(node.to_string()).join("sealing.key")
    }

    /// The node's key; made and stored (readable by its owner only) when it is not there yet. Registration needs
    /// [`NodeKey::public`].
    ///
    /// # Errors
    /// [`WorkerError::File`] when it cannot be stored, is no key, or others can read it.
    pub fn open_or_create(data_dir: &Path, node: &NodeId) -> Result<NodeKey, WorkerError> {
        let path = NodeKey::path(data_dir, node);
        match fs::read_to_string(&path) {
            Ok(text) => NodeKey::parse(&path, &text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => NodeKey::create(&path),
            Err(e) => Err(WorkerError::file(&path, e)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<NodeKey, WorkerError> {
        refuse_readable_by_others(path)?;
        let bytes: Option<[u8; 32]> =
            HEXLOWER.decode(text.trim().as_bytes()).ok().and_then(|b| b.try_into().ok());
        let bytes = bytes.ok_or_else(|| {
            WorkerError::file(
                path,
                "expected 64 hex digits; restore the file, or delete it and register the node again",
            )
        })?;
        Ok(NodeKey { secret: SecretKey::from(bytes) })
    }

    fn create(path: &Path) -> Result<NodeKey, WorkerError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|e| WorkerError::file(path, format!("no randomness for a key: {e}")))?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| WorkerError::file(parent, e))?;
        }
        write_durably(path, format!("{}\n", HEXLOWER.encode(&bytes)).as_bytes())?;
        Ok(NodeKey { secret: SecretKey::from(bytes) })
    }

    /// What registration is given, and gateways seal to.
    pub fn public(&self) -> SealingKey {
        SealingKey(*self.secret.public_key().as_bytes())
    }

    /// The contents of a sealed box; `None` when it was not sealed to this key or was changed.
    pub(crate) fn unseal(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.secret.unseal(sealed).ok()
    }
}

/// Writes a file that only its owner may read, whole or not at all, and on disk when this returns.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), WorkerError> {
    let fail = |e: std::io::Error| WorkerError::file(path, e);
    let unfinished = path.with_extension("unfinished");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&unfinished, path).map_err(fail)?;
    // The name is durable only when its directory is.
    path.parent().map_or(Ok(()), |dir| File::open(dir).and_then(|dir| dir.sync_all())).map_err(fail)
}

/// Refuses a secret that other users of the machine can read.
#[cfg(unix)]
pub(crate) fn refuse_readable_by_others(path: &Path) -> Result<(), WorkerError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(|e| WorkerError::file(path, e))?.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => {
            Err(WorkerError::file(path, format!("mode {mode:03o} lets others read a secret; run: chmod 600")))
        }
    }
}

/// Other systems have no such bits.
#[cfg(not(unix))]
pub(crate) fn refuse_readable_by_others(_: &Path) -> Result<(), WorkerError> {
    Ok(())
}

#[cfg(test)]
mod tests;
