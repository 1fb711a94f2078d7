//! The guest: a front-end of vhost-user-blk that never rests, on a thread of its own. It outlives the storage process as
//! QEMU does, by connecting again with what was under way kept; it dies with its node, and is attached anew elsewhere.
//! Every answer is held against the model.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::front_end::{DISCARD, Data, FLUSH, Guest, IN, OUT, WRITE_ZEROES};
use crate::model::Model;
use crate::stamp::{SECTOR, look, stamp};
use crate::vm::{Load, Order, Tally, guard};
use crate::zombie::Zombie;

/// Requests under way at most.
const SLOTS: usize = 32;
/// Sectors of the longest request.
const LONGEST: u64 = 512;
/// Sectors that are read at once where a check looks.
const CHUNK: u64 = 128;
/// How long after it was told of a loss it may be told again: by a process whose forerunner died in between.
const TOLD_AGAIN: Duration = Duration::from_secs(20);
/// How long it rests if nothing happened.
const REST: Duration = Duration::from_micros(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A write of this number; 0 for zeroes.
    Write(u32),
    Read,
    Flush {
        extent: usize,
        number: u64,
    },
}

struct Request {
    kind: Kind,
    range: Range<u64>,
    at: Instant,
}

enum Task {
    Rest,
    Load,
    /// `todo` is there once nothing is under way.
    Check {
        whole: bool,
        todo: Option<VecDeque<Range<u64>>>,
        done: Sender<()>,
    },
}

/// The guest itself.
pub struct Life {
    orders: Receiver<Order>,
    tally: Arc<Mutex<Tally>>,
    model: Arc<Mutex<Model>>,
    guest: Option<(Guest, PathBuf)>,
    undead: Vec<Zombie>,
    under_way: Vec<Option<Request>>,
    task: Task,
    load: Option<Load>,
    /// What is in doubt is read before anything else is done.
    settling: Option<VecDeque<Range<u64>>>,
    /// Some of what was not flushed when this number was the last flush's may be gone.
    lossy: Option<u64>,
    /// When it was told of that.
    told: Option<Instant>,
    touched: BTreeSet<u64>,
    looked: Instant,
}

impl Life {
    pub fn new(orders: Receiver<Order>, tally: Arc<Mutex<Tally>>, model: Arc<Mutex<Model>>) -> Life {
        Life {
            orders,
            tally,
            model,
            guest: None,
            undead: Vec::new(),
            under_way: (0..SLOTS).map(|_| None).collect(),
            task: Task::Rest,
            load: None,
            settling: None,
            lossy: None,
            told: None,
            touched: BTreeSet::new(),
            looked: Instant::now(),
        }
    }

