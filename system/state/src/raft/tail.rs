//! The end of the log in memory: what is on its way to the disk must be readable at once, and what was just
//! written is read again soon (to be applied, and sent to the others).
//!
//! Pure. It must hold every entry that is not yet on stable media.

use std::collections::BTreeMap;

use super::types::{LogEntry, LogId, Payload, Vote};

/// How many entries that are on stable media are kept beside.
const KEPT_MAX: usize = 512;
/// And how many bytes of them.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// What the log is, as far as memory needs to know.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    entries: BTreeMap<u64, LogEntry>,
    bytes: usize,
    flushed: u64,
    /// How often it was truncated: what was on its way to the disk before is not what has that index now.
    truncations: u64,
    pub last: Option<LogId>,
    pub purged: Option<LogId>,
    pub vote: Option<Vote>,
}

/// About how many bytes an entry is.
pub(crate) fn weight(entry: &LogEntry) -> usize {
    64 + match &entry.payload {
        Payload::Normal(command) => command.weight(),
        Payload::Blank | Payload::Membership(_) => 0,
    }
}

impl Tail {
    pub(crate) fn new(last: Option<LogId>, purged: Option<LogId>, vote: Option<Vote>) -> Tail {
        Tail { flushed: last.map_or(0, |l| l.index), last, purged, vote, ..Tail::default() }
    }

    /// Takes an entry on its way to the disk.
    pub(crate) fn push(&mut self, entry: LogEntry) {
        self.last = Some(entry.log_id);
        self.bytes += weight(&entry);
        if let Some(old) = self.entries.insert(entry.log_id.index, entry) {
            self.bytes -= weight(&old);
        }
    }

    /// How often it was truncated.
    pub(crate) fn truncations(&self) -> u64 {
        self.truncations
    }

    /// Is told that the log, as it was after so many truncations, is on stable media up to here.
    pub(crate) fn flushed(&mut self, upto: u64, truncations: u64) {
        if truncations == self.truncations {
            self.flushed = self.flushed.max(upto);
        }
        while self.entries.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            match self.entries.first_key_value() {
                Some((index, _)) if *index <= self.flushed => self.drop_first(),
                _ => break,
            }
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, entry)) = self.entries.pop_first() {
            self.bytes -= weight(&entry);
        }
    }

    /// Forgets what is after this.
    pub(crate) fn truncate(&mut self, after: Option<LogId>) {
        self.truncations += 1;
        let next = after.map_or(0, |l| l.index + 1);
        for entry in self.entries.split_off(&next).values() {
            self.bytes -= weight(entry);
        }
        self.flushed = self.flushed.min(next.saturating_sub(1));
        self.last = self.last.min(after).max(self.purged);
    }

    /// Forgets what is up to this.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while self.entries.first_key_value().is_some_and(|(index, _)| *index <= upto.index) {
            self.drop_first();
        }
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(self.purged);
    }

    /// The entries in memory of `from..to`, and up to where the others must be read from the disk.
    pub(crate) fn read(&self, from: u64, to: u64) -> (Vec<LogEntry>, u64) {
        let end = to.min(self.last.map_or(0, |l| l.index + 1));
        let first = self.entries.first_key_value().map_or(end, |(index, _)| *index);
        let start = from.max(first);
        let found = if start < end {
            self.entries.range(start..end).map(|(_, e)| e.clone()).collect()
        } else {
            Vec::new()
        };
        (found, first.min(end))
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::super::types::LeaderId;
    use super::*;

    fn entry(term: u64, index: u64) -> LogEntry {
        let log_id = LogId { leader_id: LeaderId { term, node_id: 1 }, index };
        LogEntry { log_id, payload: EntryPayload::Blank }
    }

    #[test]
    fn what_is_not_on_the_disk_is_kept_whatever_was_flushed_before_a_truncation() {
        let mut tail = Tail::default();
        let before = tail.truncations();
        (1..=900).for_each(|index| tail.push(entry(1, index)));
        tail.truncate(Some(entry(1, 1).log_id));
        (2..=900).for_each(|index| tail.push(entry(2, index)));
        // The disk has just written what was truncated since.
        tail.flushed(900, before);
        let (found, from_disk) = tail.read(2, 901);
        assert_eq!((found.len(), from_disk), (899, 1));
        tail.flushed(900, tail.truncations());
        assert_eq!(tail.read(2, 901).0.len(), KEPT_MAX);
    }
}
