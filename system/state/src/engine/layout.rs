//! The store's file, byte by byte: redb tables, how an entry and an event are laid out in them, and the
//! format version.
//!
//! Only encoding and the opening of tables. It decides nothing and must never change what a released format
//! number means: a new layout takes a new [`FORMAT`] and a way to read the old one.

use bytes::{BufMut, Bytes};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use crate::kv::{Entry, Event, LeaseId, Revision, StoreError};

/// The format this release writes.
///
/// 1: the first one, a store of one node. 2: [`RAFT`], [`RAFT_LOG`] and [`SESSIONS`] beside the same tables, because the
/// store is a replica of a group. A file of format 1 becomes the first member of its own group when it is opened.
/// 3: the log is in files of its own (`wal`), and [`RAFT_LOG`] empty but for what is to be carried over to them.
pub(crate) const FORMAT: u64 = 3;

/// key -> entry: `created`, `modified` and `lease` (0: none) as little-endian u64, then the value.
pub(crate) const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
/// (revision, position within it) -> event: a tag (0 delete, 1 put), the key's length as little-endian u32,
/// the key, and for a put the entry as in [`ENTRIES`].
pub(crate) const HISTORY: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("history");
/// lease -> ttl in milliseconds. Deadlines are not kept: after a restart each lease has its full ttl.
pub(crate) const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
/// (lease, key): the keys that live under a lease.
pub(crate) const LEASE_KEYS: TableDefinition<(u64, &str), ()> = TableDefinition::new("lease-keys");
/// session -> what is remembered of a caller's transactions, in postcard: see `sessions`.
pub(crate) const SESSIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("sessions");
/// Single numbers, by the names below.
pub(crate) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Of the replica, by the names in `raft::saved`, each in postcard.
pub(crate) const RAFT: TableDefinition<&str, &[u8]> = TableDefinition::new("raft");
/// index -> log entry in postcard: what the log's own files do not have yet.
pub(crate) const RAFT_LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("raft-log");
/// number -> a piece of a snapshot that is being received; empty otherwise.
pub(crate) const RAFT_INCOMING: TableDefinition<u64, &[u8]> = TableDefinition::new("raft-incoming");

/// In [`META`]: the format of the file.
pub(crate) const META_FORMAT: &str = "format";
/// In [`META`]: the revision of the last transaction.
pub(crate) const META_REVISION: &str = "revision";
/// In [`META`]: the newest revision whose events were dropped from the history; 0 if none was.
pub(crate) const META_COMPACTED: &str = "compacted";
/// In [`META`]: the last lease granted.
pub(crate) const META_LEASE: &str = "lease";

const HEAD: usize = 24;

/// Any redb error, as the store's.
pub(crate) fn failed(e: impl Into<redb::Error>) -> StoreError {
    StoreError::Storage(e.into().to_string())
}

fn damaged(what: &str) -> StoreError {
    StoreError::Storage(format!("the store's file is damaged: {what}"))
}

/// The tables of an open write transaction.
pub(crate) struct Tables<'t> {
    pub entries: Table<'t, &'static str, &'static [u8]>,
    pub history: Table<'t, (u64, u32), &'static [u8]>,
    pub leases: Table<'t, u64, u64>,
    pub lease_keys: Table<'t, (u64, &'static str), ()>,
    pub sessions: Table<'t, u64, &'static [u8]>,
    meta: Table<'t, &'static str, u64>,
    /// The revision, and whether it was changed here and is not in `meta` yet.
    revision: (u64, bool),
}

impl<'t> Tables<'t> {
    pub(crate) fn open(txn: &'t WriteTransaction) -> Result<Tables<'t>, StoreError> {
        let meta = txn.open_table(META).map_err(failed)?;
        Ok(Tables {
            revision: (number(&meta, META_REVISION)?, false),
            entries: txn.open_table(ENTRIES).map_err(failed)?,
            history: txn.open_table(HISTORY).map_err(failed)?,
            leases: txn.open_table(LEASES).map_err(failed)?,
            lease_keys: txn.open_table(LEASE_KEYS).map_err(failed)?,
            sessions: txn.open_table(SESSIONS).map_err(failed)?,
            meta,
        })
    }

    /// The revision.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.0
    }

    /// Sets the revision; for good by [`Tables::close`].
    pub(crate) fn set_revision(&mut self, to: u64) {
        self.revision = (to, true);
    }

