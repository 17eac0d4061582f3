//! Where a copy of the archive lies, as configuration and commands say it. Must not: read or write segments.

use super::bucket::{Bucket, BucketStore};
use super::{DirectoryStore, SegmentError, SegmentStore};
use std::path::PathBuf;
use std::sync::Arc;

/// A place for segments, written as a URL: `file:///folder` or `s3://bucket/prefix`, with `?endpoint=https://host:port`
/// for a server that is not Amazon's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreLocation {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Bucket),
}

/// A text that is no such place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "archive location {given:?}: {reason}; expected file:///absolute/folder or s3://bucket[/prefix][?endpoint=https://host:port]"
)]
pub struct LocationError {
    given: String,
    reason: &'static str,
}

impl std::str::FromStr for StoreLocation {
    type Err = LocationError;

    fn from_str(given: &str) -> Result<Self, LocationError> {
        let wrong = |reason| LocationError { given: given.to_owned(), reason };
        if let Some(path) = given.strip_prefix("file://") {
            let absolute = path.starts_with('/') && !path.contains('?');
            let folder = absolute.then(|| StoreLocation::Folder(path.into()));
            return folder.ok_or_else(|| wrong("the folder is not absolute"));
        }
        let rest = given.strip_prefix("s3://").ok_or_else(|| wrong("neither file:// nor s3://"))?;
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
        if name.is_empty() || !place.chars().all(plain) || prefix.split('/').any(|part| part == "..") {
            return Err(wrong("the bucket is missing, or there are characters that do not belong there"));
        }
        let endpoint = query.map(|query| query.strip_prefix("endpoint=").unwrap_or_default().to_owned());
        let web = |endpoint: &String| endpoint.starts_with("https://") || endpoint.starts_with("http://");
        if endpoint.as_ref().is_some_and(|endpoint| !web(endpoint)) {
            return Err(wrong("after the question mark only endpoint=http(s)://... may stand"));
        }
        Ok(StoreLocation::Bucket(Bucket {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            endpoint,
            keys: None,
        }))
    }
}

impl StoreLocation {
    /// Opens it; what does not answer says so when it is used.
    pub fn open(&self) -> Result<Arc<dyn SegmentStore>, SegmentError> {
        Ok(match self {
            StoreLocation::Folder(dir) => Arc::new(DirectoryStore::new(dir)),
            StoreLocation::Bucket(bucket) => Arc::new(BucketStore::open(bucket.clone())?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_or_named_wrong() {
        let bucket = |prefix: &str, endpoint: Option<&str>| {
            StoreLocation::Bucket(Bucket {
                name: "books".into(),
                prefix: prefix.into(),
                endpoint: endpoint.map(str::to_owned),
                keys: None,
            })
        };
        let good = [
            ("file:///var/copy", StoreLocation::Folder("/var/copy".into())),
            ("s3://books", bucket("", None)),
            ("s3://books/a/b/", bucket("a/b", None)),
            ("s3://books/a?endpoint=http://127.0.0.1:9", bucket("a", Some("http://127.0.0.1:9"))),
        ];
        for (text, location) in good {
            assert_eq!(text.parse(), Ok(location));
        }
        let bad = [
            "books",
            "file://relative",
            "file:///a?endpoint=http://x",
            "s3:///prefix",
            "s3://books/../other",
            "s3://books/a b",
            "s3://books?region=x",
            "s3://books?endpoint=ftp://x",
            "https://books",
        ];
        for text in bad {
            let error = text.parse::<StoreLocation>().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
