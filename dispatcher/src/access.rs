//! What is not in the log: key hashes, sessions, sealed contents, receipts waiting for their capture. Two embedded files:
//! `access.redb`, and `content-keys.redb` alone for the keys whose deletion shreds contents.
//! Writes go through one thread that commits whatever has come meanwhile in one transaction.
//! Must not: a key, a prompt or an answer in the clear.

pub mod contents;
pub mod idempotency;
pub mod keys;
pub mod recovery;
pub mod sessions;
pub mod settling;

use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Writes that may wait for the writer's thread.
const WRITES_WAITING_MAX: usize = 4_096;
/// Most writes in one transaction.
const WRITES_TOGETHER_MAX: usize = 512;

/// A table of this room: bytes to bytes; each file says what they are.
pub(crate) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Why the store could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccessError {
    /// A file could not be opened or made.
    #[error("{path}: {reason}; check that the folder exists, is writable, and no other coordinator uses it")]
    Open {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A read or a write failed.
    #[error("access store: {0}; look at the disk, then restart the coordinator")]
    Store(String),
    /// The writer's thread ended.
    #[error("access store is closed")]
    Closed,
}

impl AccessError {
    pub(crate) fn store(error: impl std::fmt::Display) -> Self {
        AccessError::Store(error.to_string())
    }
}

/// One queued write: runs in the transaction, then is told whether it was committed.
trait Queued: Send {
    fn run(&mut self, transaction: &WriteTransaction) -> Result<(), AccessError>;
    fn finish(self: Box<Self>, committed: Result<(), AccessError>);
}

struct PendingWrite<T, F> {
    work: Option<F>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, AccessError>>,
}

impl<T, F> Queued for PendingWrite<T, F>
where
    T: Send,
    F: FnOnce(&WriteTransaction) -> Result<T, AccessError> + Send,
{
    fn run(&mut self, transaction: &WriteTransaction) -> Result<(), AccessError> {
        let work = self.work.take().ok_or(AccessError::Closed)?;
        self.value = Some(work(transaction)?);
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<(), AccessError>) {
        let PendingWrite { value, reply, .. } = *self;
        // The caller may have left; the write stands.
        let _ = reply.send(committed.and_then(|()| value.ok_or(AccessError::Closed)));
    }
}

/// The store. Cheap to clone; the last clone's end waits for the writes that were queued and closes the files.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Arc<Database>,
    content_keys: Database,
    /// `None` only while it is dropped.
    writes: Option<mpsc::Sender<Box<dyn Queued>>>,
    writer: Option<std::thread::JoinHandle<()>>,
    /// Key of every hash that stands for a secret.
    hash_key: [u8; 32],
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(Err(_)) = self.writer.take().map(std::thread::JoinHandle::join) {
            tracing::error!(target: "access", "the writer's thread panicked");
        }
    }
}

impl Store {
    /// Opens or makes `access.redb`, `content-keys.redb` and `access.secret` in `folder`.
    ///
    /// # Errors
    /// [`AccessError::Open`] when one of them cannot be.
    pub fn open(folder: &Path) -> Result<Store, AccessError> {
        std::fs::create_dir_all(folder)
            .map_err(|e| AccessError::Open { path: folder.to_owned(), reason: e.to_string() })?;
        let hash_key = secret_file(&folder.join("access.secret"))?;
        let database = Arc::new(open_database(&folder.join("access.redb"))?);
        let content_keys = open_database(&folder.join("content-keys.redb"))?;
        let (writes, queue) = mpsc::channel(WRITES_WAITING_MAX);
        let for_writer = Arc::clone(&database);
        let writer = std::thread::Builder::new()
            .name("access-writer".to_owned())
            .spawn(move || write_until_closed(&for_writer, queue))
            .map_err(AccessError::store)?;
        let inner = Inner { database, content_keys, writes: Some(writes), writer: Some(writer), hash_key };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Runs `work` in a write transaction and returns when it is on disk. An error of `work` undoes its whole group.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, AccessError>
    where
        T: Send + 'static,
        F: FnOnce(&WriteTransaction) -> Result<T, AccessError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let queued = Box::new(PendingWrite { work: Some(work), value: None, reply });
        let writes = self.inner.writes.as_ref().ok_or(AccessError::Closed)?;
        writes.send(queued).await.map_err(|_| AccessError::Closed)?;
        answer.await.map_err(|_| AccessError::Closed)?
    }

