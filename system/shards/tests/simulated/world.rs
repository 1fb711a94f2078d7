//! Nodes, a network, a store and writers, in one seeded history. Time is in milliseconds and belongs to the seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::time::Duration;

use cairn_shards::replication::blocks::{Block, Piece};
use cairn_shards::replication::op::{Failure, Op, Opened};
use cairn_shards::replication::place::{disk_of, node_of, on_disk};
use cairn_shards::replication::set::ReplicaSet;
use cairn_shards::replication::writer::{Action, CopyFailure, Phase, Reading, Swapped, Term, Writer};

use crate::Random;
use crate::copying::Copy;
use crate::disk::{Content, Disk};
use crate::guest::{Asked, Guest};

/// Bytes of the volume at first.
const SIZE: u64 = 40 << 20;

/// What happens at some moment.
pub enum Event {
    Tick(usize),
    Open { writer: usize, node: String },
    Opened { writer: usize, node: String, result: Result<(u64, Opened), Failure> },
    Step { writer: usize, node: String, session: u64, seq: u64, op: Op },
    Done { writer: usize, node: String, session: u64, seq: u64, result: Result<(), Failure> },
    Read { writer: usize, copy: Copy },
    Compare { writer: usize, copy: Copy, wanted: Vec<Block> },
    Fetch { writer: usize, copy: Copy, pieces: Vec<Piece> },
    Store { writer: usize, copy: Copy, content: Content },
    Stored { writer: usize, copy: Copy, result: Result<(), Failure> },
    Copied { writer: usize, result: Result<(), CopyFailure> },
    Swap { writer: usize, expect: ReplicaSet, new: ReplicaSet },
    Swapped { writer: usize, result: Swapped },
    Seen { writer: usize, version: u64, set: ReplicaSet },
    Lost { writer: usize, node: String, session: u64 },
    Back(String),
}

/// A writer and its connections, each with the session it began.
pub struct Running {
    pub core: Writer,
    pub node: String,
    pub alive: bool,
    pub links: BTreeMap<String, u64>,
    /// The copy whose steps are on their way, and how many are.
    pub copying: Option<(Copy, usize)>,
}

pub struct World {
    pub random: Random,
    pub now: u64,
    /// Replicas by their places; two are on one node in some histories.
    pub disks: BTreeMap<String, Disk>,
    /// How often each node has booted.
    boots: BTreeMap<String, u64>,
    pub set: ReplicaSet,
    /// Bytes that the volume shall have.
    pub size: u64,
    pub store_up: bool,
    pub cut: HashSet<(String, String)>,
    pub writers: Vec<Running>,
    pub guest: Guest,
    /// Whether all that happens is printed.
    pub traced: bool,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
    /// When the last message between two ends arrives: they stay in order.
    busy_until: BTreeMap<(usize, String), u64>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let paired = matches!(seed % 5, 1 | 2);
        let names = if paired { ["a/x", "a/y", "b", "c"] } else { ["a", "b", "c", "d"] }.map(String::from);
        // One is of an earlier release in some histories.
        let is_coarse = |name: &str| seed % 7 == 3 && name == "b";
        let disk = |n: &String| (n.clone(), Disk::new(is_coarse(n)));
        World {
            random: Random(seed),
            now: 0,
            disks: names.iter().map(disk).collect(),
            boots: names.iter().map(|n| (node_of(n).to_owned(), 1)).collect(),
            set: ReplicaSet::new("v", names[..3].iter().cloned()),
            size: SIZE,
            store_up: true,
            cut: HashSet::new(),
            writers: Vec::new(),
            guest: Guest::default(),
            traced: std::env::var_os("SEED").is_some(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            busy_until: BTreeMap::new(),
        }
    }

