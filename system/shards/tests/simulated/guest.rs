//! What a user was told of his data, and so what he must be given back.

use std::collections::BTreeMap;

use cairn_shards::replication::op::{Failure, Op};

/// What is known of the blocks, by where they begin; versions only grow.
#[derive(Default)]
pub struct Guest {
    version: u64,
    issued: BTreeMap<u64, u64>,
    acknowledged: BTreeMap<u64, u64>,
    /// No version below this may ever be read again.
    floor: BTreeMap<u64, u64>,
    /// Requests that have not ended, each with what was acknowledged when it began.
    pub open: BTreeMap<(usize, u64), (Op, BTreeMap<u64, u64>)>,
    /// The writer of the guest that lives.
    pub current: usize,
    pub flushes: u64,
    pub writes: u64,
    /// Flushes that said that something is lost.
    pub losses: u64,
    /// Those of them that said so of nothing.
    pub alarms: u64,
}

impl Guest {
    pub fn next_write(&mut self, at: u64) -> Op {
        self.version += 1;
        self.issued.insert(at, self.version);
        Op::Write { offset: at, data: self.version.to_le_bytes().to_vec().into() }
    }

    pub fn issued(&mut self, writer: usize, id: u64, op: Op) {
        // A request that ended while it was handed over is not in the list; see `completed`.
        let before = self.acknowledged.clone();
        self.open.insert((writer, id), (op, before));
    }

    pub fn completed(
        &mut self,
        writer: usize,
        id: u64,
        result: &Result<(), Failure>,
        view: &BTreeMap<u64, u64>,
    ) {
        let Some((op, before)) = self.open.remove(&(writer, id)) else { return };
        match (op, result) {
            // What an earlier guest was told counts only once it is flushed.
            (Op::Write { offset, data }, Ok(())) if writer == self.current => {
                let version = u64::from_le_bytes(data[..8].try_into().unwrap());
                let last = self.acknowledged.entry(offset).or_default();
                *last = version.max(*last);
                self.writes += 1;
            }
            (Op::Flush, Ok(())) => {
                for (at, version) in before {
                    let floor = self.floor.entry(at).or_default();
                    *floor = version.max(*floor);
                }
                self.flushes += 1;
            }
            (Op::Flush, Err(Failure::Broken(_))) if writer == self.current => {
                self.losses += 1;
                let had = |(at, version): (&u64, &u64)| view.get(at).copied().unwrap_or(0) >= *version;
                self.alarms += u64::from(self.acknowledged.iter().all(had));
                self.forget();
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
        match (least..=most).contains(&read) {
            true => Ok(()),
            false => Err(format!("block {at}: version {read} was read, of {least} to {most}")),
        }
    }
}
