//! Optimistic transactions: read a snapshot, buffer the writes, commit if nothing that was read has changed.
//!
//! The closure given to [`LocalStore::transact`] may run several times, so it must have no effect but through
//! its [`Tx`]. Services pass the open `Tx` to each other's public functions, so that what belongs together is
//! committed together.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::engine::Snapshot;
use crate::kv::{Compare, Entry, Op, Revision, StoreError, Txn, TxnOutcome};
use crate::record::{self, Index, Record};
use crate::store::LocalStore;

/// How often a transaction is tried before [`StoreError::Contention`].
const TRIES_MAX: usize = 64;
/// How often a transaction is tried beside all others; from then on, those that keep losing (they change the
/// same record) are tried one after the other.
const TRIES_FREE: usize = 3;

/// Why a read or write inside a transaction could not be done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Abort {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A unique index value belongs to another record.
    #[error("{kind} {index} {value:?} is taken by {holder}")]
    Taken {
        /// The record kind.
        kind: &'static str,
        /// The index.
        index: &'static str,
        /// The value both want.
        value: String,
        /// The id of the record that has it.
        holder: String,
    },
}

/// An open transaction.
pub struct Tx {
    snapshot: Snapshot,
    reads: BTreeMap<String, Revision>,
    scans: Vec<Compare>,
    writes: BTreeMap<String, Option<Bytes>>,
}

impl Tx {
    /// Opens a transaction on a snapshot; most callers want [`LocalStore::transact`].
    pub fn new(snapshot: Snapshot) -> Tx {
        Tx { snapshot, reads: BTreeMap::new(), scans: Vec::new(), writes: BTreeMap::new() }
    }

    /// The record with this id, as this transaction sees it.
    pub fn get<R: Record>(&mut self, id: &str) -> Result<Option<R>, Abort> {
        let key = record::key::<R>(id);
        Ok(match self.raw_get(&key)? {
            Some(value) => Some(record::decode(&entry_of(key, value))?),
            None => None,
        })
    }

    /// Every record of the kind, in id order. The commit will fail if the kind has changed by then, so use it
    /// to write only where kinds are small; reading handlers use [`Tx::list_unfenced`].
    pub fn list<R: Record>(&mut self) -> Result<Vec<R>, Abort> {
        let found = self.raw_scan(&record::prefix::<R>(), true)?;
        decode_all(found)
    }

    /// Like [`Tx::list`], but the commit does not depend on it.
    pub fn list_unfenced<R: Record>(&mut self) -> Result<Vec<R>, Abort> {
        let found = self.raw_scan(&record::prefix::<R>(), false)?;
        decode_all(found)
    }

    /// The records that have this value in a shared index, in id order; the commit depends on that set.
    pub fn by_index<R: Record>(&mut self, name: &str, value: &str) -> Result<Vec<R>, Abort> {
        let prefix = record::index_prefix::<R>(name, value);
        let found = self.raw_scan(&prefix, true)?;
        let mut records = Vec::with_capacity(found.len());
        for (key, _) in found {
            records.extend(self.get::<R>(&key[prefix.len()..])?);
        }
        Ok(records)
    }

    /// The record that has this value in a unique index.
    pub fn by_unique<R: Record>(&mut self, name: &'static str, value: &str) -> Result<Option<R>, Abort> {
        match self.raw_get(&record::index_key::<R>(&Index::unique(name, value), ""))? {
            Some(id) => self.get::<R>(&String::from_utf8_lossy(&id)),
            None => Ok(None),
        }
    }

    /// Puts a record and keeps its indexes true.
    pub fn put<R: Record>(&mut self, record: &R) -> Result<(), Abort> {
        let id = record.id();
        let old = self.get::<R>(&id)?.map(|r| r.indexes()).unwrap_or_default();
        let new = record.indexes();
        for gone in old.iter().filter(|i| !new.contains(i)) {
            self.writes.insert(record::index_key::<R>(gone, &id), None);
        }
        for index in new {
            self.put_index::<R>(&index, &id)?;
        }
        self.writes.insert(record::key::<R>(&id), Some(record::encode(record)?));
        Ok(())
    }

