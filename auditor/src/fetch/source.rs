//! Where a log is fetched from: a gateway over HTTP, or a directory of this machine.

use crate::error::AuditError;
use protocol::tile::Tile;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for one file.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest file that is taken.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where from.
#[derive(Clone, Debug)]
pub enum FetchSource {
    /// A gateway, or any static host of its `/tlog`.
    Url {
        /// Without `/tlog` or `/v1`.
        base: String,
        /// An auditor's key; sent as bearer token.
        key: Option<String>,
    },
    /// A data directory, or another copy.
    Directory(PathBuf),
}

/// An opened source.
pub(super) enum Origin {
    Http { agent: ureq::Agent, base: String, key: Option<String> },
    Files(PathBuf),
}

impl Origin {
    pub(super) fn open(source: &FetchSource) -> Origin {
        match source {
            FetchSource::Url { base, key } => {
                let config = ureq::Agent::config_builder()
                    .timeout_global(Some(REQUEST_TIMEOUT))
                    .http_status_as_error(false)
                    .max_redirects(0)
                    .build();
                let base = base.trim_end_matches('/').to_owned();
                Origin::Http { agent: config.into(), base, key: key.clone() }
            }
            FetchSource::Directory(path) => {
                let nested = path.join("tlog");
                // A copy has no `tlog/` of its own: its files lie where the gateway's prefix would be.
                Origin::Files(if nested.is_dir() { nested } else { path.clone() })
            }
        }
    }

    /// A file that must be there. Paths are those below the gateway's base.
    pub(super) fn required(&self, path: &str) -> Result<Vec<u8>, AuditError> {
        let missing = || AuditError::Source { url: self.name(path), reason: "not found".to_owned() };
        self.optional(path)?.ok_or_else(missing)
    }

    /// A tile; where its partial form is gone because the log grew, the first part of the full one.
    pub(super) fn tile(&self, tile: &Tile) -> Result<Vec<u8>, AuditError> {
        if let Some(bytes) = self.optional(&format!("tlog/{}", tile.path()))? {
            return Ok(bytes);
        }
        let full = self.required(&format!("tlog/{}", tile.full().path()))?;
        let short = || AuditError::Source {
            url: self.name(&tile.full().path()),
            reason: format!("it has fewer than {} entries", tile.width),
        };
        tile_prefix(tile, &full).ok_or_else(short)
    }

    /// A file that may be absent.
    pub(super) fn optional(&self, path: &str) -> Result<Option<Vec<u8>>, AuditError> {
        let failed = |reason: String| AuditError::Source { url: self.name(path), reason };
        match self {
            Origin::Files(root) => {
                let file = root.join(path.strip_prefix("tlog/").unwrap_or(path));
                match std::fs::read(&file) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(AuditError::file(&file, error)),
                }
            }
            Origin::Http { agent, key, .. } => {
                let mut request = agent.get(self.name(path));
                if let Some(key) = key {
                    request = request.header("authorization", format!("Bearer {key}"));
                }
                let mut response = request.call().map_err(|e| failed(e.to_string()))?;
                match response.status().as_u16() {
                    200 => {
                        let body = response.body_mut().with_config().limit(FILE_BYTES_MAX).read_to_vec();
                        body.map(Some).map_err(|e| failed(e.to_string()))
                    }
                    404 => Ok(None),
                    status => Err(failed(format!("status {status}"))),
                }
            }
        }
    }

    fn name(&self, path: &str) -> String {
        match self {
            Origin::Http { base, .. } => format!("{base}/{path}"),
            Origin::Files(root) => root.join(path).display().to_string(),
        }
    }
}

fn tile_prefix(tile: &Tile, full: &[u8]) -> Option<Vec<u8>> {
    use protocol::tile::{TILE_WIDTH, TileKind, parse_entries, push_entry};
    match tile.kind {
        TileKind::Hashes { .. } => full.get(..tile.width as usize * 32).map(<[u8]>::to_vec),
        TileKind::Entries => {
            let mut bundle = Vec::new();
            for entry in parse_entries(full, TILE_WIDTH).ok()?.iter().take(tile.width as usize) {
                push_entry(&mut bundle, entry).ok()?;
            }
            Some(bundle)
        }
    }
}
