//! A replica in memory: what is on stable media, what is only in the cache, and what it has promised.

use std::collections::{BTreeMap, BTreeSet};

use cairn_shards::replication::absence::{Entries, Kept};
use cairn_shards::replication::blocks::Block;
use cairn_shards::replication::op::{Failure, Op, Opened};
use cairn_shards::replication::regions::{AREA, REGION, units};

use crate::{BLOCK, Random};

/// Versions of blocks, by where they begin.
pub type Content = BTreeMap<u64, u64>;

#[derive(Default)]
pub struct Disk {
    stable: Content,
    /// Writes that were not flushed, in order.
    cache: Vec<(u64, u64)>,
    /// Marks on stable media, each with the step that set it last.
    marks: BTreeMap<u64, u64>,
    /// Marks that were cleared and may come back.
    cleared: BTreeSet<u64>,
    epoch: u64,
    settled_boot: u64,
    pub boot: u64,
    pub session: u64,
    pub alive: bool,
    /// Whether it has no room for blocks that it has not.
    pub full: bool,
    /// Blocks that are not what was written.
    pub corrupt: BTreeSet<u64>,
    /// Areas that had marks when its process started: what is corrupt there may be half-written.
    suspects: BTreeSet<u64>,
    /// Whether its release knows of absences.
    pub keeps: bool,
    /// Whether its release tells no single blocks of a region.
    pub is_coarse: bool,
    size: u64,
    /// What it keeps of others' absences; on stable media before marks are cleared.
    entries: Entries,
}

impl Disk {
    pub fn new(is_coarse: bool) -> Disk {
        Disk { alive: true, boot: 1, keeps: true, is_coarse, ..Disk::default() }
    }

    pub fn view(&self) -> Content {
        let mut view = self.stable.clone();
        view.extend(self.cache.iter().copied());
        view
    }

    pub fn begin(&mut self, epoch: u64, size: u64) -> Result<(u64, Opened), Failure> {
        if epoch < self.epoch {
            return Err(Failure::Fenced);
        }
        self.epoch = epoch;
        self.size = size.max(self.size);
        self.session += 1;
        let areas: Vec<u64> = self.marks.keys().copied().collect();
        let intact = areas.is_empty() || self.settled_boot == self.boot;
        self.entries.begin();
        let kept = Kept { fresh: self.settled_boot == 0, absence: self.entries.absence() };
        Ok((self.session, Opened { areas, intact, kept: self.keeps.then_some(kept) }))
    }

    pub fn apply(&mut self, session: u64, seq: u64, op: &Op) -> Result<(), Failure> {
        if self.session != session {
            return Err(Failure::Fenced);
        }
        assert!(op.range().end <= self.size, "{op:?} is beyond the end");
        match op {
            Op::Write { offset, data } => {
                self.mark(op, seq);
                if self.has_no_room(*offset) {
                    return Err(Failure::Full);
                }
                // Some change a part of the block, and some all of it.
                if self.corrupt.contains(offset) && !self.is_suspect(*offset) && Random(seq).chance(50) {
                    return Err(Failure::Corrupt("a flipped bit".into()));
                }
                self.corrupt.remove(offset);
                let version = u64::from_le_bytes(data[..8].try_into().unwrap());
                self.cache.push((*offset, version));
            }
            Op::Zero { offset, len, .. } => {
                self.mark(op, seq);
                self.corrupt.retain(|at| !op.range().contains(at));
                self.cache.extend((*offset..offset + len).step_by(BLOCK as usize).map(|at| (at, 0)));
            }
            Op::Flush => self.flush(),
            Op::Clean(areas) => self.clean(areas, seq, None),
            Op::CleanFor { areas, round } => self.clean(areas, seq, Some(*round)),
            Op::Settle { keep } => self.settle(keep, seq, None),
            Op::SettleFor { keep, round, missed } => self.settle(keep, seq, Some((*round, missed))),
            Op::Grow(size) => self.size = self.size.max(*size),
        }
        Ok(())
    }

