//! What a store must do, in the plainest words: a map, and a list of what happened.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cairn_state::{Compare, Entry, Event, LeaseId, Op, Range, Revision, StoreError, Txn, TxnOutcome};

/// A store without disk, threads or limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    pub entries: BTreeMap<String, Entry>,
    pub events: Vec<Event>,
    pub leases: BTreeSet<LeaseId>,
    pub revision: u64,
}

impl Model {
    pub fn txn(&mut self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        if !txn.compares.iter().all(|c| self.holds(c)) {
            return Ok(TxnOutcome::Conflict);
        }
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.leases.contains(lease)
                && !self.overwritten(op, txn)
            {
                return Err(StoreError::LeaseExpired(*lease));
            }
        }
        let ops: Vec<&Op> = txn.ops.iter().filter(|op| !self.overwritten(op, txn)).collect();
        Ok(TxnOutcome::Committed(self.change(&ops)))
    }

    /// Whether a later operation of the transaction is on the same key.
    fn overwritten(&self, op: &Op, txn: &Txn) -> bool {
        let last = txn.ops.iter().rev().find(|other| key(other) == key(op));
        !std::ptr::eq(last.unwrap(), op)
    }

    fn change(&mut self, ops: &[&Op]) -> Revision {
        let at = Revision(self.revision + 1);
        let before = self.events.len();
        for op in ops {
            match op {
                Op::Put { key, value, lease } => self.put(key, value, *lease, at),
                Op::Delete { key } => {
                    if self.entries.remove(key).is_some() {
                        self.events.push(Event::Delete { key: key.clone(), revision: at });
                    }
                }
            }
        }
        if self.events.len() > before {
            self.revision = at.0;
        }
        Revision(self.revision)
    }

    fn put(&mut self, key: &str, value: &Bytes, lease: Option<LeaseId>, at: Revision) {
        let created = self.entries.get(key).map_or(at, |e| e.created);
        let entry = Entry { key: key.into(), value: value.clone(), created, modified: at, lease };
        self.entries.insert(key.into(), entry.clone());
        self.events.push(Event::Put(entry));
    }

    pub fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if !self.leases.remove(&lease) {
            return Err(StoreError::LeaseExpired(lease));
        }
        let keys = self.entries.values().filter(|e| e.lease == Some(lease)).map(|e| e.key.clone());
        let ops: Vec<Op> = keys.map(|key| Op::Delete { key }).collect();
        self.change(&ops.iter().collect::<Vec<_>>());
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Modified(key, at) => self.entries.get(key).map_or(Revision(0), |e| e.modified) == *at,
            Compare::Unchanged { prefix, count, since } => {
                let found = self.range(prefix, None, usize::MAX).entries;
                found.len() as u64 == *count && found.iter().all(|e| e.modified <= *since)
            }
        }
    }

    pub fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Range {
        let found: Vec<Entry> = self
            .entries
            .values()
            .filter(|e| e.key.starts_with(prefix) && after.is_none_or(|after| e.key.as_str() > after))
            .cloned()
            .collect();
        let more = found.len() > limit;
        Range { entries: found.into_iter().take(limit).collect(), at: Revision(self.revision), more }
    }

    pub fn history(&self, prefix: &str, after: Revision) -> Vec<Event> {
        let wanted = |e: &&Event| e.revision() > after && e.key().starts_with(prefix);
        self.events.iter().filter(wanted).cloned().collect()
    }
}

fn key(op: &Op) -> &str {
    let (Op::Put { key, .. } | Op::Delete { key }) = op;
    key
}