    pub fn after(&mut self, ms: u64, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((self.now + ms, self.next)));
        self.events.insert(self.next, event);
    }

    pub fn soon(&mut self, event: Event) {
        let ms = self.random.below(20);
        self.after(ms, event);
    }

    /// Lets time pass.
    pub fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(Reverse((at, id))) = self.queue.peek().copied().filter(|Reverse((at, _))| *at <= end) {
            self.queue.pop();
            self.now = at;
            if let Some(event) = self.events.remove(&id) {
                self.happen(event);
            }
        }
        self.now = end;
    }

    /// A writer starts on a node, after it has read the record, for a user that began under an epoch.
    pub fn start(&mut self, node: &str, epoch: u64, user_since: u64) -> usize {
        let boot = self.boot_of(node);
        let term = Term { node: node.into(), boot, epoch, user_since };
        let core = Writer::new(term, self.size, self.set.clone());
        self.writers.push(Running {
            core,
            node: node.into(),
            alive: true,
            links: BTreeMap::new(),
            copying: None,
        });
        let index = self.writers.len() - 1;
        self.guest.current = index;
        self.after(0, Event::Tick(index));
        index
    }

    /// The boot of a node.
    pub fn boot_of(&self, node: &str) -> String {
        self.boots[node].to_string()
    }

    /// The places on a node.
    pub fn places_on(&self, node: &str) -> Vec<String> {
        self.disks.keys().filter(|place| node_of(place) == node).cloned().collect()
    }

    /// Whether two disks are of one node.
    pub fn is_paired(&self) -> bool {
        self.boots.len() < self.disks.len()
    }

    /// The power of a node fails, or of one disk of it.
    pub fn cut_power(&mut self, place: &str) {
        let mut random = Random(self.random.next());
        self.disks.get_mut(place).unwrap().power_cut(&mut random);
    }

    /// A disk that is off is put into a node, and the store says that what it has is there. Answers its new place.
    pub fn move_disk(&mut self, from: &str, node: &str) -> String {
        let to = on_disk(node, disk_of(from).unwrap_or(from));
        if let Some(disk) = self.disks.remove(from) {
            self.disks.insert(to.clone(), disk);
        }
        self.set = self.set.moved(from, &to);
        self.publish();
        to
    }

    /// A node boots, some time.
    pub fn boot(&mut self, node: &str) {
        *self.boots.get_mut(node).unwrap() += 1;
    }

    /// Gives a request to a writer; the guest knows it by its number.
    pub fn request(&mut self, writer: usize, asked: Asked) {
        let (id, actions) = self.writers[writer].core.request(asked.op.clone());
        self.guest.issued(writer, id, asked);
        self.perform(writer, actions);
    }

    /// Reads a block as the guest does now; `None` if no replica serves, or the guest is told that it may be lost.
    pub fn read(&mut self, writer: usize, at: u64) -> Option<u64> {
        let running = &self.writers[writer];
        let Reading::From(node) = running.core.read_from(&(at..at + 1)) else { return None };
        let node = node.to_owned();
        let (session, disk) = (*running.links.get(&node)?, self.disks.get(&node)?);
        let reachable = !self.cut.contains(&(running.node.clone(), node_of(&node).to_owned()));
        let serves = running.alive && disk.alive && disk.session == session && reachable;
        if serves && disk.corrupt.contains(&at) && !disk.is_suspect(at) {
            let mut hopeless = false;
            self.tell(writer, |w| {
                let begun = w.repair(&node, &(at..at + 1));
                hopeless = begun.is_none();
                begun.unwrap_or_default()
            });
            self.guest.told.corrupt += 1;
            self.guest.told.hopeless += u64::from(hopeless);
            return None;
        }
        serves.then(|| disk.view().get(&at).copied().unwrap_or(0))
    }

    pub fn tell(&mut self, writer: usize, event: impl FnOnce(&mut Writer) -> Vec<Action>) {
        if self.writers[writer].alive {
            let actions = event(&mut self.writers[writer].core);
            self.perform(writer, actions);
        }
    }

    pub fn kill_writers_on(&mut self, node: &str) {
        self.writers.iter_mut().filter(|w| w.node == node).for_each(|w| w.alive = false);
    }

    /// Connections to a place end, as their writers will notice.
    pub fn drop_links(&mut self, node: &str, only: Option<&str>) {
        for index in 0..self.writers.len() {
            if only.is_some_and(|o| o != self.writers[index].node) {
                continue;
            }
            if let Some(session) = self.writers[index].links.get(node).copied() {
                let ms = self.random.below(400);
                self.after(ms, Event::Lost { writer: index, node: node.into(), session });
            }
        }
    }

    fn perform(&mut self, writer: usize, actions: Vec<Action>) {
        for action in actions {
            if self.traced {
                println!("{} w{writer}@{}: {action:?}", self.now, self.writers[writer].node);
            }
            match action {
                Action::Open(node) => self.soon(Event::Open { writer, node }),
                Action::Close(node) => {
                    self.writers[writer].links.remove(&node);
                    self.give_up(writer, &node);
                }
                Action::Send { node, seq, op } => {
                    if let Some(session) = self.writers[writer].links.get(&node).copied() {
                        self.in_order(writer, node.clone(), Event::Step { writer, node, session, seq, op });
                    }
                }
                Action::Copy { from, to, region, seq, witnesses } => {
                    let links = &self.writers[writer].links;
                    let session = |n: &String| links.get(n).copied().unwrap_or(u64::MAX);
                    let (from, to) = ((from.clone(), session(&from)), (to.clone(), session(&to)));
                    self.soon(Event::Read { writer, copy: Copy { from, to, region, seq, witnesses } });
                }
                Action::Swap { expect, new } => self.soon(Event::Swap { writer, expect, new }),
                Action::Complete { request, result } => {
                    let view = self.source_of(writer);
                    self.guest.completed(writer, request, &result, &view);
                }
            }
        }
    }

    /// What the replica that a writer reads from holds; nothing if there is none.
    fn source_of(&self, writer: usize) -> Content {
        let set = self.writers[writer].core.set();
        let source = set.in_sync().filter_map(|n| self.disks.get(n)).find(|disk| disk.alive);
        source.map(Disk::view).unwrap_or_default()
    }

    pub fn in_order(&mut self, writer: usize, node: String, event: Event) {
        let ms = self.random.below(30);
        let last = self.busy_until.entry((writer, node)).or_default();
        *last = (*last + 1).max(self.now + ms);
        let ms = *last - self.now;
        self.after(ms, event);
    }

    pub fn reaches(&self, writer: usize, node: &str) -> bool {
        let from = self.writers[writer].node.clone();
        self.disks.get(node).is_some_and(|d| d.alive) && !self.cut.contains(&(from, node_of(node).to_owned()))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(writer) => {
                if self.writers[writer].alive && self.writers[writer].core.phase() != Phase::Fenced {
                    let now = Duration::from_millis(self.now);
                    self.tell(writer, |w| w.tick(now));
                    let wanted = self.writers[writer].core.wants();
                    if wanted > 0 {
                        let allowed = self.random.below(wanted.min(8));
                        self.tell(writer, |w| w.allow(allowed));
                    }
                    self.after(100, Event::Tick(writer));
                }
            }
            Event::Open { writer, node } => {
                let (epoch, size) = (self.epoch_of(writer), self.writers[writer].core.wanted_size());
                let result = match self.reaches(writer, &node) {
                    true => self.disks.get_mut(&node).unwrap().begin(epoch, size),
                    false => Err(Failure::Broken("away".into())),
                };
                self.soon(Event::Opened { writer, node, result });
            }
            Event::Opened { writer, node, result } => match result {
                Ok((session, opened)) if self.writers[writer].alive => {
                    self.writers[writer].links.insert(node.clone(), session);
                    self.tell(writer, |w| w.opened(&node, opened));
                    // It may have gone before it was heard of.
                    if !self.disks.get(&node).is_some_and(|d| d.alive) {
                        self.after(50, Event::Lost { writer, node, session });
                    }
                }
                Ok(_) => {}
                Err(why) => self.tell(writer, |w| w.lost(&node, &why)),
            },
            Event::Step { writer, node, session, seq, op } => {
                if self.reaches(writer, &node) {
                    let result = self.disks.get_mut(&node).unwrap().apply(session, seq, &op);
                    let event = Event::Done { writer, node, session, seq, result };
                    self.soon(event);
                }
            }
            Event::Done { writer, node, session, seq, result } => {
                let open = self.writers[writer].links.get(&node) == Some(&session);
                if open && self.reaches(writer, &node) {
                    self.tell(writer, |w| w.done(&node, seq, result));
                }
            }
            Event::Swap { writer, expect, new } => self.swap(writer, &expect, &new),
            Event::Swapped { writer, result } => self.tell(writer, |w| w.swapped(result)),
            Event::Seen { writer, version, set } => self.tell(writer, |w| w.seen(set, version)),
            Event::Lost { writer, node, session } => {
                if self.writers[writer].links.get(&node) == Some(&session) {
                    self.writers[writer].links.remove(&node);
                    self.give_up(writer, &node);
                    self.tell(writer, |w| w.lost(&node, &Failure::Broken("gone".into())));
                }
            }
            // Unless it is elsewhere by then.
            Event::Back(node) => self.disks.get_mut(&node).into_iter().for_each(|disk| disk.alive = true),
            copying => self.copy(copying),
        }
    }

    fn swap(&mut self, writer: usize, expect: &ReplicaSet, new: &ReplicaSet) {
        let result = match self.store_up {
            // Done or not, nobody hears of it.
            false => {
                if self.set == *expect && self.random.chance(30) {
                    self.set = new.clone();
                }
                Swapped::Unknown
            }
            true if self.set == *new => Swapped::Done,
            true if self.set == *expect => {
                self.set = new.clone();
                Swapped::Done
            }
            true => Swapped::Found(Some(self.set.clone())),
        };
        self.soon(Event::Swapped { writer, result });
    }

    /// Every writer hears of the record as it is, some time.
    pub fn publish(&mut self) {
        for writer in 0..self.writers.len() {
            let (version, set) = (self.writers[writer].core.version(), self.set.clone());
            self.soon(Event::Seen { writer, version, set });
        }
    }

    pub fn epoch_of(&self, writer: usize) -> u64 {
        self.writers[writer].core.epoch()
    }
}