    /// Takes blocks from another replica.
    pub fn store(&mut self, session: u64, seq: u64, content: &Content) -> Result<(), Failure> {
        if self.session != session {
            return Err(Failure::Fenced);
        }
        content.keys().for_each(|at| self.set_mark(at / AREA, seq));
        if content.iter().any(|(at, version)| *version > 0 && self.has_no_room(*at)) {
            return Err(Failure::Full);
        }
        self.corrupt.retain(|at| !content.contains_key(at));
        self.cache.extend(content.iter().map(|(at, version)| (*at, *version)));
        Ok(())
    }

    /// What a region holds, block by block; the version stands for the digest.
    pub fn blocks(&self, region: u64) -> Vec<Block> {
        let view = self.view();
        let block = |at: u64| match view.get(&at).copied().unwrap_or(0) {
            _ if self.corrupt.contains(&at) => Block::Corrupt,
            0 => Block::Zeroes,
            version => Block::Holds(u128::from(version).to_le_bytes()),
        };
        (region * REGION..(region + 1) * REGION).step_by(BLOCK as usize).map(block).collect()
    }

    /// Its process ends; the next one suspects what has marks.
    pub fn kill(&mut self) {
        self.alive = false;
        self.session += 1;
        self.suspects = self.marks.keys().copied().collect();
    }

    /// Whether a block need not match its sum.
    pub fn is_suspect(&self, at: u64) -> bool {
        self.suspects.contains(&(at / AREA))
    }

    /// What is corrupt in a region and may be half-written.
    pub fn torn(&self, region: u64) -> Vec<u64> {
        let here = self.corrupt.range(region * REGION..(region + 1) * REGION);
        here.copied().filter(|at| self.is_suspect(*at)).collect()
    }

    /// A block gets another's version, or is taken as it is.
    pub fn mend(&mut self, at: u64, version: Option<u64>) {
        self.corrupt.remove(&at);
        self.cache.extend(version.map(|version| (at, version)));
    }

    /// The power fails: each write that was not flushed is on stable media or not.
    pub fn power_cut(&mut self, random: &mut Random) {
        for (at, version) in std::mem::take(&mut self.cache) {
            if random.chance(50) {
                self.stable.insert(at, version);
            }
        }
        for area in std::mem::take(&mut self.cleared) {
            if random.chance(50) {
                self.marks.entry(area).or_default();
            }
        }
        self.boot += 1;
        self.kill();
    }

    fn clean(&mut self, areas: &[u64], seq: u64, round: Option<u64>) {
        assert!(round.is_none() || self.keeps, "it does not know of absences");
        self.entries.clear(seq, round, areas);
        self.clear(areas.to_vec(), seq);
    }

    fn settle(&mut self, keep: &[u64], seq: u64, away: Option<(u64, &Vec<u64>)>) {
        assert!(away.is_none() || self.keeps, "it does not know of absences");
        self.flush();
        keep.iter().for_each(|area| self.set_mark(*area, seq));
        let areas: Vec<u64> = self.marks.keys().filter(|a| !keep.contains(a)).copied().collect();
        match away {
            Some((round, missed)) => self.entries.enter(seq, round, missed),
            None => self.entries.clear(seq, None, &areas),
        };
        self.clear(areas, seq);
        self.settled_boot = self.boot;
    }

    fn mark(&mut self, op: &Op, seq: u64) {
        for area in units(&op.range(), AREA) {
            self.set_mark(area, seq);
        }
    }

    fn has_no_room(&self, at: u64) -> bool {
        self.full && self.view().get(&at).is_none_or(|version| *version == 0)
    }

    fn set_mark(&mut self, area: u64, seq: u64) {
        let last = self.marks.entry(area).or_default();
        *last = seq.max(*last);
    }

    fn clear(&mut self, areas: Vec<u64>, seq: u64) {
        for area in areas {
            if self.marks.get(&area).is_some_and(|last| *last < seq) {
                self.marks.remove(&area);
                self.cleared.insert(area);
                if self.suspects.remove(&area) {
                    self.corrupt.retain(|at| at / AREA != area);
                }
            }
        }
    }

    fn flush(&mut self) {
        self.stable.extend(std::mem::take(&mut self.cache));
    }
}
