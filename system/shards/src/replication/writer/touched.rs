//! Which areas were written since the last time all replicas were known to be alike in them, on stable media. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::replication::regions::{AREA, units};

/// The areas, each with the number of flushes that had begun when it was last written.
#[derive(Debug, Default)]
pub struct Touched {
    flushes: u64,
    areas: BTreeMap<u64, u64>,
    /// Areas that need no mark any more, and of which the replicas were not told yet.
    clean: Vec<u64>,
}

impl Touched {
    /// A write of this range begins, or ends.
    pub fn touch(&mut self, range: &Range<u64>) {
        for area in units(range, AREA) {
            self.areas.insert(area, self.flushes);
        }
        if !self.clean.is_empty() {
            let touched = units(range, AREA);
            self.clean.retain(|area| !touched.contains(area));
        }
    }

    /// This area may differ.
    pub fn mark(&mut self, area: u64) {
        self.areas.insert(area, self.flushes);
    }

    /// A flush begins; answers its number, which [`Touched::flushed`] takes.
    pub fn flush(&mut self) -> u64 {
        self.flushes += 1;
        self.flushes
    }

    /// The flush of this number was done by every replica in sync. `busy` are ranges with a write under way.
    pub fn flushed(&mut self, number: u64, busy: &[Range<u64>]) {
        let under_way = |area: u64| busy.iter().any(|range| units(range, AREA).contains(&area));
        let done: Vec<u64> =
            self.areas.iter().filter(|(a, at)| **at < number && !under_way(**a)).map(|(a, _)| *a).collect();
        for area in done {
            self.areas.remove(&area);
            self.clean.push(area);
        }
    }

    /// What the replicas can be told is clean.
    pub fn take_clean(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.clean)
    }

    /// The areas.
    pub fn areas(&self) -> impl Iterator<Item = u64> {
        self.areas.keys().copied()
    }

    /// All replicas are alike.
    pub fn clear(&mut self) {
        self.areas.clear();
        self.clean.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_clean_after_a_flush_that_began_after_its_last_write_ended() {
        let mut touched = Touched::default();
        touched.touch(&(0..1));
        let first = touched.flush();
        touched.touch(&(0..1)); // The write ends after the flush began.
        touched.touch(&(AREA..AREA + 1));
        touched.flushed(first, &[]);
        assert_eq!(touched.areas().collect::<Vec<_>>(), [0, 1]);
        let second = touched.flush();
        let busy = AREA..AREA + 5;
        touched.flushed(second, std::slice::from_ref(&busy));
        assert_eq!(touched.areas().collect::<Vec<_>>(), [1], "a write is under way there");
        touched.touch(&(0..1));
        assert!(touched.take_clean().is_empty(), "it was written again");
    }
}