    pub fn run(&mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.obey(order),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    if !self.step() {
                        std::thread::sleep(REST);
                    }
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Attach(socket) => {
                self.guest = Some((Guest::new().keeping(), socket));
                self.settling = Some(VecDeque::new());
                guard(&self.tally).settled = false;
                self.looked = Instant::now() - Duration::from_secs(1);
            }
            Order::Die { undead } => self.die(undead),
            Order::MayLose if self.guest.is_some() && self.settling.is_none() => {
                self.lossy = Some(guard(&self.tally).asked);
            }
            Order::MayLose => {
                self.lossy = Some(guard(&self.tally).asked);
                guard(&self.model).lose();
                self.settling = Some(VecDeque::new());
            }
            Order::Load(load) => (self.load, self.task) = (Some(load), Task::Load),
            Order::Check { whole, done } => self.task = Task::Check { whole, todo: None, done },
            Order::Haunt(mut dice) => self.undead.iter_mut().for_each(|one| one.rise(dice.child())),
            Order::Bury => self.undead.clear(),
        }
    }

    fn die(&mut self, undead: bool) {
        let Some((guest, _)) = self.guest.take() else { return };
        if undead {
            self.undead.push(Zombie::new(guest, self.under_way.iter().map(Option::is_some)));
        }
        let mut model = guard(&self.model);
        for request in self.under_way.iter_mut().filter_map(Option::take) {
            if let Kind::Write(write) = request.kind {
                model.left(request.range, write);
            }
        }
        if self.lossy.take().is_some() {
            model.lose();
        }
    }

    /// What is undead goes on.
    fn haunt(&mut self) {
        for zombie in &mut self.undead {
            let went = zombie.step(&mut guard(&self.model));
            let mut tally = guard(&self.tally);
            match went {
                Ok(asked) => tally.haunting += asked,
                Err(why) => drop(tally.found.get_or_insert(why)),
            }
        }
    }

    fn idle(&self) -> bool {
        self.under_way.iter().all(Option::is_none)
    }

    /// Goes on; false if there was nothing to do.
    fn step(&mut self) -> bool {
        self.haunt();
        if self.guest.is_none() || guard(&self.tally).found.is_some() || !self.is_connected() {
            return false;
        }
        let mut busy = self.take();
        if self.settling.is_some() {
            busy |= self.settle();
        } else {
            busy |= match &self.task {
                Task::Rest => false,
                Task::Load => self.fill(),
                Task::Check { .. } => self.check(),
            };
        }
        busy
    }

    fn is_connected(&mut self) -> bool {
        if self.looked.elapsed() < Duration::from_millis(10) {
            return true;
        }
        let Some((guest, socket)) = &mut self.guest else { return false };
        self.looked = Instant::now();
        if !guest.is_cut() {
            return true;
        }
        guest.disconnect();
        if guest.connect(socket).is_err() {
            // At the next look.
            std::thread::sleep(Duration::from_millis(10));
            return false;
        }
        guard(&self.tally).reconnects += 1;
        true
    }

    /// Takes what was answered.
    fn take(&mut self) -> bool {
        let Some((guest, _)) = &mut self.guest else { return false };
        let answered: Vec<(usize, u8)> = guest
            .completed()
            .into_iter()
            .map(|(head, _)| (head / 3, guest.status(head / 3)))
            .map(|(s, st)| (usize::from(s), st))
            .collect();
        let busy = !answered.is_empty();
        for (slot, status) in answered {
            let Some(request) = self.under_way.get_mut(slot).and_then(Option::take) else {
                self.found(format!("slot {slot} was answered, and had not asked"));
                continue;
            };
            self.end(slot, request, status);
        }
        busy
    }

    fn found(&self, what: String) {
        guard(&self.tally).found.get_or_insert(what);
    }

    fn end(&mut self, slot: usize, request: Request, status: u8) {
        let took = request.at.elapsed();
        let mut tally = guard(&self.tally);
        tally.longest = tally.longest.max(took);
        drop(tally);
        match (request.kind, status) {
            (Kind::Write(write), 0) => {
                guard(&self.model).written(request.range.clone(), write);
                let mut tally = guard(&self.tally);
                *(if write == 0 { &mut tally.zeroed } else { &mut tally.writes }) += 1;
            }
            (Kind::Read, 0) => self.look(slot, request.range),
            (Kind::Flush { extent, number }, 0) => self.flushed(extent, number),
            (kind, status) => self.failed(kind, request.range, status),
        }
    }

    fn look(&mut self, slot: usize, range: Range<u64>) {
        let Some((guest, _)) = &self.guest else { return };
        let bytes = guest.data(slot as u16, (range.end - range.start) as usize * SECTOR);
        let mut model = guard(&self.model);
        let read = range.clone().zip(bytes.chunks_exact(SECTOR));
        let wrong: Vec<String> =
            read.filter_map(|(sector, bytes)| model.read(sector, look(bytes, sector)).err()).collect();
        drop(model);
        let mut tally = guard(&self.tally);
        tally.reads += 1;
        tally.sectors_read += range.end - range.start;
        drop(tally);
        if let Some(first) = wrong.first() {
            self.found(format!("of {range:?}, {} sectors are wrong: {first}", wrong.len()));
        }
    }

    fn flushed(&mut self, extent: usize, number: u64) {
        if self.lossy.is_some_and(|mark| number > mark) {
            self.lossy = None;
        }
        let mut tally = guard(&self.tally);
        tally.flushes += 1;
        tally.done = tally.done.max(number);
        drop(tally);
        let mut model = guard(&self.model);
        match self.settling {
            None => model.flushed(extent),
            // That of the end, with all else read.
            Some(_) if model.doubts(1).is_empty() && self.under_way.iter().all(Option::is_none) => {
                model.settled();
                guard(&self.tally).settled = true;
                self.settling = None;
            }
            Some(_) => {}
        }
    }

    fn failed(&mut self, kind: Kind, range: Range<u64>, status: u8) {
        let may_fail = self.load.as_ref().is_some_and(|load| load.may_fail);
        let again = self.told.is_some_and(|at| at.elapsed() < TOLD_AGAIN);
        let told = (self.lossy.is_some() || again) && !matches!(kind, Kind::Write(_));
        if !may_fail && !told {
            return self.found(format!("{kind:?} of {range:?} failed with status {status}"));
        }
        match kind {
            Kind::Write(write) => {
                guard(&self.model).left(range, write);
                self.settling.get_or_insert_default();
            }
            Kind::Read => {
                if let Some(todo) = self.todo() {
                    todo.push_back(range);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Kind::Flush { .. } if self.lossy.is_some() => {
                guard(&self.model).lose();
                self.settling.get_or_insert_default();
                self.told = Some(Instant::now());
            }
            Kind::Flush { .. } => std::thread::sleep(Duration::from_millis(5)),
        }
        let mut tally = guard(&self.tally);
        match kind {
            _ if !told => tally.errors += 1,
            Kind::Flush { .. } => tally.losses_told += 1,
            _ => tally.withheld += 1,
        }
    }

    /// What is left to be read.
    fn todo(&mut self) -> Option<&mut VecDeque<Range<u64>>> {
        match (&mut self.settling, &mut self.task) {
            (Some(todo), _) => Some(todo),
            (None, Task::Check { todo, .. }) => todo.as_mut(),
            _ => None,
        }
    }

    fn ask(&mut self, slot: usize, kind: Kind, range: Range<u64>, dice: Option<&mut Dice>) {
        let Some((guest, _)) = &mut self.guest else { return };
        let (len, index) = ((range.end - range.start) as usize * SECTOR, slot as u16);
        match kind {
            Kind::Read => guest.submit(index, IN, range.start, &Data::In(len as u32)),
            Kind::Flush { .. } => guest.submit(index, FLUSH, 0, &Data::None),
            Kind::Write(0) => {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&range.start.to_le_bytes());
                bytes[8..12].copy_from_slice(&((range.end - range.start) as u32).to_le_bytes());
                let way = if dice.is_some_and(|dice| dice.percent(50)) { DISCARD } else { WRITE_ZEROES };
                guest.submit(index, way, 0, &Data::Out(&bytes));
            }
            Kind::Write(write) => {
                let mut bytes = vec![0; len];
                for (sector, bytes) in range.clone().zip(bytes.chunks_exact_mut(SECTOR)) {
                    stamp(bytes, sector, write);
                }
                guest.submit(index, OUT, range.start, &Data::Out(&bytes));
            }
        }
        guest.kick();
        self.under_way[slot] = Some(Request { kind, range, at: Instant::now() });
    }

    fn flush(&mut self, slot: usize) {
        let extent = guard(&self.model).extent();
        let mut tally = guard(&self.tally);
        tally.asked += 1;
        let number = tally.asked;
        drop(tally);
        self.ask(slot, Kind::Flush { extent, number }, 0..0, None);
    }

    fn free(&self) -> Option<usize> {
        self.under_way.iter().position(Option::is_none)
    }

    /// Reads what is left to be read; true once that is done and nothing is under way.
    fn read_on(&mut self) -> bool {
        while let Some(slot) = self.free() {
            let Some(range) = self.todo().and_then(VecDeque::pop_front) else { break };
            self.ask(slot, Kind::Read, range, None);
        }
        self.idle()
    }

    fn settle(&mut self) -> bool {
        if !self.read_on() {
            return false;
        }
        let doubts = guard(&self.model).doubts(LONGEST);
        if doubts.is_empty() {
            self.flush(0)
        } else {
            self.settling = Some(doubts.into())
        }
        true
    }

    fn check(&mut self) -> bool {
        let sectors = guard(&self.model).sectors();
        let Task::Check { whole, todo, done } = &mut self.task else { return false };
        match todo {
            None if self.under_way.iter().all(Option::is_none) => {
                let touched = std::mem::take(&mut self.touched);
                let all = 0..sectors.div_ceil(CHUNK);
                let chunks: Vec<u64> = if *whole { all.collect() } else { touched.into_iter().collect() };
                *todo = Some(chunks.into_iter().map(|c| c * CHUNK..((c + 1) * CHUNK).min(sectors)).collect());
                self.flush(0);
                true
            }
            None => false,
            Some(left) if left.is_empty() && self.under_way.iter().all(Option::is_none) => {
                // Who asked may have given up.
                let _ = done.send(());
                self.task = Task::Rest;
                true
            }
            Some(_) => {
                self.read_on();
                false
            }
        }
    }

    /// Asks for more.
    fn fill(&mut self) -> bool {
        let Some(mut load) = self.load.take() else { return false };
        let count = self.under_way.iter().flatten().count();
        let room = load.depth.min(SLOTS).saturating_sub(count);
        for _ in 0..room {
            if let Some(slot) = self.free() {
                self.ask_any(slot, &mut load);
            }
        }
        self.load = Some(load);
        room > 0
    }

    fn ask_any(&mut self, slot: usize, load: &mut Load) {
        let dice = &mut load.dice;
        if dice.percent(load.flushes) {
            return self.flush(slot);
        }
        let sectors = guard(&self.model).sectors();
        let mut len = 1 << dice.of(0..10);
        if dice.percent(30) {
            len = dice.of(1..LONGEST + 1);
        }
        let within = if dice.percent(80) { load.hot.clone() } else { 0..sectors };
        let mut start = dice.of(within).min(sectors - len);
        if dice.percent(70) {
            start = start / 8 * 8;
        }
        let range = start..start + len;
        // What is read while it is written may be either: not here.
        if self.under_way.iter().flatten().any(|r| r.range.start < range.end && range.start < r.range.end) {
            return;
        }
        self.touched.extend(range.start / CHUNK..(range.end - 1) / CHUNK + 1);
        let kind = match dice.of(0..100) {
            0..25 => Kind::Read,
            25..32 => Kind::Write(0),
            _ => Kind::Write(guard(&self.model).number()),
        };
        self.ask(slot, kind, range, Some(dice));
    }
}
