//! Cycles in which bits flip on disks: of data, of sums and of marks; where all is at rest, and where a process was just
//! killed and a block may be half-written for that reason too.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cairn_shards::replication::regions::AREA;

use crate::cloud::{NAMES, NODES};
use crate::dice::Dice;
use crate::run::{PATIENCE, Run, SIZE, content, millis};
use crate::stamp::{Found, SECTOR, look};

/// How long it may take until no area is marked any more, after the last write; and until a replica that is whole is
/// told so.
const CLEAN: Duration = Duration::from_secs(12);
/// How often all is read until every flipped bit was met.
const ROUNDS: usize = 8;

impl Run {
    /// Bits flip where nothing is under way; the guest reads all of it at each node whose disk that is.
    pub fn rotten(&mut self, dice: &mut Dice) -> Result<String> {
        self.load(dice, false)?;
        sleep(millis(dice, 100..400));
        self.vm.check(false, PATIENCE)?;
        self.cloud.until_in_sync(PATIENCE)?;
        let first = dice.of(0..NODES as u64) as usize;
        let mut nodes = vec![first];
        if dice.percent(40) {
            nodes.push((first + 1) % NODES);
        }
        // After a crash a marked block may be half-written: that is the other cycle.
        let deadline = Instant::now() + CLEAN;
        let marked = |node: &usize| self.marked(*node).contains(&true);
        while nodes.iter().any(marked) && Instant::now() < deadline {
            sleep(Duration::from_millis(50));
        }
        let (mut all, mut flipped) = (0, Vec::new());
        for node in nodes {
            let mut count = self.flip(node, false, dice)?;
            if dice.percent(40) {
                let marked = self.marked(node);
                count += self.cloud.nodes[node].rot_sums(dice, |area| marked.get(area) == Some(&false))?;
            }
            if count > 0 {
                flipped.push(node);
            }
            all += count as u64;
        }
        *self.counts.entry("bits flipped").or_default() += all;
        let whole = (0..NODES).find(|node| !flipped.contains(node)).unwrap_or_default();
        for node in &flipped {
            self.die(false)?;
            self.attach(*node, PATIENCE)?;
            // While a replica is made right, another is read: what is left is met in the next round.
            for _ in 0..ROUNDS {
                self.vm.check(true, PATIENCE)?;
                self.vm.check(false, PATIENCE)?;
                if !self.is_corrupt(*node, whole)? {
                    break;
                }
            }
            let met = self.cloud.until_corrupt(PATIENCE)?;
            *self.counts.entry("corrupt blocks met").or_default() += met;
        }
        // A flush waits for what is made right.
        self.vm.check(false, PATIENCE)?;
        self.cloud.until_in_sync(PATIENCE)?;
        let compared = self.compare()?;
        Ok(format!("{all} on {}, {compared} alike", flipped.iter().map(|n| NAMES[*n]).collect::<String>()))
    }

    /// Processes are killed while the guest writes, and bits flip on one of their disks where a kill may have left a
    /// block half-written. All replicas had all, so that nothing of it may be left.
    pub fn rotten_after_kill(&mut self, dice: &mut Dice) -> Result<String> {
        self.vm.check(false, PATIENCE)?;
        self.cloud.until_in_sync(PATIENCE)?;
        let deadline = Instant::now() + CLEAN;
        while !self.cloud.nodes.iter().all(|node| node.is_told_alike()) {
            ensure!(Instant::now() < deadline, "a replica in sync is not told that it is like the others");
            sleep(Duration::from_millis(10));
        }
        self.load(dice, false)?;
        sleep(millis(dice, 100..400));
        let victim = dice.of(0..NODES as u64) as usize;
        let mut killed: Vec<usize> = if dice.percent(50) { vec![victim] } else { (0..NODES).collect() };
        // The writer first: it would call the others out of sync.
        killed.sort_by_key(|node| self.home != Some(*node));
        for node in &killed {
            self.cloud.kill(*node)?;
        }
        // One that is in sync alone has the last word on what it holds.
        let set = self.cloud.set()?;
        let alone = set.is_in_sync(NAMES[victim]) && set.in_sync().count() < NODES;
        let mut all = if alone { 0 } else { self.flip(victim, true, dice)? };
        if !alone && dice.percent(40) {
            let marked = self.marked(victim);
            all += self.cloud.nodes[victim].rot_sums(dice, |area| marked.get(area) == Some(&true))?;
        }
        if !alone && dice.percent(40) {
            all += self.cloud.nodes[victim].rot_marks(dice)?;
        }
        *self.counts.entry("bits flipped after kills").or_default() += all as u64;
        *self.counts.entry("kills").or_default() += 1;
        // And last: it waits for the others for a while only.
        for node in killed.iter().rev() {
            self.cloud.nodes[*node].start()?;
            sleep(millis(dice, 0..60));
        }
        sleep(millis(dice, 100..400));
        self.vm.check(dice.percent(20), PATIENCE)?;
        self.cloud.until_in_sync(PATIENCE)?;
        let compared = self.compare()?;
        let names: String = killed.iter().map(|n| NAMES[*n]).collect();
        Ok(format!("{all} on {}, {names} killed, {compared} alike", NAMES[victim]))
    }

    /// Whether data of a replica is not what anybody wrote, or its sums are not those of one that is whole.
    fn is_corrupt(&self, node: usize, whole: usize) -> Result<bool> {
        let bytes = content(&self.cloud.nodes[node].segment())?;
        let mut sectors = bytes.chunks_exact(SECTOR).zip(0..);
        let data = sectors.any(|(bytes, sector)| look(bytes, sector) == Found::Corrupt);
        Ok(data || self.cloud.nodes[node].sums() != self.cloud.nodes[whole].sums())
    }

    /// Which areas a replica has marked.
    fn marked(&self, node: usize) -> Vec<bool> {
        (0..SIZE).step_by(AREA as usize).map(|byte| self.cloud.nodes[node].is_marked(byte)).collect()
    }

    /// Flips bits of what the guest wrote, in areas that are marked or in those that are not.
    fn flip(&self, node: usize, in_marked: bool, dice: &mut Dice) -> Result<usize> {
        // Read before: the disk answers nothing while it looks.
        let marked = self.marked(node);
        let model = self.vm.known()?;
        let may = |sector: u64, write: u32| {
            let area = (sector * SECTOR as u64 / AREA) as usize;
            // What is under way may not be known yet as written.
            let known = in_marked || model.compare(sector, Found::Write(write)).is_ok();
            known && marked.get(area) == Some(&in_marked)
        };
        self.cloud.nodes[node].rot(dice, may)
    }
}