    /// The bytes under a key.
    pub(crate) fn bytes(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, AccessError> {
        let transaction = self.inner.database.begin_read().map_err(AccessError::store)?;
        match transaction.open_table(table) {
            Ok(table) => Ok(table.get(key).map_err(AccessError::store)?.map(|v| v.value().to_vec())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(AccessError::store(error)),
        }
    }

    /// The record under a key.
    pub(crate) fn record<R: DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<R>, AccessError> {
        self.bytes(table, key)?.map(|bytes| parse(&bytes)).transpose()
    }

    /// Every record whose key begins with `prefix`, in order of the keys, at most `limit`.
    pub(crate) fn records<R: DeserializeOwned>(
        &self,
        table: Table,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<R>, AccessError> {
        self.values(table, prefix, limit)?.iter().map(|bytes| parse(bytes)).collect()
    }

    /// Every value whose key begins with `prefix`, in order of the keys, at most `limit`.
    pub(crate) fn values(
        &self,
        table: Table,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, AccessError> {
        let entries = self.entries_from(table, prefix, limit)?;
        Ok(entries
            .into_iter()
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, value)| value)
            .collect())
    }

    /// Entries from the key `first` on, in order of the keys, at most `limit`.
    pub(crate) fn entries_from(
        &self,
        table: Table,
        first: &[u8],
        limit: usize,
    ) -> Result<Vec<Entry>, AccessError> {
        let transaction = self.inner.database.begin_read().map_err(AccessError::store)?;
        let table = match transaction.open_table(table) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(AccessError::store(error)),
        };
        let range = table.range(first..).map_err(AccessError::store)?;
        let entries = range.take(limit).map(|entry| {
            let (key, value) = entry.map_err(AccessError::store)?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        });
        entries.collect()
    }

    /// The keyed hash under which a secret is stored: whoever reads the file cannot try secrets against it.
    pub(crate) fn hash_secret(&self, secret: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.inner.hash_key, secret.as_bytes()).as_bytes()
    }

    pub(crate) fn content_keys(&self) -> &Database {
        &self.inner.content_keys
    }
}

pub(crate) fn put(
    transaction: &WriteTransaction,
    table: Table,
    key: &[u8],
    value: &[u8],
) -> Result<(), AccessError> {
    let mut table = transaction.open_table(table).map_err(AccessError::store)?;
    table.insert(key, value).map_err(AccessError::store)?;
    Ok(())
}

pub(crate) fn put_record<R: Serialize>(
    transaction: &WriteTransaction,
    table: Table,
    key: &[u8],
    record: &R,
) -> Result<(), AccessError> {
    put(transaction, table, key, &serde_json::to_vec(record).map_err(AccessError::store)?)
}

/// Removes a key and returns what it held.
pub(crate) fn take(
    transaction: &WriteTransaction,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, AccessError> {
    let mut table = transaction.open_table(table).map_err(AccessError::store)?;
    let taken = table.remove(key).map_err(AccessError::store)?;
    Ok(taken.map(|v| v.value().to_vec()))
}

/// Reads inside a write transaction: what it sees cannot change before the commit.
pub(crate) fn peek(
    transaction: &WriteTransaction,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, AccessError> {
    use redb::ReadableTable;
    let table = transaction.open_table(table).map_err(AccessError::store)?;
    let found = table.get(key).map_err(AccessError::store)?;
    Ok(found.map(|v| v.value().to_vec()))
}

pub(crate) fn parse<R: DeserializeOwned>(bytes: &[u8]) -> Result<R, AccessError> {
    serde_json::from_slice(bytes).map_err(AccessError::store)
}

/// 32 bytes of the system's randomness.
pub(crate) fn random_32() -> Result<[u8; 32], AccessError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(AccessError::store)?;
    Ok(bytes)
}

/// 16 bytes of the system's randomness: an id.
pub(crate) fn random_16() -> Result<[u8; 16], AccessError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(AccessError::store)?;
    Ok(bytes)
}

fn open_database(path: &Path) -> Result<Database, AccessError> {
    let database = Database::create(path)
        .map_err(|e| AccessError::Open { path: path.to_owned(), reason: e.to_string() })?;
    owner_only(path);
    Ok(database)
}

/// Reads the 32-byte secret, or draws and stores it. It lies beside the database, not in it.
fn secret_file(path: &Path) -> Result<[u8; 32], AccessError> {
    let open = |reason: String| AccessError::Open { path: path.to_owned(), reason };
    match std::fs::read(path) {
        Ok(bytes) => {
            bytes.try_into().map_err(|_| open("expected 32 bytes; restore it from backup".to_owned()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = random_32()?;
            let mut file = std::fs::File::create_new(path).map_err(|e| open(e.to_string()))?;
            owner_only(path);
            file.write_all(&secret).and_then(|()| file.sync_all()).map_err(|e| open(e.to_string()))?;
            Ok(secret)
        }
        Err(error) => Err(open(error.to_string())),
    }
}

#[cfg(unix)]
fn owner_only(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!(target: "access", path = %path.display(), %error, "permissions not narrowed");
    }
}

#[cfg(not(unix))]
fn owner_only(_: &Path) {}

/// The writer's thread: drains the queue, one transaction a drain.
fn write_until_closed(database: &Database, mut queue: mpsc::Receiver<Box<dyn Queued>>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < WRITES_TOGETHER_MAX {
            match queue.try_recv() {
                Ok(next) => group.push(next),
                Err(_) => break,
            }
        }
        let committed = commit_group(database, &mut group);
        if let Err(error) = &committed {
            tracing::error!(target: "access", %error, "writes lost");
        }
        for write in group {
            write.finish(committed.clone());
        }
    }
}

fn commit_group(database: &Database, group: &mut [Box<dyn Queued>]) -> Result<(), AccessError> {
    let transaction = database.begin_write().map_err(AccessError::store)?;
    for write in group {
        write.run(&transaction)?;
    }
    transaction.commit().map_err(AccessError::store)
}

#[cfg(test)]
mod tests;
