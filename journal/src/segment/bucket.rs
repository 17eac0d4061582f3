//! Segments as objects of a bucket: S3, and servers that speak like it. An object's name holds the hash of its content, so
//! one is never changed, and whoever reads it can check it. Must not: look into segments, or know where copies are needed.

use super::{SegmentError, SegmentName, SegmentStore};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long one request is tried again before it fails.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
/// How often at most.
const RETRIES_MAX: usize = 6;

/// Where a bucket is. Keys come from the environment, as for every S3 client: `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`. Another server than Amazon's is asked without a signature when
/// there are none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Folder in it, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Another server than Amazon's: `https://host[:port]`. `http://` sends the archive in the clear.
    pub endpoint: Option<String>,
    /// Instead of the environment's.
    pub keys: Option<BucketKeys>,
}

/// Keys of one bucket. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketKeys {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
}

impl std::fmt::Debug for BucketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketKeys").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Segments under one prefix of one bucket.
pub struct BucketStore {
    bucket: Bucket,
    store: Arc<dyn ObjectStore>,
    /// Requests run on it; who asks waits, as for a file. `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl BucketStore {
    /// Does not ask the server yet.
    pub fn open(bucket: Bucket) -> Result<BucketStore, SegmentError> {
        // The TLS of the process: no other part of it may bring another one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |what| SegmentError::io(format!("s3://{}", bucket.name), what);
        let retry =
            RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&bucket.name)
            .with_checksum_algorithm(Checksum::SHA256)
            .with_retry(retry);
        if let Some(endpoint) = &bucket.endpoint {
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.starts_with("http://"))
                .with_skip_signature(
                    bucket.keys.is_none() && std::env::var_os("AWS_ACCESS_KEY_ID").is_none(),
                );
        }
        if let Some(BucketKeys { id, secret }) = &bucket.keys {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        let store = builder.build().map_err(|e| failed("open the bucket")(io::Error::other(e)))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Some(runtime.map_err(failed("start a runtime for the bucket"))?);
        Ok(BucketStore { bucket, store: Arc::new(store), runtime })
    }

    fn key(&self, name: &SegmentName) -> Key {
        match self.bucket.prefix.as_str() {
            "" => Key::from(name.to_string()),
            prefix => Key::from(format!("{prefix}/{name}")),
        }
    }

    /// Runs a request on the store's own runtime, so that callers may stand in any.
    fn wait<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let runtime = self.runtime.as_ref().ok_or_else(|| io::Error::other("the store is closed"))?;
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move {
            let _ = answer.send(request.await);
        });
        let answer = answered.recv().map_err(|_| io::Error::other("the request died"))?;
        answer.map_err(|error| {
            let kind = match &error {
                object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
                object_store::Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })
    }

    fn write(&self, name: &SegmentName, bytes: &[u8], mode: PutMode) -> io::Result<()> {
        let (store, key) = (self.store.clone(), self.key(name));
        let payload = PutPayload::from(bytes.to_vec());
        self.wait(async move { store.put_opts(&key, payload, PutOptions::from(mode)).await }).map(drop)
    }

    fn read_whole(&self, name: &SegmentName) -> io::Result<Vec<u8>> {
        let (store, key) = (self.store.clone(), self.key(name));
        self.wait(async move { store.get(&key).await?.bytes().await }).map(Vec::from)
    }
}

impl std::fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketStore").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

impl Drop for BucketStore {
    fn drop(&mut self) {
        // A runtime that is dropped inside another one would panic; nothing waits here any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl SegmentStore for BucketStore {
    fn list(&self) -> Result<Vec<SegmentName>, SegmentError> {
        let store = self.store.clone();
        let prefix = (!self.bucket.prefix.is_empty()).then(|| Key::from(self.bucket.prefix.as_str()));
        let listed = self.wait(async move { store.list_with_delimiter(prefix.as_ref()).await });
        let failed = SegmentError::io(format!("s3://{}", self.bucket.name), "list the bucket");
        let objects = listed.map_err(failed)?.objects;
        let name = |key: &Key| SegmentName::parse(std::path::Path::new(key.filename()?));
        let mut names: Vec<SegmentName> =
            objects.iter().filter_map(|object| name(&object.location)).collect();
        names.sort();
        Ok(names)
    }

    fn size(&self, name: &SegmentName) -> Result<u64, SegmentError> {
        let (store, key) = (self.store.clone(), self.key(name));
        let head = self.wait(async move { store.head(&key).await });
        Ok(head.map_err(SegmentError::io(name, "read the size"))?.size)
    }

    fn read(&self, name: &SegmentName, offset: u64, length: usize) -> Result<Vec<u8>, SegmentError> {
        let (store, key, end) = (self.store.clone(), self.key(name), offset + length as u64);
        let bytes = self.wait(async move { store.get_range(&key, offset..end).await });
        let bytes = bytes.map_err(SegmentError::io(name, "read"))?;
        if bytes.len() != length {
            let short = io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} bytes came", bytes.len()));
            return Err(SegmentError::io(name, "read")(short));
        }
        Ok(bytes.into())
    }

    /// An object of this name with other bytes was damaged there: it is replaced.
    fn put(&self, name: &SegmentName, bytes: &[u8]) -> Result<(), SegmentError> {
        match self.write(name, bytes, PutMode::Create) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = self.read_whole(name).map_err(SegmentError::io(name, "read"))?;
                if there == bytes {
                    return Ok(());
                }
                tracing::warn!(target: "journal", %name, "the bucket held other bytes under this name; replaced");
                self.write(name, bytes, PutMode::Overwrite).map_err(SegmentError::io(name, "replace"))
            }
            written => written.map_err(SegmentError::io(name, "write")),
        }
    }
}
