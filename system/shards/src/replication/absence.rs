//! What a replica keeps about those that are away: which areas were changed since the first of them went out of sync.
//! With it a writer that has just begun knows what they lack, and need not copy all.
//!
//! What has a mark needs no entry: an area is entered before its mark is cleared, by the step of the writer that clears
//! it. So marks and entries together are all that was changed since the entries were begun. A step that clears marks
//! without a word about those away is of a release that does not know of them, or nobody is: then the entries end,
//! before the marks do. Pure, but for the form on the disk.

use serde::{Deserialize, Serialize};

use super::regions::Marks;
use super::writer::Seq;
use crate::volume::crc;

/// Bytes before the bitmap: its sum and the round.
const HEADER: usize = 12;

/// What replicas that went out of sync in a round of absences lack, apart from what has marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// The round, see [`super::set::Replica::round`].
    pub round: u64,
    /// The areas.
    pub areas: Vec<u64>,
}

/// What there is to know of a replica beside its marks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// It was never told that it is like the others: whatever it holds counts for nothing.
    pub fresh: bool,
    /// What it has kept of others' absences.
    pub absence: Option<Absence>,
}

/// The entries of a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    begun: Option<(u64, Marks)>,
    /// The step that began them; 0 for an earlier session's.
    since: Seq,
    /// The last step of this session that cleared marks and entered nothing.
    lost: Seq,
}

impl Entries {
    /// Reads what [`Entries::to_bytes`] wrote; nothing of what is not that.
    pub fn from_bytes(bytes: &[u8]) -> Entries {
        let parts =
            bytes.split_first_chunk::<4>().filter(|(sum, rest)| u32::from_le_bytes(**sum) == crc(rest));
        let parts = parts.and_then(|(_, rest)| rest.split_first_chunk::<8>());
        let begun = parts.map(|(round, areas)| (u64::from_le_bytes(*round), Marks::from_bytes(areas)));
        Entries { begun, ..Entries::default() }
    }

    /// Their form on the disk: CRC-32C of what follows, the round, a bitmap; `None` if there are none.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let (round, areas) = self.begun.as_ref()?;
        let mut bytes = vec![0; HEADER];
        bytes[4..].copy_from_slice(&round.to_le_bytes());
        bytes.extend(areas.to_bytes());
        let sum = crc(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        Some(bytes)
    }

    /// What a writer is told of them.
    pub fn absence(&self) -> Option<Absence> {
        self.begun.as_ref().map(|(round, areas)| Absence { round: *round, areas: areas.iter().collect() })
    }

    /// Another writer begins, or this one anew: its steps are numbered by themselves.
    pub fn begin(&mut self) {
        (self.since, self.lost) = (0, 0);
    }

    /// A step is about to clear the marks of these areas; replicas are away since this round, if it says so. True if the
    /// entries have changed: they must be on stable media before it does.
    pub fn clear(&mut self, step: Seq, round: Option<u64>, areas: &[u64]) -> bool {
        match &mut self.begun {
            Some((of, entered)) if Some(*of) == round => {
                areas.iter().filter(|area| entered.insert(**area)).count() > 0
            }
            // They were begun since by a writer who knew all that was missed until then.
            Some(_) if self.since > step => false,
            begun => {
                self.lost = self.lost.max(step);
                begun.take().is_some()
            }
        }
    }

    /// A step says what those lack that are away since a round: all of it. True as in [`Entries::clear`].
    pub fn enter(&mut self, step: Seq, round: u64, missed: &[u64]) -> bool {
        match &mut self.begun {
            Some((of, entered)) if *of == round => {
                missed.iter().filter(|area| entered.insert(**area)).count() > 0
            }
            // A later step has cleared what this one does not know of.
            _ if self.lost > step => false,
            begun => {
                let mut areas = Marks::default();
                areas.extend(missed.iter().copied());
                *begun = Some((round, areas));
                self.since = step;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas(entries: &Entries) -> Option<Vec<u64>> {
        entries.absence().map(|absence| absence.areas)
    }

    #[test]
    fn what_is_cleared_while_replicas_are_away_is_entered() {
        let mut entries = Entries::default();
        assert!(entries.enter(5, 1, &[7]));
        assert!(entries.clear(6, Some(1), &[2, 7]) && !entries.clear(7, Some(1), &[2]));
        assert_eq!(areas(&entries), Some(vec![2, 7]));
        let read = Entries::from_bytes(&entries.to_bytes().unwrap());
        assert_eq!(read.absence(), entries.absence());
        // Another session's steps begin at one, and add to it.
        let mut read = read;
        assert!(read.clear(1, Some(1), &[3]) && !read.enter(2, 1, &[7]));
        assert_eq!(areas(&read), Some(vec![2, 3, 7]));
        // The next round is another one, of which these entries say nothing.
        assert!(read.enter(3, 2, &[]));
        assert_eq!(areas(&read), Some(vec![]));
    }

    #[test]
    fn entries_end_with_a_step_that_says_nothing_of_those_away() {
        let mut entries = Entries::default();
        entries.enter(5, 1, &[7]);
        // It was on its way before: what it clears everybody had.
        assert!(!entries.clear(4, None, &[1]));
        assert!(entries.clear(6, None, &[1]) && entries.to_bytes().is_none());
        // Who comes late does not know what was cleared.
        assert!(!entries.enter(5, 1, &[7]) && entries.absence().is_none());
        let mut other = Entries::default();
        other.enter(5, 1, &[7]);
        assert!(other.clear(6, Some(2), &[1]) && other.absence().is_none());
    }

    #[test]
    fn damaged_entries_are_none() {
        let mut entries = Entries::default();
        entries.enter(1, 9, &[0, 100]);
        let mut bytes = entries.to_bytes().unwrap();
        bytes[5] ^= 1;
        for damaged in [&bytes[..], &bytes[..3], b""] {
            assert_eq!(Entries::from_bytes(damaged).absence(), None);
        }
    }
}
