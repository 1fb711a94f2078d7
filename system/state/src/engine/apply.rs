//! One transaction against the tables of the open write transaction: the conditions, then the changes and
//! their events.
//!
//! Pure but for the tables it is given: no clock, no commit, no watcher. A transaction that is refused has
//! touched nothing, so that those beside it in the same commit are not disturbed.

use std::collections::HashSet;

use redb::ReadableTable;

use super::layout::{self, Head, Tables, encode_entry, encode_event, failed, split_entry};
use crate::kv::{Compare, Entry, Event, LeaseId, Op, Revision, StoreError, Txn, TxnOutcome};

/// The longest key.
pub(crate) const KEY_BYTES_MAX: usize = 4096;
/// The most a transaction may carry: it must fit one frame of the socket protocol.
pub(crate) const TXN_BYTES_MAX: usize = 8 << 20;

/// What a transaction carries, in bytes.
pub(crate) fn weight(txn: &Txn) -> usize {
    let compares = txn.compares.iter().map(|c| match c {
        Compare::Modified(key, _) => key.len() + 16,
        Compare::Unchanged { prefix, .. } => prefix.len() + 24,
    });
    let ops = txn.ops.iter().map(|op| match op {
        Op::Put { key, value, .. } => key.len() + value.len() + 16,
        Op::Delete { key } => key.len() + 16,
    });
    compares.chain(ops).sum()
}

/// Refuses what no store may hold, before it reaches the writer.
pub(crate) fn check(txn: &Txn) -> Result<(), StoreError> {
    let size = weight(txn);
    if size > TXN_BYTES_MAX {
        return Err(StoreError::TooLarge(format!("a transaction of {size} bytes, at most {TXN_BYTES_MAX}")));
    }
    for op in &txn.ops {
        let (Op::Put { key, .. } | Op::Delete { key }) = op;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(StoreError::TooLarge(format!("a key of {} bytes, 1 to {KEY_BYTES_MAX}", key.len())));
        }
    }
    Ok(())
}

/// Does a transaction if its conditions hold; its events go to `events`.
pub(crate) fn apply(
    tables: &mut Tables,
    txn: Txn,
    events: &mut Vec<Event>,
) -> Result<TxnOutcome, StoreError> {
    for compare in &txn.compares {
        if !holds(tables, compare)? {
            return Ok(TxnOutcome::Conflict);
        }
    }
    let ops = last_per_key(txn.ops);
    for op in &ops {
        if let Op::Put { lease: Some(lease), .. } = op
            && tables.leases.get(lease.0).map_err(failed)?.is_none()
        {
            return Err(StoreError::LeaseExpired(*lease));
        }
    }
    change(tables, ops, events).map(TxnOutcome::Committed)
}

/// Does the changes at a new revision, or none if they change nothing.
fn change(tables: &mut Tables, ops: Vec<Op>, events: &mut Vec<Event>) -> Result<Revision, StoreError> {
    let current = Revision(tables.revision());
    let next = Revision(current.0 + 1);
    let mut position = 0;
    for op in ops {
        let event = match op {
            Op::Put { key, value, lease } => Some(put(tables, key, value, lease, next)?),
            Op::Delete { key } => delete(tables, key, next)?,
        };
        if let Some(event) = event {
            tables.history.insert((next.0, position), encode_event(&event).as_slice()).map_err(failed)?;
            events.push(event);
            position += 1;
        }
    }
    if position == 0 {
        return Ok(current);
    }
    tables.set_revision(next.0);
    Ok(next)
}

/// Ends a lease: its keys are removed at a new revision. `None` if it is not known.
pub(crate) fn end_lease(
    tables: &mut Tables,
    lease: LeaseId,
    events: &mut Vec<Event>,
) -> Result<Option<Revision>, StoreError> {
    if tables.leases.remove(lease.0).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let mut ops = Vec::new();
    for row in tables.lease_keys.range((lease.0, "")..(lease.0 + 1, "")).map_err(failed)? {
        ops.push(Op::Delete { key: row.map_err(failed)?.0.value().1.to_owned() });
    }
    change(tables, ops, events).map(Some)
}

fn holds(tables: &Tables, compare: &Compare) -> Result<bool, StoreError> {
    match compare {
        Compare::Modified(key, revision) => {
            let stored = tables.entries.get(key.as_str()).map_err(failed)?;
            Ok(match &stored {
                Some(stored) => split_entry(stored.value())?.0.modified == *revision,
                None => *revision == Revision(0),
            })
        }
        Compare::Unchanged { prefix, count, since } => unchanged(tables, prefix, *count, *since),
    }
}

fn unchanged(tables: &Tables, prefix: &str, count: u64, since: Revision) -> Result<bool, StoreError> {
    let mut seen = 0;
    for row in tables.entries.range(prefix..).map_err(failed)? {
        let (key, stored) = row.map_err(failed)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        seen += 1;
        if seen > count || split_entry(stored.value())?.0.modified > since {
            return Ok(false);
        }
    }
    Ok(seen == count)
}

/// Only the last operation on a key counts: nobody can see what is between two revisions.
fn last_per_key(ops: Vec<Op>) -> Vec<Op> {
    let mut seen = HashSet::with_capacity(ops.len());
    let mut keep: Vec<bool> = ops
        .iter()
        .rev()
        .map(|op| {
            let (Op::Put { key, .. } | Op::Delete { key }) = op;
            seen.insert(key.as_str())
        })
        .collect();
    keep.reverse();
    ops.into_iter().zip(keep).filter_map(|(op, keep)| keep.then_some(op)).collect()
}

fn put(
    tables: &mut Tables,
    key: String,
    value: bytes::Bytes,
    lease: Option<LeaseId>,
    at: Revision,
) -> Result<Event, StoreError> {
    let old = match tables.entries.get(key.as_str()).map_err(failed)? {
        Some(stored) => Some(split_entry(stored.value())?.0),
        None => None,
    };
    let created = old.as_ref().map_or(at, |old| old.created);
    relink(tables, &key, old.and_then(|old| old.lease), lease)?;
    let entry = Entry { key, value, created, modified: at, lease };
    tables.entries.insert(entry.key.as_str(), encode_entry(&entry).as_slice()).map_err(failed)?;
    Ok(Event::Put(entry))
}

fn delete(tables: &mut Tables, key: String, at: Revision) -> Result<Option<Event>, StoreError> {
    let Head { lease, .. } = match tables.entries.remove(key.as_str()).map_err(failed)? {
        Some(stored) => layout::split_entry(stored.value())?.0,
        None => return Ok(None),
    };
    relink(tables, &key, lease, None)?;
    Ok(Some(Event::Delete { key, revision: at }))
}

/// Moves a key from one lease to another.
fn relink(
    tables: &mut Tables,
    key: &str,
    from: Option<LeaseId>,
    to: Option<LeaseId>,
) -> Result<(), StoreError> {
    if from == to {
        return Ok(());
    }
    if let Some(from) = from {
        tables.lease_keys.remove((from.0, key)).map_err(failed)?;
    }
    if let Some(to) = to {
        tables.lease_keys.insert((to.0, key), ()).map_err(failed)?;
    }
    Ok(())
}
