//! A file that is there whole or not at all, also after a power cut.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::ChainError;

/// Writes a file beside its name, syncs it, and renames it into place.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ChainError> {
    let failed = |error: std::io::Error| ChainError::file(path, error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    // The rename itself must survive as well.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
