//! What stands beside exported files: a checksum each, and one manifest of the folder.

use super::Provenance;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The manifest's file name.
pub const MANIFEST_FILE: &str = "manifest.json";

/// SHA-256 as hex.
pub fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// A file's checksum as `sha256sum --check` reads it.
pub fn checksum_line(name: &str, bytes: &[u8]) -> String {
    format!("{}  {name}\n", sha256(bytes))
}

/// Whether the manifest holds another file of this name of a period that was closed: such a file never changes, so one of
/// the two is not of this log, or was made with other flags.
pub fn contradicts(present: &str, name: &str, bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(present) else { return false };
    let file = &value["files"][name];
    file["provenance"]["closed"] == json!(true) && file["sha256"] != json!(sha256(bytes))
}

/// The manifest with this file in it, by name; what was there of other files stays. `None` when the present text is no
/// manifest.
pub fn with_file(
    present: Option<&str>,
    name: &str,
    bytes: &[u8],
    export: &str,
    provenance: &Provenance,
) -> Option<String> {
    let mut files: Map<String, Value> = match present {
        None => Map::new(),
        Some(text) => {
            let value: Value = serde_json::from_str(text).ok()?;
            value.get("files")?.as_object()?.clone()
        }
    };
    let about = json!({"sha256": sha256(bytes), "bytes": bytes.len(), "provenance": provenance.json(export)});
    files.insert(name.to_owned(), about);
    Some(super::json_text(json!({"files": files})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_by_name_and_others_stay() {
        let provenance = Provenance { origin: "o".into(), size: 4, root: None, period: None };
        let one = with_file(None, "b.csv", b"x", "postings", &provenance).unwrap();
        let two = with_file(Some(&one), "a.csv", b"y", "postings", &provenance).unwrap();
        assert!(two.find("a.csv").unwrap() < two.find("b.csv").unwrap());
        assert!(two.contains("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"));
        let again = with_file(Some(&two), "a.csv", b"y", "postings", &provenance).unwrap();
        assert_eq!(again, two, "the same file is the same manifest");
        assert_eq!(with_file(Some("no manifest"), "a", b"", "postings", &provenance), None);
        assert_eq!(checksum_line("a", b"x").len(), 64 + 2 + 2);
    }
}
