//! The simulated world: nodes with disks that lose what was not synced, and a network that loses, delays, doubles
//! and reorders what it carries.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_state::{Limits, LocalStore, Member, Network, NodeId, NotReached, Options, Timing, is_witness};

use crate::disk::{Break, Content, Dice, Disk};
use crate::runtime::{Life, Simulated, below, clock, live};

/// How many nodes a group begins with.
pub const NODES: usize = 3;

/// The place of the one that may join it, and may lose its disk and come back as another.
pub const SPARE: usize = NODES;

/// The place that a witness has in the runs that have one.
pub const WITNESS: usize = NODES - 1;

/// What is in a witness's number.
const WITNESS_NUMBER: NodeId = 0xf000;

/// What members seal with that a witness is given.
const KEY: [u8; 32] = [7; 32];

pub fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(100),
        election: Duration::from_millis(300),
        pause: Duration::from_millis(20),
        patience: Duration::from_secs(2),
        // Short, so that snapshots are needed.
        log_entries: 6,
    }
}

/// Requests of a higher kind are orders, which are carried at most once.
const LAST_OF_THE_PROTOCOL: u8 = 4;

pub fn member(place: usize) -> Member {
    Member { name: format!("n{place}"), addresses: vec![] }
}

struct Node {
    number: NodeId,
    disk: Disk,
    life: Arc<Life>,
    store: Option<LocalStore>,
    /// How long a write of its disk may take, in milliseconds.
    slow: Arc<Mutex<u64>>,
}

/// What is broken now.
#[derive(Debug, Default)]
pub struct Weather {
    /// `cut[from][to]`: nothing gets through.
    pub cut: [[bool; NODES + 1]; NODES + 1],
    /// Of a hundred messages, how many are lost.
    pub loss: u64,
    /// Of a hundred, how many arrive twice.
    pub doubled: u64,
    /// How long a message is on its way at most, in milliseconds.
    pub delay: u64,
}

pub struct World {
    nodes: Mutex<Vec<Node>>,
    pub weather: Mutex<Weather>,
    /// Whether the faults have ended.
    pub calm: AtomicBool,
    /// Whether clocks may jump.
    pub jumps: bool,
}

/// The network as one node has it.
struct Wires {
    world: std::sync::Weak<World>,
    from: usize,
}

fn lost(why: &str) -> NotReached {
    NotReached { why: why.into(), maybe_arrived: true }
}

#[async_trait]
impl Network for Wires {
    async fn call(&self, to: NodeId, _: &Member, request: Bytes) -> Result<Bytes, NotReached> {
        let world = self.world.upgrade().ok_or_else(|| lost("the world has ended"))?;
        // Whoever is at that place gets it, also one that has come in the place of whom it was meant for.
        let to = world.place_of(to).ok_or_else(|| lost("no such node"))?;
        world.travel(self.from, to).await?;
        // A carrier may double what the protocol stands, but not orders: see `Network::call`.
        let protocol = request.get(3).is_some_and(|kind| *kind <= LAST_OF_THE_PROTOCOL);
        if protocol && below(100) < world.weather.lock().unwrap().doubled {
            tokio::spawn(arrive(world.clone(), self.from, to, request.clone()));
        }
        let answer = tokio::spawn(arrive(world.clone(), self.from, to, request)).await;
        answer.map_err(|_| lost("it panicked"))?.ok_or_else(|| lost("nobody there"))
    }
}

/// Delivers a request, and brings its answer back. The sender may be gone by then.
async fn arrive(world: Arc<World>, from: usize, to: usize, request: Bytes) -> Option<Bytes> {
    let (life, endpoint) = {
        let nodes = world.nodes.lock().unwrap();
        (nodes[to].life.clone(), nodes[to].store.as_ref()?.endpoint())
    };
    let from_witness = world.is_witness(from);
    let answer = live(&life, async move {
        if from_witness { endpoint.serve_witness(request).await } else { endpoint.serve(request).await }
    })
    .await?;
    world.travel(to, from).await.ok()?;
    Some(answer)
}

impl World {
    /// A world of nodes with these disks; none is up.
    pub fn new(disks: Vec<Content>, jumps: bool, witness: bool) -> Arc<World> {
        let nodes = disks.into_iter().enumerate().map(|(place, content)| Node {
            number: place as NodeId + 1 + if witness && place == WITNESS { WITNESS_NUMBER } else { 0 },
            disk: Disk::new(content, Break::Never),
            life: Arc::default(),
            store: None,
            slow: Arc::new(Mutex::new(1)),
        });
        let weather = Weather { delay: 4, ..Weather::default() };
        Arc::new(World {
            nodes: Mutex::new(nodes.collect()),
            weather: Mutex::new(weather),
            calm: AtomicBool::new(false),
            jumps,
        })
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.nodes.lock().unwrap().len()
    }

