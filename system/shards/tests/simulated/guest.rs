//! What a user was told of his data, and so what he must be given back.

use std::collections::{BTreeMap, BTreeSet};

use cairn_shards::replication::op::{Failure, Op};

use crate::BLOCK;

/// A request, with the version that it gives to blocks.
#[derive(Clone)]
pub struct Asked {
    pub op: Op,
    pub version: u64,
}

impl Asked {
    /// The blocks it changes.
    pub fn blocks(&self) -> impl Iterator<Item = u64> + use<> {
        self.op.range().step_by(BLOCK as usize)
    }
}

/// What is known of the blocks, by where they begin; versions only grow.
#[derive(Default)]
pub struct Guest {
    version: u64,
    issued: BTreeMap<u64, u64>,
    acknowledged: BTreeMap<u64, u64>,
    /// No version below this may ever be read again.
    floor: BTreeMap<u64, u64>,
    /// Versions of blocks that read as zeroes.
    zeroes: BTreeSet<(u64, u64)>,
    /// Requests that have not ended, each with what was acknowledged when it began.
    pub open: BTreeMap<(usize, u64), (Asked, BTreeMap<u64, u64>)>,
    /// Requests for which there was no room, to be made again.
    pub held: Vec<Asked>,
    /// The writer of the guest that lives.
    pub current: usize,
    pub told: Told,
}

/// What guests were told, counted.
#[derive(Default, Debug)]
pub struct Told {
    pub writes: u64,
    pub flushes: u64,
    /// Requests that were held for want of room.
    pub held: u64,
    /// Flushes that said that something is lost.
    pub losses: u64,
    /// Those of them that said so of nothing.
    pub alarms: u64,
    /// Reads that met a corrupt block, and those of them for which no replica had it whole.
    pub corrupt: u64,
    pub hopeless: u64,
    /// Suspect blocks that were got from a witness, and those that were taken as they are.
    pub mended: u64,
    pub taken: u64,
    /// Regions of which something was copied, and those of them of which only a part was.
    pub copied: u64,
    pub spared: u64,
}

impl Told {
    pub fn add(&mut self, other: &Told) {
        self.writes += other.writes;
        self.flushes += other.flushes;
        self.held += other.held;
        self.losses += other.losses;
        self.alarms += other.alarms;
        self.corrupt += other.corrupt;
        self.hopeless += other.hopeless;
        self.mended += other.mended;
        self.taken += other.taken;
        self.copied += other.copied;
        self.spared += other.spared;
    }
}

impl Guest {
    pub fn write(&mut self, at: u64) -> Asked {
        self.version += 1;
        self.issue(Op::Write { offset: at, data: self.version.to_le_bytes().to_vec().into() })
    }

    pub fn zero(&mut self, at: u64, blocks: u64) -> Asked {
        self.version += 1;
        let asked = self.issue(Op::Zero { offset: at, len: blocks * BLOCK, unmap: true });
        self.zeroes.extend(asked.blocks().map(|at| (at, asked.version)));
        asked
    }

    fn issue(&mut self, op: Op) -> Asked {
        let asked = Asked { op, version: self.version };
        self.issued.extend(asked.blocks().map(|at| (at, asked.version)));
        asked
    }

    /// Whether a change of one of these blocks is under way.
    pub fn changes(&self, at: u64, blocks: u64) -> bool {
        let here = at..at + blocks * BLOCK;
        self.open.values().any(|(asked, _)| asked.blocks().any(|at| here.contains(&at)))
    }

    pub fn issued(&mut self, writer: usize, id: u64, asked: Asked) {
        let before = self.acknowledged.clone();
        self.open.insert((writer, id), (asked, before));
    }

    /// A request has ended; `view` is what a replica holds that is read.
    pub fn completed(
        &mut self,
        writer: usize,
        id: u64,
        result: &Result<(), Failure>,
        view: &BTreeMap<u64, u64>,
    ) {
        let Some((asked, before)) = self.open.remove(&(writer, id)) else { return };
        let current = writer == self.current;
        match (&asked.op, result) {
            // What an earlier guest was told counts only once it is flushed.
            (Op::Write { .. } | Op::Zero { .. }, Ok(())) if current => {
                for at in asked.blocks() {
                    let last = self.acknowledged.entry(at).or_default();
                    *last = asked.version.max(*last);
                }
                self.told.writes += 1;
            }
            (Op::Flush, Ok(())) => {
                for (at, version) in before {
                    let floor = self.floor.entry(at).or_default();
                    *floor = version.max(*floor);
                }
                self.told.flushes += 1;
            }
            (Op::Flush, Err(Failure::Broken(_))) if current => {
                let read = |at: &u64| view.get(at).copied().unwrap_or(0);
                let had = |(at, _): (&u64, &u64)| self.check(*at, read(at), true).is_ok();
                self.told.alarms += u64::from(self.acknowledged.iter().all(had));
                self.told.losses += 1;
                self.forget();
            }
            (_, Err(Failure::Full)) if current => {
                self.told.held += 1;
                self.held.push(asked);
            }
            _ => {}
        }
    }

    /// The guest is gone, or was told of an error: what it had not flushed may be lost. A flush that is under way still
    /// promises what it did when it was asked for.
    pub fn forget(&mut self) {
        self.acknowledged = self.floor.clone();
    }

    /// Checks what was read of a block.
    pub fn check(&self, at: u64, read: u64, alive: bool) -> Result<(), String> {
        let least = if alive { &self.acknowledged } else { &self.floor };
        let least = least.get(&at).copied().unwrap_or(0).max(self.floor.get(&at).copied().unwrap_or(0));
        let most = self.issued.get(&at).copied().unwrap_or(0);
        let zero = || self.zeroes.range((at, least)..=(at, most)).next().is_some();
        match (least..=most).contains(&read) || (read == 0 && zero()) {
            true => Ok(()),
            false => Err(format!("block {at}: version {read} was read, of {least} to {most}")),
        }
    }
}