    /// Writes what was only noted so far.
    pub(crate) fn close(mut self) -> Result<(), StoreError> {
        match self.revision {
            (revision, true) => self.set_number(META_REVISION, revision),
            _ => Ok(()),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64, StoreError> {
        number(&self.meta, name)
    }

    pub(crate) fn set_number(&mut self, name: &str, to: u64) -> Result<(), StoreError> {
        self.meta.insert(name, to).map(drop).map_err(failed)
    }
}

/// A number of [`META`]; 0 if it was never set.
pub(crate) fn number(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, StoreError> {
    Ok(meta.get(name).map_err(failed)?.map_or(0, |n| n.value()))
}

/// The format of a file: 0 if it has no tables yet. A newer one than this release knows is refused.
pub(crate) fn format_of(db: &Database) -> Result<u64, StoreError> {
    let txn = db.begin_read().map_err(failed)?;
    let found = match txn.open_table(META) {
        Ok(meta) => number(&meta, META_FORMAT)?,
        Err(TableError::TableDoesNotExist(_)) => 0,
        Err(e) => return Err(failed(e)),
    };
    if found > FORMAT {
        return Err(StoreError::TooNew { found, known: FORMAT });
    }
    Ok(found)
}

/// Makes every table that is not there yet, and says that the file is of this release's format.
pub(crate) fn make_tables(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(RAFT).map_err(failed)?;
    txn.open_table(RAFT_LOG).map_err(failed)?;
    txn.open_table(RAFT_INCOMING).map_err(failed)?;
    Tables::open(txn)?.set_number(META_FORMAT, FORMAT)
}

/// An entry as [`ENTRIES`] holds it.
pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + entry.value.len());
    put_entry(&mut out, entry);
    out
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.put_u64_le(entry.created.0);
    out.put_u64_le(entry.modified.0);
    out.put_u64_le(entry.lease.map_or(0, |l| l.0));
    out.put_slice(&entry.value);
}

/// What an entry is beside its key and value.
pub(crate) struct Head {
    pub created: Revision,
    pub modified: Revision,
    pub lease: Option<LeaseId>,
}

/// The head of a stored entry, and its value.
pub(crate) fn split_entry(stored: &[u8]) -> Result<(Head, &[u8]), StoreError> {
    let (head, value) = stored.split_first_chunk::<HEAD>().ok_or_else(|| damaged("a short entry"))?;
    let [created, modified, lease] = [0, 8, 16].map(|at| {
        let mut word = [0; 8];
        word.copy_from_slice(&head[at..at + 8]);
        u64::from_le_bytes(word)
    });
    let lease = (lease != 0).then_some(LeaseId(lease));
    Ok((Head { created: Revision(created), modified: Revision(modified), lease }, value))
}

/// A stored entry.
pub(crate) fn decode_entry(key: &str, stored: &[u8]) -> Result<Entry, StoreError> {
    let (Head { created, modified, lease }, value) = split_entry(stored)?;
    Ok(Entry { key: key.to_owned(), value: Bytes::copy_from_slice(value), created, modified, lease })
}

/// An event as [`HISTORY`] holds it.
pub(crate) fn encode_event(event: &Event) -> Vec<u8> {
    let key = event.key();
    let mut out = Vec::with_capacity(5 + key.len() + HEAD);
    out.put_u8(u8::from(matches!(event, Event::Put(_))));
    out.put_u32_le(key.len() as u32);
    out.put_slice(key.as_bytes());
    if let Event::Put(entry) = event {
        put_entry(&mut out, entry);
    }
    out
}

/// The event of this revision, if its key begins with `prefix`.
pub(crate) fn decode_event(revision: u64, stored: &[u8], prefix: &str) -> Result<Option<Event>, StoreError> {
    let (tag, rest) = stored.split_first().ok_or_else(|| damaged("an empty event"))?;
    let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("a short event"))?;
    let (key, entry) = rest
        .split_at_checked(u32::from_le_bytes(*len) as usize)
        .ok_or_else(|| damaged("a short event key"))?;
    if !key.starts_with(prefix.as_bytes()) {
        return Ok(None);
    }
    let key = std::str::from_utf8(key).map_err(|_| damaged("an event key that is not text"))?;
    Ok(Some(match tag {
        0 => Event::Delete { key: key.to_owned(), revision: Revision(revision) },
        _ => Event::Put(decode_entry(key, entry)?),
    }))
}
