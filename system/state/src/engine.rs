//! The single-node engine on redb: one writer thread with group commit, snapshots for readers, a bounded
//! history for watches, leases.
//!
//! Every commit is `Durability::Immediate` before it is acknowledged. Nothing here knows what a value means.

use std::sync::Arc;

use crate::kv::{Entry, Range, Revision, StoreError, Txn, TxnOutcome};

/// The store of this node. Cheap to clone.
#[derive(Clone)]
pub struct LocalStore {
    inner: Arc<()>,
}

/// A consistent view of the store at one revision. Reads are synchronous: they touch only the local file.
pub struct Snapshot {}

impl LocalStore {
    /// A view of the newest committed state.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let _ = &self.inner;
        todo!()
    }
    /// Commits a transaction through the writer thread.
    pub async fn commit(&self, _txn: Txn) -> Result<TxnOutcome, StoreError> {
        todo!()
    }
    /// Opens (or creates) the store in this file.
    pub fn open(_path: &std::path::Path) -> Result<LocalStore, StoreError> {
        todo!()
    }
    /// A store in memory, for tests.
    pub fn in_memory() -> Result<LocalStore, StoreError> {
        todo!()
    }
}

impl Snapshot {
    /// The revision of this view.
    pub fn revision(&self) -> Revision {
        todo!()
    }
    /// The entry at `key`.
    pub fn get(&self, _key: &str) -> Result<Option<Entry>, StoreError> {
        todo!()
    }
    /// As [`crate::Store::range`].
    pub fn range(&self, _prefix: &str, _after: Option<&str>, _limit: usize) -> Result<Range, StoreError> {
        todo!()
    }
}