    /// The number of the node at a place.
    pub fn number(&self, place: usize) -> NodeId {
        self.nodes.lock().unwrap()[place].number
    }

    /// Whether a witness is at a place.
    pub fn is_witness(&self, place: usize) -> bool {
        is_witness(self.number(place))
    }

    /// The places that have the state: all but a witness's.
    pub fn stateful(&self) -> Vec<usize> {
        (0..self.places()).filter(|place| !self.is_witness(*place)).collect()
    }

    /// Any place that has the state, by the dice.
    pub fn any(&self) -> usize {
        let places = self.stateful();
        places[below(places.len() as u64) as usize]
    }

    pub fn place_of(&self, number: NodeId) -> Option<usize> {
        self.nodes.lock().unwrap().iter().position(|node| node.number == number)
    }

    /// The node at a place is no more; another comes, with an empty disk. It is not started.
    pub fn replace(&self, place: usize) {
        self.crash(place, true);
        let mut nodes = self.nodes.lock().unwrap();
        nodes[place].number += 1;
        nodes[place].disk = Disk::new(Content::default(), Break::Never);
    }

    async fn travel(&self, from: usize, to: usize) -> Result<(), NotReached> {
        let (delay, loss) = {
            let weather = self.weather.lock().unwrap();
            (weather.delay, weather.loss)
        };
        tokio::time::sleep(Duration::from_micros(below(delay * 1000 + 1))).await;
        let cut = self.weather.lock().unwrap().cut[from][to];
        if cut || below(100) < loss {
            // Nobody says that it was lost.
            tokio::time::sleep(Duration::from_secs(5)).await;
            return Err(lost("lost"));
        }
        Ok(())
    }

    /// Starts a node with what its disk has.
    pub async fn start(self: &Arc<World>, place: usize, options: Options) {
        let life = Arc::new(Life::default());
        if self.jumps {
            life.jump(below(3_600_000) as i64);
        }
        let (disk, slow) = {
            let mut nodes = self.nodes.lock().unwrap();
            nodes[place].life = life.clone();
            (nodes[place].disk.clone(), nodes[place].slow.clone())
        };
        // Small, so that files are begun anew, and that a crash finds what is in the log alone.
        let apply_at_once = below(2) == 0;
        let limits =
            Limits { log_file_bytes: 48 << 10, unsaved_entries: 12, apply_at_once, ..Limits::default() };
        let limits = Limits { cache_bytes: 1 << 20, history_revisions: 1000, feed_commits: 4, ..limits };
        let wires = Wires { world: Arc::downgrade(self), from: place };
        let options =
            options.network(Arc::new(wires)).timing(timing()).limits(limits).node(self.number(place));
        let pace = move || Duration::from_micros(below(*slow.lock().unwrap() * 1000 + 1));
        let started = LocalStore::simulate::<Simulated>(disk.media(), options, Box::new(clock), pace);
        // A disk may break while it is opened: then it is tried again later.
        let started = tokio::time::timeout(Duration::from_secs(10), live(&life, started)).await;
        let mut nodes = self.nodes.lock().unwrap();
        if Arc::ptr_eq(&nodes[place].life, &life) {
            let started = started.ok().and_then(Result::ok);
            nodes[place].store = started.filter(|store| store.seal_with(&KEY).is_ok());
        }
    }

    /// Ends a node at once. With the power, its disk loses any part of what was not synced.
    pub fn crash(&self, place: usize, power: bool) {
        let mut nodes = self.nodes.lock().unwrap();
        let node = &mut nodes[place];
        node.life.end();
        let content = match power {
            true => node.disk.after_power_failure(&mut Dice(below(u64::MAX))),
            false => node.disk.content(),
        };
        node.disk = Disk::new(content, Break::Never);
        node.store = None;
    }

    pub fn content(&self, place: usize) -> Content {
        self.nodes.lock().unwrap()[place].disk.content()
    }

    /// The disk of a node fails soon.
    pub fn break_disk(&self, place: usize, after: u64) {
        self.nodes.lock().unwrap()[place].disk.break_after(after);
    }

    pub fn slow_disk(&self, place: usize, ms: u64) {
        *self.nodes.lock().unwrap()[place].slow.lock().unwrap() = ms;
    }

    /// The life of a node, whether or not it is up.
    pub fn life(&self, place: usize) -> Arc<Life> {
        self.nodes.lock().unwrap()[place].life.clone()
    }

    /// The store of a node that is up, and the life it is part of.
    pub fn store(&self, place: usize) -> Option<(LocalStore, Arc<Life>)> {
        let nodes = self.nodes.lock().unwrap();
        Some((nodes[place].store.clone()?, nodes[place].life.clone()))
    }

    /// Ends the weather's cuts, losses and delays.
    pub fn clear(&self) {
        *self.weather.lock().unwrap() = Weather { delay: 4, ..Weather::default() };
    }
}
