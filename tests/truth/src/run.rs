//! Cycles: the guest loads the volume, things go wrong, all is mended, and everything the guest touched is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use image_builder::stage::say;

use crate::cloud::{Cloud, NAMES, NODES};
use crate::dice::Dice;
use crate::fault::{Failing, Fault, choose};
use crate::haunt::Haunting;
use crate::link::Mode;
use crate::stamp::{SECTOR, look};
use crate::vm::{Load, Tally, Vm};

/// Bytes of the volume: three areas.
pub const SIZE: u64 = 48 << 20;
/// How long all may take once nothing is wrong any more.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How long a guest that died may take to begin again while things are wrong.
const HASTE: Duration = Duration::from_millis(1500);

/// Of a hundred cycles, those of a kind of their own.
#[derive(Clone, Copy, Debug)]
pub struct Chances {
    /// Bits flip.
    pub flips: u64,
    /// An old writer lives on; of those where no bits flip.
    pub haunts: u64,
}

/// What is run.
pub struct Run {
    pub cloud: Cloud,
    pub vm: Vm,
    /// Where the guest is, while it lives.
    pub home: Option<usize>,
    /// Nodes that lost what they had not flushed, each with the number of the last flush asked for then.
    cuts: Vec<(usize, u64)>,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Run {
    /// All at work, with a guest on the first node.
    pub fn start(directory: &Path) -> Result<Run> {
        let (cloud, vm) = (Cloud::start(directory, SIZE)?, Vm::start(SIZE));
        let mut run = Run { cloud, vm, home: None, cuts: Vec::new(), counts: BTreeMap::new() };
        run.attach(0, PATIENCE)?;
        Ok(run)
    }

    pub fn tally(&self) -> Tally {
        self.vm.tally()
    }

    /// One cycle, by its own seed. Says what went wrong, and how it went on.
    pub fn cycle(&mut self, number: u64, seed: u64, chances: Chances) -> Result<()> {
        let (mut dice, began) = (Dice::new(seed), Instant::now());
        let (what, done) = if dice.percent(chances.flips) {
            match dice.percent(50) {
                true => ("bits flipped".to_owned(), self.rotten(&mut dice)),
                false => ("bits flipped after a kill".to_owned(), self.rotten_after_kill(&mut dice)),
            }
        } else if dice.percent(chances.haunts) {
            let how = Haunting::choose(&mut dice);
            (how.to_string(), self.haunted(how, &mut dice))
        } else {
            let faults = choose(&mut dice);
            let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
            (text.join(", "), self.faulty(&faults, &mut dice))
        };
        let line = format!("cycle {number} seed {seed}: {what}; {} ms", began.elapsed().as_millis());
        match done {
            Ok(end) => say(&format!("{line}, {end}")),
            Err(e) => return Err(e.context(line)),
        }
        Ok(())
    }

    /// The guest begins to ask for this and that.
    pub fn load(&self, dice: &mut Dice, may_fail: bool) -> Result<()> {
        let from = dice.of(0..SIZE / SECTOR as u64 - 8192);
        self.vm.load(Load {
            dice: dice.child(),
            depth: *dice.pick(&[1, 4, 8, 32]),
            flushes: *dice.pick(&[1, 5, 25]),
            hot: from..from + 8192,
            may_fail,
        })
    }

    fn faulty(&mut self, faults: &[Fault], dice: &mut Dice) -> Result<String> {
        self.load(dice, faults.iter().any(|fault| matches!(fault, Fault::Fail { .. })))?;
        sleep(millis(dice, 50..250));
        for fault in faults {
            self.apply(fault, dice)?;
            sleep(millis(dice, 0..300));
        }
        sleep(millis(dice, 50..600));
        if self.home.is_none() && dice.percent(60) {
            // It begins elsewhere while all that is still so.
            let up: Vec<usize> = (0..NODES).filter(|n| self.cloud.nodes[*n].runs()).collect();
            if !up.is_empty() {
                drop(self.attach(*dice.pick(&up), HASTE));
                sleep(millis(dice, 0..400));
            }
        }
        self.mend(faults, dice)?;
        if self.home.is_none() {
            self.attach(dice.of(0..NODES as u64) as usize, PATIENCE)?;
        }
        self.end(dice)
    }

    /// All is whole again: everything the guest touched is read, and replicas are compared.
    pub fn end(&mut self, dice: &mut Dice) -> Result<String> {
        sleep(millis(dice, 20..200));
        self.vm.check(dice.percent(10), PATIENCE)?;
        self.vm.bury()?;
        let mut waited = Duration::ZERO;
        if dice.percent(30) {
            let since = Instant::now();
            self.cloud.until_in_sync(PATIENCE)?;
            waited = since.elapsed();
        }
        let compared = self.compare()?;
        for node in &mut self.cloud.nodes {
            node.lives()?;
        }
        Ok(format!("{compared} alike after {} ms", waited.as_millis()))
    }

    /// The guest begins on a node.
    pub fn attach(&mut self, node: usize, patience: Duration) -> Result<()> {
        let epoch = self.cloud.export(node)?;
        let socket = self.cloud.socket(epoch, patience)?;
        self.vm.attach(socket)?;
        self.home = Some(node);
        Ok(())
    }

    /// It ends; `undead`: its front-end is still there.
    pub fn die(&mut self, undead: bool) -> Result<()> {
        self.home = None;
        self.vm.die(undead)
    }

    /// These nodes lost what they had not flushed: whether anybody still has it.
    fn note_cut(&mut self, nodes: &[usize]) -> Result<()> {
        let tally = self.vm.tally();
        self.cuts.retain(|(_, mark)| tally.done <= *mark);
        self.cuts.extend(nodes.iter().map(|node| (*node, tally.asked)));
        let set = self.cloud.set()?;
        let gone: BTreeSet<&str> = self.cuts.iter().map(|(node, _)| NAMES[*node]).collect();
        if set.in_sync().all(|node| gone.contains(node)) {
            *self.counts.entry("chances of a loss").or_default() += 1;
            self.vm.may_lose()?;
        }
        Ok(())
    }

    fn cut(&mut self, nodes: &[usize], first: bool, dice: &mut Dice) -> Result<()> {
        for node in nodes {
            if dice.percent(50) {
                self.cloud.nodes[*node].write_back();
            }
        }
        for node in nodes {
            self.cloud.nodes[*node].cut(first)?;
            if self.home == Some(*node) {
                self.die(false)?;
            }
        }
        self.note_cut(nodes)
    }

    fn apply(&mut self, fault: &Fault, dice: &mut Dice) -> Result<()> {
        *self.counts.entry(fault.kind()).or_default() += 1;
        match fault {
            Fault::Kill { nodes, back } => {
                for node in nodes {
                    self.cloud.kill(*node)?;
                }
                sleep(*back);
                for node in nodes.iter().filter(|node| self.cloud.nodes[**node].powered).collect::<Vec<_>>() {
                    self.cloud.nodes[*node].start()?;
                }
            }
            Fault::Cut { nodes, first } => self.cut(nodes, *first, dice)?,
            Fault::Freeze { node } => self.cloud.nodes[*node].freeze(true)?,
            Fault::Link { from, to, mode } => self.cloud.link(*from, Some(*to), *mode),
            Fault::Isolate { node, mode } => self.isolate(*node, *mode),
            Fault::Storeless { node, mode } => self.cloud.link(*node, None, *mode),
            Fault::Fail { node, what, some } => self.fail(*node, *what, *some, dice)?,
            Fault::Hang { node, time } => {
                let end = Instant::now() + *time;
                self.cloud.nodes[*node].files.disk.set(|faults| faults.hangs_until = Some(end));
            }
            Fault::Slow { node, time } => {
                self.cloud.nodes[*node].files.disk.set(|faults| faults.slow = *time);
            }
            Fault::Fill { node, left } => {
                if self.cloud.nodes[*node].powered {
                    // It may be too full for that already, or failing.
                    drop(self.cloud.nodes[*node].files.fill(*left));
                }
            }
            Fault::Move { to, undead } => {
                self.die(*undead)?;
                // It may not be possible now.
                drop(self.attach(*to, HASTE));
            }
        }
        Ok(())
    }

    fn isolate(&self, node: usize, mode: Mode) {
        self.cloud.link(node, None, mode);
        for other in (0..NODES).filter(|other| *other != node) {
            self.cloud.link(node, Some(other), mode);
            self.cloud.link(other, Some(node), mode);
        }
    }

    /// A disk fails, all of it or where some of the guest's data is.
    fn fail(&mut self, node: usize, what: Failing, some: bool, dice: &mut Dice) -> Result<()> {
        let mut all = Some(0..u64::MAX);
        if some && let Some(at) = self.cloud.nodes[node].files.disk.place(dice)? {
            let len = 1 << dice.of(12..24);
            all = Some(at / len * len..at / len * len + len);
            // What is read next is read from the disk.
            self.cloud.nodes[node].write_back();
        }
        self.cloud.nodes[node].files.disk.set(|faults| {
            if matches!(what, Failing::Reads | Failing::Everything) {
                faults.bad_reads = all.clone();
            }
            if matches!(what, Failing::Writes | Failing::Everything) {
                faults.bad_writes = all.clone();
            }
            faults.bad_flushes = matches!(what, Failing::Flushes | Failing::Everything);
        });
        // Its file system may let go of what it cannot write.
        self.note_cut(&[node])
    }

    /// All is whole again.
    pub fn mend(&mut self, faults: &[Fault], dice: &mut Dice) -> Result<()> {
        for fault in faults {
            if let Fault::Hang { node, .. } = fault {
                self.outwait(*node);
            }
            // A disk that failed needs what a machine needs: to be started again.
            if let Fault::Fail { node, .. } = fault
                && self.cloud.nodes[*node].powered
            {
                self.cut(&[*node], true, dice)?;
            }
        }
        for from in 0..NODES {
            for to in (0..NODES).map(Some).chain([None]) {
                self.cloud.link(from, to, Mode::Whole);
            }
        }
        let mut order: Vec<usize> = (0..NODES).collect();
        order.rotate_left(dice.of(0..NODES as u64) as usize);
        for place in order {
            let node = &mut self.cloud.nodes[place];
            node.freeze(false)?;
            if !node.powered {
                let cut = node.restore(dice)?;
                *self.counts.entry("pieces kept by power cuts").or_default() += cut.kept as u64;
                *self.counts.entry("pieces lost by power cuts").or_default() += cut.lost as u64;
            }
            let node = &mut self.cloud.nodes[place];
            node.files.disk.set(|faults| faults.slow = Duration::ZERO);
            node.files.drain()?;
            node.start()?;
            sleep(millis(dice, 0..100));
        }
        Ok(())
    }

    /// Most of the time a disk that hangs comes back by itself.
    fn outwait(&self, node: usize) {
        let mut left = None;
        self.cloud.nodes[node].files.disk.set(|faults| left = faults.hangs_until);
        if let Some(left) = left {
            sleep(left.saturating_duration_since(Instant::now()));
        }
    }

    /// Holds what each replica in sync has against what the guest knows; answers which those are.
    pub fn compare(&mut self) -> Result<String> {
        let set = self.cloud.set()?;
        let mut alike = String::new();
        for (place, name) in NAMES.iter().enumerate().filter(|(_, name)| set.is_in_sync(name)) {
            let bytes = content(&self.cloud.nodes[place].segment())?;
            let model = self.vm.known()?;
            let wrong: Vec<String> = bytes
                .chunks_exact(SECTOR)
                .zip(0..)
                .filter_map(|(bytes, sector)| model.compare(sector, look(bytes, sector)).err())
                .collect();
            ensure!(
                wrong.is_empty(),
                "the replica on {name} is in sync and has {} sectors wrong: {}; {set:?}",
                wrong.len(),
                wrong.first().map_or("", String::as_str)
            );
            alike.push_str(name);
        }
        Ok(alike)
    }
}

/// What a volume's one segment holds; nothing yet if it is not there.
pub fn content(segment: &Path) -> Result<Vec<u8>> {
    let mut bytes = match std::fs::read(segment) {
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    bytes.resize(SIZE as usize, 0);
    Ok(bytes)
}

/// Some milliseconds.
pub fn millis(dice: &mut Dice, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(dice.of(range))
}
