//! The single-node engine on redb: one writer thread with group commit, snapshots for readers, a bounded
//! history for watches, leases.
//!
//! Every commit is `Durability::Immediate` before it is acknowledged. Nothing here knows what a value means.
//!
//! `layout` is the file, byte by byte; `apply` decides a transaction; `writer` commits; `snapshot` and
//! `history` read; `leases` keeps time.

mod apply;
mod history;
mod layout;
mod leases;
mod snapshot;
mod writer;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend};
use tokio::sync::{Semaphore, broadcast, oneshot, watch};

use self::history::Batch;
use self::layout::{LEASES, failed};
use self::leases::Leases;
pub use self::snapshot::Snapshot;
use self::writer::{Command, Reply, Request, Writer};
use crate::kv::{Entry, LeaseId, Range, Revision, Store, StoreError, Txn, TxnOutcome, WatchStream};

/// How many requests may wait for the writer; more wait for a place.
const QUEUE_MAX: usize = 4096;

/// The sizes of a store.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Memory for pages of the file.
    pub cache_bytes: usize,
    /// How many revisions can be watched from behind.
    pub history_revisions: u64,
    /// How many commits a watcher may be late before it reads them from the file.
    pub feed_commits: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { cache_bytes: 16 << 20, history_revisions: 10_000, feed_commits: 64 }
    }
}

/// The store of this node. Cheap to clone; the file is closed when the last clone is dropped.
#[derive(Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

struct Inner {
    db: Arc<Database>,
    /// `None` only while being dropped.
    queue: Option<mpsc::Sender<Request>>,
    places: Arc<Semaphore>,
    leases: Arc<Leases>,
    feed: broadcast::Sender<Arc<Batch>>,
    failure: watch::Receiver<Option<StoreError>>,
    thread: Option<JoinHandle<()>>,
    /// Held by a transaction that has lost to others too often, see [`LocalStore::transact`].
    last_in_line: tokio::sync::Mutex<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends when its queue does, after what is in it.
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer had panicked");
        }
    }
}

impl LocalStore {
    /// Opens (or creates) the store in this file. Only one process can have it open. A crash before this has
    /// returned for the first time leaves no file.
    pub fn open(path: &Path) -> Result<LocalStore, StoreError> {
        let limits = Limits::default();
        if !path.exists() {
            create(path, limits).map_err(|e| StoreError::Storage(format!("{}: {e}", path.display())))?;
        }
        let db = Database::builder().set_cache_size(limits.cache_bytes).open(path).map_err(failed)?;
        LocalStore::on(db, limits)
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> Result<LocalStore, StoreError> {
        LocalStore::with_backend(InMemoryBackend::new(), Limits::default())
    }

    /// A store on anything that can hold bytes, for tests that break it or need small limits.
    pub fn with_backend(backend: impl StorageBackend, limits: Limits) -> Result<LocalStore, StoreError> {
        let mut builder = Database::builder();
        let db = builder.set_cache_size(limits.cache_bytes).create_with_backend(backend).map_err(failed)?;
        LocalStore::on(db, limits)
    }

    fn on(db: Database, limits: Limits) -> Result<LocalStore, StoreError> {
        layout::prepare(&db)?;
        let db = Arc::new(db);
        let leases = Arc::new(Leases::default());
        restart_leases(&db, &leases)?;
        let (queue, requests) = mpsc::channel();
        let (feed, _) = broadcast::channel(limits.feed_commits);
        let (failure_tx, failure) = watch::channel(None);
        let writer = Writer {
            db: db.clone(),
            leases: leases.clone(),
            feed: feed.clone(),
            failure: failure_tx,
            keep_revisions: limits.history_revisions,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(requests))
            .map_err(|e| StoreError::Storage(format!("no thread for the writer: {e}")))?;
        let places = Arc::new(Semaphore::new(QUEUE_MAX));
        let (queue, thread) = (Some(queue), Some(thread));
        let last_in_line = tokio::sync::Mutex::default();
        let inner = Inner { db, queue, places, leases, feed, failure, thread, last_in_line };
        Ok(LocalStore { inner: Arc::new(inner) })
    }

    /// A view of the newest committed state.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Snapshot::new(&self.inner.db)
    }

    /// Commits a transaction through the writer thread. Once called it may be done even if the future is
    /// dropped.
    pub async fn commit(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        apply::check(&txn)?;
        match self.ask(Command::Txn(txn)).await? {
            Reply::Txn(outcome) => Ok(outcome),
            Reply::Granted(_) | Reply::Revoked => Err(gone()),
        }
    }

    /// Waits until the store's disk has failed. Nothing can be written from then on: the process must end and
    /// be started anew, so that the file is opened and repaired.
    pub async fn failed(&self) -> StoreError {
        let mut failure = self.inner.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }

    /// Waits until no other transaction that has lost too often is being tried.
    pub(crate) async fn stand_in_line(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.last_in_line.lock().await
    }

    async fn ask(&self, command: Command) -> Result<Reply, StoreError> {
        let place = self.inner.places.clone().acquire_owned().await.map_err(|_| gone())?;
        let (reply, answer) = oneshot::channel();
        let queue = self.inner.queue.as_ref().ok_or_else(gone)?;
        queue.send(Request { command, reply, _place: place }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Makes an empty store beside, and renames it to where it belongs once it is whole.
fn create(path: &Path, limits: Limits) -> Result<(), Box<dyn std::error::Error>> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    if beside.exists() {
        std::fs::remove_file(beside)?;
    }
    let db = Database::builder().set_cache_size(limits.cache_bytes).create(beside)?;
    layout::prepare(&db)?;
    db.close()?;
    std::fs::File::open(beside)?.sync_all()?;
    std::fs::rename(beside, path)?;
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(std::fs::File::open(directory)?.sync_all()?)
}

fn gone() -> StoreError {
    StoreError::Storage("the store's writer has stopped".into())
}

fn restart_leases(db: &Database, leases: &Leases) -> Result<(), StoreError> {
    let txn = db.begin_read().map_err(failed)?;
    for row in txn.open_table(LEASES).map_err(failed)?.iter().map_err(failed)? {
        let (lease, ttl_ms) = row.map_err(failed)?;
        leases.start(LeaseId(lease.value()), ttl_ms.value());
    }
    Ok(())
}

#[async_trait]
impl Store for LocalStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.snapshot()?.get(key)
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        self.snapshot()?.range(prefix, after, limit)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        history::watch(&self.inner.db, self.inner.feed.subscribe(), prefix, after)
    }

    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        match self.ask(Command::Grant { ttl_ms }).await? {
            Reply::Granted(lease) => Ok(lease),
            Reply::Txn(_) | Reply::Revoked => Err(gone()),
        }
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.leases.keep_alive(lease)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(Command::Revoke(lease)).await.map(drop)
    }
}
