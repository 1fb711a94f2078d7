//! What the volume may hold. Pure.
//!
//! Of each sector it is known which write it has, but for those that a guest left under way when it died, and for what
//! a loss of power may have taken from every replica that had it. A sector in doubt has one of some writes; once one
//! of them was read, the others are never to be seen again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::stamp::Found;

/// The volume, as far as it is known from outside.
pub struct Model {
    /// Which write each sector has.
    now: Vec<u32>,
    /// The sectors that may have one of several.
    doubt: BTreeMap<u64, BTreeSet<u32>>,
    /// What each had when a flush last covered it.
    safe: Vec<u32>,
    /// What was written since, in order, of those that were not flushed; what was under way at a death included.
    unflushed: Vec<(Range<u64>, u32)>,
    /// How many were before those.
    before: usize,
    writes: u32,
}

impl Model {
    /// A volume of zeroes.
    pub fn new(sectors: u64) -> Model {
        let zeroes = || vec![0; sectors as usize];
        let (now, safe) = (zeroes(), zeroes());
        Model { now, doubt: BTreeMap::new(), safe, unflushed: Vec::new(), before: 0, writes: 0 }
    }

    pub fn sectors(&self) -> u64 {
        self.now.len() as u64
    }

    /// The number of the next write.
    pub fn number(&mut self) -> u32 {
        self.writes += 1;
        self.writes
    }

    /// A write was answered as done; number 0 wrote zeroes.
    pub fn written(&mut self, range: Range<u64>, write: u32) {
        for sector in range.clone() {
            self.now[sector as usize] = write;
            self.doubt.remove(&sector);
        }
        self.unflushed.push((range, write));
    }

    /// A write was not answered, and nobody will ask again: it was done or not.
    pub fn left(&mut self, range: Range<u64>, write: u32) {
        for sector in range.clone() {
            let now = self.now[sector as usize];
            self.doubt.entry(sector).or_insert_with(|| [now].into()).insert(write);
        }
        self.unflushed.push((range, write));
    }

    /// How much a flush that is asked for now covers.
    pub fn extent(&self) -> usize {
        self.before + self.unflushed.len()
    }

    /// A flush of this extent was answered as done, of a guest that left nothing under way before.
    pub fn flushed(&mut self, extent: usize) {
        // Another flush, asked for later, may have ended first.
        let covered = extent.saturating_sub(self.before);
        self.before += covered;
        for (range, write) in self.unflushed.drain(..covered) {
            for sector in range {
                self.safe[sector as usize] = write;
            }
        }
    }

    /// Nothing is in doubt or under way, and all was flushed.
    pub fn settled(&mut self) {
        self.before = self.extent();
        for (range, _) in self.unflushed.drain(..) {
            for sector in range {
                self.safe[sector as usize] = self.now[sector as usize];
            }
        }
    }

    /// What was not flushed may be gone, all of it or some.
    pub fn lose(&mut self) {
        for (range, write) in &self.unflushed {
            for sector in range.clone() {
                let now = self.now[sector as usize];
                let may = self.doubt.entry(sector).or_insert_with(|| [now].into());
                may.extend([*write, self.safe[sector as usize]]);
            }
        }
    }

    /// Where the volume is in doubt, in pieces of at most so many sectors.
    pub fn doubts(&self, longest: u64) -> Vec<Range<u64>> {
        let mut pieces: Vec<Range<u64>> = Vec::new();
        for sector in self.doubt.keys().copied() {
            match pieces.last_mut() {
                Some(last) if last.end == sector && sector - last.start < longest => last.end += 1,
                _ => pieces.push(sector..sector + 1),
            }
        }
        pieces
    }

    /// A sector was read. What it may not hold is told.
    pub fn read(&mut self, sector: u64, found: Found) -> Result<(), String> {
        let now = self.now[sector as usize];
        let Found::Write(write) = found else {
            return Err(format!("sector {sector} is {found:?}, and was write {now}"));
        };
        match self.doubt.get(&sector) {
            Some(may) if may.contains(&write) => {
                self.now[sector as usize] = write;
                self.doubt.remove(&sector);
                Ok(())
            }
            Some(may) => Err(format!("sector {sector} has write {write}, and may have one of {may:?}")),
            None if write == now => Ok(()),
            None => {
                let safe = self.safe[sector as usize];
                Err(format!("sector {sector} has write {write} instead of {now}; flushed was {safe}"))
            }
        }
    }

    /// What a replica that is in sync holds of a sector, while nothing is under way.
    pub fn compare(&self, sector: u64, found: Found) -> Result<(), String> {
        match (self.doubt.get(&sector), found) {
            (Some(may), Found::Write(write)) if may.contains(&write) => Ok(()),
            (None, Found::Write(write)) if write == self.now[sector as usize] => Ok(()),
            _ => Err(format!("sector {sector} is {found:?} instead of write {}", self.now[sector as usize])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Model {
        let mut model = Model::new(8);
        for range in [0..4, 2..6] {
            let write = model.number();
            model.written(range, write);
        }
        model
    }

    #[test]
    fn nothing_acknowledged_may_be_missing() {
        let mut model = written();
        assert!(model.read(1, Found::Write(1)).is_ok() && model.read(2, Found::Write(2)).is_ok());
        assert!(model.read(2, Found::Write(1)).is_err(), "stale");
        assert!(model.read(5, Found::Write(0)).is_err(), "lost");
        assert!(model.read(5, Found::Elsewhere { sector: 4, write: 2 }).is_err());
        assert!(model.read(5, Found::Corrupt).is_err() && model.compare(5, Found::Corrupt).is_err());
    }

    #[test]
    fn what_was_under_way_is_there_or_not_and_stays_so() {
        let mut model = written();
        model.left(5..7, 3);
        assert_eq!(model.doubts(64), vec![Range { start: 5, end: 7 }]);
        assert!(model.read(5, Found::Write(2)).is_ok() && model.read(6, Found::Write(3)).is_ok());
        assert!(model.read(5, Found::Write(3)).is_err(), "it was not done, so it never is");
        assert!(model.read(6, Found::Write(0)).is_err());
    }

    #[test]
    fn a_loss_takes_what_was_not_flushed_and_nothing_else() {
        let mut model = written();
        model.flushed(1);
        model.lose();
        assert!(model.read(1, Found::Write(0)).is_err());
        assert!(model.read(2, Found::Write(1)).is_ok() && model.read(5, Found::Write(0)).is_ok());
        assert!(model.read(3, Found::Write(2)).is_ok() && model.read(3, Found::Write(1)).is_err());
        model.read(4, Found::Write(2)).unwrap();
        model.settled();
        model.lose();
        assert!(model.doubts(64).is_empty());
    }
}
