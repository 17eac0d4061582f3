//! Secrets of a network on one machine, under `keys/`: bearer keys of administration and auditors, the audit key that
//! contents are sealed to. NATS identities, checkpoint and operators' keys are made by their own rooms.

use anyhow::{Context, Result};
use contracts::key::EvmKey;
use protocol::id::SealingKey;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Who is who on the development chain: one key each, none doubles for another.
pub struct ChainRoles {
    /// Deploys and mints development tokens.
    pub deployer: EvmKey,
    /// Named in spend authorisations; cold.
    pub coordinator: EvmKey,
    /// Settles and signs vouchers; hot.
    pub settler: EvmKey,
    /// May refuse a payout root.
    pub guardian: EvmKey,
    /// Receives the platform's part.
    pub platform: EvmKey,
    /// The operator of the worker that `up` starts.
    pub operator: EvmKey,
    /// Pays the gas of payments by x402.
    pub relayer: EvmKey,
}

/// Far behind the customers' keys.
const RELAYER_KEY: u32 = 10_000;
/// First development key that is a customer's wallet.
pub const FIRST_CUSTOMER_KEY: u32 = 6;

impl ChainRoles {
    /// The well-known keys of development chains.
    pub fn development() -> ChainRoles {
        ChainRoles {
            deployer: EvmKey::development(0),
            coordinator: EvmKey::development(1),
            settler: EvmKey::development(2),
            guardian: EvmKey::development(3),
            platform: EvmKey::development(4),
            operator: EvmKey::development(5),
            relayer: EvmKey::development(RELAYER_KEY),
        }
    }
}

/// What is read or made once per data directory.
pub struct Secrets {
    /// Bearer key of the administration.
    pub admin_key: String,
    /// Bearer key of auditors.
    pub auditor_key: String,
    /// Contents are sealed to it; its secret half lies in `keys/audit.key`.
    pub audit_sealing_key: SealingKey,
}

impl Secrets {
    /// Reads them, making what is missing, readable by the owner only.
    pub fn load_or_create(keys_dir: &Path) -> Result<Secrets> {
        let audit = load_or_create(&keys_dir.join("audit.key"), || Ok(hex(&random()?)))?;
        let secret: [u8; 32] = data_encoding::HEXLOWER_PERMISSIVE
            .decode(audit.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .context("keys/audit.key: expected 64 hex digits")?;
        let public = crypto_box::SecretKey::from(secret).public_key();
        Ok(Secrets {
            admin_key: load_or_create(&keys_dir.join("admin.key"), || bearer("cf_admin_"))?,
            auditor_key: load_or_create(&keys_dir.join("auditor.key"), || bearer("cf_audit_"))?,
            audit_sealing_key: SealingKey(*public.as_bytes()),
        })
    }
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn bearer(prefix: &str) -> Result<String> {
    Ok(format!("{prefix}{}", data_encoding::BASE32_NOPAD.encode(&random()?).to_lowercase()))
}

/// 16 random bytes, for ids.
pub fn random_id() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    id.copy_from_slice(&random()?[..16]);
    Ok(id)
}

/// Reads a one-line secret, or makes it.
pub fn load_or_create(path: &Path, make: impl FnOnce() -> Result<String>) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            write_secret(path, &text)?;
            Ok(text)
        }
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

/// Writes a secret whole, for its owner only.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    let failed = || path.display().to_string();
    let beside = PathBuf::from(format!("{}.new", path.display()));
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(failed)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside).with_context(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(failed)?;
    std::fs::rename(&beside, path).with_context(failed)
}
