//! SHA-256 of a file and of a folder, in hexadecimal. Reads, never writes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Reads in pieces: a model is larger than what should be in memory for a checksum.
const PIECE_BYTES: usize = 1 << 20;

pub fn of_file(path: &Path) -> Result<String> {
    Ok(hexadecimal(&raw_of_file(path)?))
}

/// A folder's digest is over (relative path, zero byte, SHA-256 of the file) of every file, in order of the path's
/// bytes. Modes and times do not count: unpackers disagree about them.
pub fn of_folder(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    collect(folder, "", &mut files)?;
    files.sort();
    let mut hasher = Sha256::new();
    for relative in files {
        hasher.update(relative.as_bytes());
        hasher.update([0]);
        hasher.update(raw_of_file(&folder.join(&relative))?);
    }
    Ok(hexadecimal(&hasher.finalize()))
}

/// Whichever it is.
pub fn of_content(path: &Path) -> Result<String> {
    if path.is_dir() { of_folder(path) } else { of_file(path) }
}

fn raw_of_file(path: &Path) -> Result<[u8; 32]> {
    let mut file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        hasher.update(&piece[..read]);
    }
    Ok(hasher.finalize().into())
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let relative = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{relative}/"), files)?;
        } else {
            files.push(relative);
        }
    }
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_digest_and_a_folder_that_notices_every_change() {
        let folder = std::env::temp_dir().join(format!("xtask-digest-{}", std::process::id()));
        fs::create_dir_all(folder.join("b")).unwrap();
        fs::write(folder.join("a"), "abc").unwrap();
        fs::write(folder.join("b/c"), "").unwrap();
        assert_eq!(
            of_file(&folder.join("a")).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let before = of_content(&folder).unwrap();
        fs::write(folder.join("b/c"), "x").unwrap();
        let edited = of_content(&folder).unwrap();
        fs::rename(folder.join("b/c"), folder.join("b/d")).unwrap();
        let renamed = of_content(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(before != edited && edited != renamed && before != renamed);
    }
}
