//! What the tests of the store share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test takes what it needs, and says where it cannot go on"
)]

pub mod cluster;
pub mod disk;
pub mod model;

use std::time::Duration;

use cairn_state::{Index, Limits, LocalStore, Media, Op, Record, StoreError, Txn, TxnOutcome};
use serde::{Deserialize, Serialize};

/// A transaction that puts one key.
pub fn put(key: &str, value: &str) -> Txn {
    let value = value.to_owned().into();
    Txn { compares: vec![], ops: vec![Op::Put { key: key.into(), value, lease: None }] }
}

/// A transaction that removes one key.
pub fn delete(key: &str) -> Txn {
    Txn { compares: vec![], ops: vec![Op::Delete { key: key.into() }] }
}

/// The revision of a transaction that must have been done.
pub fn revision(outcome: Result<TxnOutcome, StoreError>) -> u64 {
    match outcome {
        Ok(TxnOutcome::Committed(revision)) => revision.0,
        other => panic!("not committed: {other:?}"),
    }
}

/// The sizes of a store that forgets soon.
pub fn limits(history_revisions: u64, feed_commits: usize) -> Limits {
    let limits = Limits { log_file_bytes: 16 << 10, unsaved_entries: 6, ..Limits::default() };
    Limits { cache_bytes: 1 << 20, history_revisions, feed_commits, ..limits }
}

/// A store in memory that forgets soon.
pub fn small(history_revisions: u64, feed_commits: usize) -> LocalStore {
    LocalStore::with_media(Media::in_memory(), limits(history_revisions, feed_commits)).unwrap()
}

/// What the future gives; it must not take long.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("nothing came")
}

/// What the future gives; several machines' worth of work may go before.
pub async fn within_20s<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing came")
}

/// A record with a unique and a shared index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    pub id: String,
    pub name: String,
    pub colour: String,
}

impl Named {
    pub fn new(id: &str, name: &str, colour: &str) -> Named {
        Named { id: id.into(), name: name.into(), colour: colour.into() }
    }
}

impl Record for Named {
    const KIND: &'static str = "test/named";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name), Index::multi("colour", &self.colour)]
    }
}
