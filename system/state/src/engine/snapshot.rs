//! Consistent reading: a snapshot of the newest committed state.
//!
//! It reads only what is committed. It never writes and never waits for the disk.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction};

use super::layout::{ENTRIES, LEASE_KEYS, META, META_REVISION, decode_entry, failed, number};
use crate::kv::{Entry, LeaseId, Range, Revision, StoreError};

/// A consistent view of the store at one revision. Reads are synchronous: they touch only the local file.
///
/// It holds its pages in the file: drop it soon.
pub struct Snapshot {
    entries: ReadOnlyTable<&'static str, &'static [u8]>,
    lease_keys: ReadOnlyTable<(u64, &'static str), ()>,
    revision: Revision,
}

impl Snapshot {
    pub(crate) fn new(txn: &ReadTransaction) -> Result<Snapshot, StoreError> {
        let entries = txn.open_table(ENTRIES).map_err(failed)?;
        let lease_keys = txn.open_table(LEASE_KEYS).map_err(failed)?;
        let meta = txn.open_table(META).map_err(failed)?;
        let revision = Revision(number(&meta, META_REVISION)?);
        Ok(Snapshot { entries, lease_keys, revision })
    }

    /// The revision of this view.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The entry at `key`.
    pub fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        match self.entries.get(key).map_err(failed)? {
            Some(stored) => decode_entry(key, stored.value()).map(Some),
            None => Ok(None),
        }
    }

    /// As [`crate::Store::range`].
    pub fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = Range { entries: Vec::new(), at: self.revision, more: false };
        for row in self.entries.range::<&str>((from, Bound::Unbounded)).map_err(failed)? {
            let (key, stored) = row.map_err(failed)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            if found.entries.len() >= limit {
                found.more = true;
                break;
            }
            found.entries.push(decode_entry(key.value(), stored.value())?);
        }
        Ok(found)
    }

    /// The keys that live under a lease, in order.
    pub fn lease_keys(&self, lease: LeaseId) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        for row in self.lease_keys.range((lease.0, "")..(lease.0 + 1, "")).map_err(failed)? {
            keys.push(row.map_err(failed)?.0.value().1.to_owned());
        }
        Ok(keys)
    }
}
