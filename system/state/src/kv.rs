//! The key-value model, in the manner of etcd: revisions, compare-and-write transactions, watches, leases.
//!
//! Only types and the [`Store`] trait: what every engine (redb here, a replicated one later) and every client
//! (the Unix socket of `cairn-wire`) stands behind. No I/O here.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

/// The number of a committed transaction. It grows by one with each that changed something; 0 is "before all".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Revision(pub u64);

/// A lease: keys put under it vanish together when it is not kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// A key as it stands at some revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// The revision that created the key (since it was last absent).
    pub created: Revision,
    /// The revision that last put it.
    pub modified: Revision,
    /// The lease it lives under, if any.
    pub lease: Option<LeaseId>,
}

/// A condition of a transaction, tested against the state just before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// The key was last put at this revision; [`Revision`] 0 means that it must be absent.
    Modified(String, Revision),
    /// The keys that begin with this prefix are just these many, none put after this revision.
    /// (So no key was added, changed or removed since it was read.) Costs a scan of the prefix.
    Unchanged {
        /// The prefix.
        prefix: String,
        /// How many keys had it.
        count: u64,
        /// The revision at which it was read.
        since: Revision,
    },
}

/// A change made by a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Puts a value, under a lease or none.
    Put {
        /// The key.
        key: String,
        /// The new value.
        value: Bytes,
        /// The lease the key will live under.
        lease: Option<LeaseId>,
    },
    /// Removes a key; removing an absent one changes nothing.
    Delete {
        /// The key.
        key: String,
    },
}

/// A transaction: all operations are done if every condition holds, none otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is then done, in this order.
    pub ops: Vec<Op>,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOutcome {
    /// Every condition held. The revision is that of the change (or the current one if nothing changed).
    Committed(Revision),
    /// Some condition did not hold; nothing was changed.
    Conflict,
}

/// A change of one key, as a watcher sees it. Events come in revision order, none twice, none left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The key was put; this is how it stands now.
    Put(Entry),
    /// The key was removed.
    Delete {
        /// The key.
        key: String,
        /// The revision that removed it.
        revision: Revision,
    },
}

impl Event {
    /// The revision this change was made at.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put(e) => e.modified,
            Event::Delete { revision, .. } => *revision,
        }
    }

    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Event::Put(e) => &e.key,
            Event::Delete { key, .. } => key,
        }
    }
}

/// All keys under a prefix, and the revision they were read at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The entries in key order.
    pub entries: Vec<Entry>,
    /// The revision of the snapshot they come from; a watch from here on misses nothing.
    pub at: Revision,
    /// Whether the limit cut the list short.
    pub more: bool,
}

/// What can go wrong with the store itself (a conflict is not an error, it is a [`TxnOutcome`]).
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize, PartialEq, Eq)]
pub enum StoreError {
    /// The disk under the store failed, or the store's file is damaged.
    #[error("the store's disk failed: {0}")]
    Storage(String),
    /// A watch asked for a revision whose history is no longer kept: read the range anew and watch from there.
    #[error("revision {asked:?} is compacted, the oldest kept is {oldest:?}")]
    Compacted {
        /// What was asked.
        asked: Revision,
        /// The oldest that can be had.
        oldest: Revision,
    },
    /// The lease is unknown or has expired.
    #[error("lease {0:?} has expired")]
    LeaseExpired(LeaseId),
    /// The controller cannot be reached; the call may or may not have been done.
    #[error("the controller cannot be reached: {0}")]
    Unavailable(String),
    /// This peer may not read or write this key.
    #[error("{role} may not use {key}")]
    Forbidden {
        /// Who asked.
        role: String,
        /// The key.
        key: String,
    },
    /// A record could not be read: its bytes are damaged or from a release too new.
    #[error("record {key} cannot be read: {why}")]
    Decode {
        /// The key.
        key: String,
        /// What was wrong with it.
        why: String,
    },
    /// A transaction kept losing to others and was given up.
    #[error("too many conflicting writers, try again")]
    Contention,
    /// A key or a transaction exceeds what the store takes.
    #[error("too large for the store: {0}")]
    TooLarge(String),
    /// The store's file is of a newer release.
    #[error("the store's file has format {found}, this release knows up to {known}: start the newer release")]
    TooNew {
        /// The format of the file.
        found: u64,
        /// The newest format known here.
        known: u64,
    },
}

/// A stream of changes; it ends with an error when the watcher must start anew.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Event, StoreError>> + Send>>;

/// A store, local or remote.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry at `key`, linearizably.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// The entries whose key begins with `prefix` and is greater than `after` (if given), at most `limit`.
    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError>;

    /// Does a transaction. When it returns `Committed`, it is on stable media.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;

    /// Every change under `prefix` with a revision greater than `after`, then those to come.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError>;

    /// Grants a lease of `ttl_ms` milliseconds, counted anew from each keep-alive.
    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError>;

    /// Keeps a lease alive.
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease and removes its keys.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
}

/// A store shared by many.
pub type SharedStore = Arc<dyn Store>;