    fn put_index<R: Record>(&mut self, index: &Index, id: &str) -> Result<(), Abort> {
        let key = record::index_key::<R>(index, id);
        if index.unique
            && let Some(holder) = self.raw_get(&key)?
            && holder != id.as_bytes()
        {
            let holder = String::from_utf8_lossy(&holder).into_owned();
            return Err(Abort::Taken {
                kind: R::KIND,
                index: index.name,
                value: index.value.clone(),
                holder,
            });
        }
        self.writes.insert(key, Some(Bytes::copy_from_slice(if index.unique { id.as_bytes() } else { b"" })));
        Ok(())
    }

    /// Removes a record and its index entries; true if it was there.
    pub fn delete<R: Record>(&mut self, id: &str) -> Result<bool, Abort> {
        let Some(old) = self.get::<R>(id)? else { return Ok(false) };
        for index in old.indexes() {
            self.writes.insert(record::index_key::<R>(&index, id), None);
        }
        self.writes.insert(record::key::<R>(id), None);
        Ok(true)
    }

    /// The revision of the snapshot this transaction reads.
    pub fn revision(&self) -> Revision {
        self.snapshot.revision()
    }

    fn raw_get(&mut self, key: &str) -> Result<Option<Bytes>, Abort> {
        if let Some(written) = self.writes.get(key) {
            return Ok(written.clone());
        }
        let entry = self.snapshot.get(key)?;
        self.reads.insert(key.to_owned(), entry.as_ref().map_or(Revision(0), |e| e.modified));
        Ok(entry.map(|e| e.value))
    }

    fn raw_scan(&mut self, prefix: &str, fenced: bool) -> Result<BTreeMap<String, Bytes>, Abort> {
        let entries = self.snapshot.range(prefix, None, usize::MAX)?.entries;
        if fenced {
            let since = self.snapshot.revision();
            self.scans.push(Compare::Unchanged { prefix: prefix.into(), count: entries.len() as u64, since });
        }
        let mut found: BTreeMap<_, _> = entries.into_iter().map(|e| (e.key, e.value)).collect();
        for (key, value) in self.writes.range(prefix.to_owned()..).take_while(|(k, _)| k.starts_with(prefix))
        {
            match value {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found)
    }

    /// What to commit: the conditions for all that was read, and the buffered writes. No writes, no conditions:
    /// a reading transaction saw one consistent snapshot, and needs no more.
    fn into_txn(self) -> Txn {
        if self.writes.is_empty() {
            return Txn::default();
        }
        let mut compares: Vec<_> = self.reads.into_iter().map(|(k, r)| Compare::Modified(k, r)).collect();
        compares.extend(self.scans);
        let ops = self
            .writes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => Op::Put { key, value, lease: None },
                None => Op::Delete { key },
            })
            .collect();
        Txn { compares, ops }
    }
}

fn entry_of(key: String, value: Bytes) -> Entry {
    Entry { key, value, created: Revision(0), modified: Revision(0), lease: None }
}

fn decode_all<R: Record>(found: BTreeMap<String, Bytes>) -> Result<Vec<R>, Abort> {
    found.into_iter().map(|(k, v)| record::decode(&entry_of(k, v)).map_err(Abort::from)).collect()
}

impl LocalStore {
    /// Runs `body` on a fresh snapshot and commits what it wrote; runs it again if somebody else changed what
    /// it had read. Nothing is written when `body` fails.
    pub async fn transact<T, E, F>(&self, mut body: F) -> Result<T, E>
    where
        F: FnMut(&mut Tx) -> Result<T, E>,
        E: From<Abort>,
    {
        let mut line = None;
        for tried in 0..TRIES_MAX {
            if tried == TRIES_FREE {
                line = Some(self.stand_in_line().await);
            }
            let mut tx = Tx::new(self.snapshot().map_err(Abort::from)?);
            let value = body(&mut tx)?;
            let txn = tx.into_txn();
            if txn.ops.is_empty() {
                return Ok(value);
            }
            if let TxnOutcome::Committed(_) = self.commit(txn).await.map_err(Abort::from)? {
                return Ok(value);
            }
        }
        drop(line);
        Err(Abort::from(StoreError::Contention).into())
    }

    /// Runs `body` on a fresh snapshot, for reading only.
    pub fn read<T, E, F>(&self, body: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx) -> Result<T, E>,
        E: From<Abort>,
    {
        body(&mut Tx::new(self.snapshot().map_err(Abort::from)?))
    }
}
