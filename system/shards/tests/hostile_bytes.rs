//! What a peer that lies, or a disk that garbles, may put before us, by the dice: it is refused or done, and nothing ends
//! for it. `CAIRN_FUZZ_RUNS` inputs each (4,000 by default), from `CAIRN_FUZZ_SEED` on.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on says where, and what it did"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_shards::format::{BLOCK, Manifest, Marker, Owner, SIZE_MAX};
use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::replication::blocks::{Found, Question};
use cairn_shards::replication::op::{Failure, Op, Opened};
use cairn_shards::replication::replica::Replica;
use cairn_shards::replication::service::{Ask, Compare, Look, Open, Told};
use cairn_shards::volume::Volume;

/// The size in bytes that a volume begins with, and the size from which on it is not written any more.
const SIZE: u64 = 4 << 20;
const ROOM: u64 = 16 << 20;
/// The inputs that one replica gets.
const AGE: u64 = 1000;
/// What a peer may ask for. All of it must have been done, or the dice show nothing of it. (Writes that wait for nothing are
/// tried; a file system in memory refuses them.)
const KINDS: [&str; 14] = [
    "open",
    "write",
    "zero",
    "flush",
    "grow",
    "clean",
    "settle",
    "clean for",
    "settle for",
    "read",
    "digest",
    "blocks",
    "torn",
    "read matching",
];

type Counts = BTreeMap<&'static str, u64>;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn number(&mut self) -> u64 {
        match self.below(6) {
            0 => self.next(),
            1 => u64::MAX - self.below(3),
            2 => 1 << self.below(64),
            _ => self.below(1 << 21),
        }
    }

    /// A few bytes changed, lost, doubled, or all of it anything.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() as u64 + 1) as usize;
            match (self.below(6), at < bytes.len()) {
                (0, true) => bytes[at] = self.next() as u8,
                (1, true) => bytes[at] ^= 1 << self.below(8),
                (2, true) => drop(bytes.remove(at)),
                (3, _) => bytes.insert(at, self.next() as u8),
                (4, true) => bytes.truncate(at),
                _ => {
                    let some: Vec<u8> = bytes.iter().copied().take(32).collect();
                    bytes.splice(at..at, some);
                }
            }
        }
    }

    fn op(&mut self) -> Op {
        match self.below(9) {
            0 | 1 => {
                // Whole blocks go another way.
                let (offset, len) = match self.below(2) {
                    0 => (self.number() & !(BLOCK - 1), BLOCK * self.below(3)),
                    _ => (self.number(), self.below(9000)),
                };
                Op::Write { offset, data: vec![self.next() as u8; len as usize].into() }
            }
            2 => Op::Zero { offset: self.number(), len: self.number(), unmap: self.below(2) == 0 },
            3 => Op::Flush,
            // Nothing between that the disk of a test has no room for.
            4 => Op::Grow(Some(self.number()).filter(|n| *n > SIZE_MAX).unwrap_or(self.below(ROOM))),
            5 => Op::Clean(self.numbers()),
            6 => Op::Settle { keep: self.numbers() },
            7 => Op::CleanFor { areas: self.numbers(), round: self.below(4) },
            _ => Op::SettleFor { keep: self.numbers(), round: self.below(4), missed: self.numbers() },
        }
    }

    fn numbers(&mut self) -> Vec<u64> {
        (0..self.below(4)).map(|_| self.number()).collect()
    }

    fn ask(&mut self) -> Ask {
        match self.below(16) {
            0 => Ask::Open(Open { volume: "v1".into(), epoch: self.number(), size: self.number() }),
            _ => Ask::Step(self.number(), self.op()),
        }
    }
}

/// In memory if that can be: nothing here is about the disk, which would be synced for each input.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn dice() -> (u64, u64) {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    (number("CAIRN_FUZZ_SEED").unwrap_or(1), number("CAIRN_FUZZ_RUNS").unwrap_or(4_000))
}

/// A replica that does what it is asked.
struct Victim {
    _dir: tempfile::TempDir,
    replica: Replica,
    session: u64,
}

impl Victim {
    fn new() -> Victim {
        let dir = directory();
        common::make_disk(dir.path(), "d1");
        let pool = Pool::new(dir.path(), None);
        pool.scan().unwrap();
        pool.create(&NewVolume { id: "v1".into(), size: SIZE, read_only: false, source: None }).unwrap();
        let replica = Replica::open(pool.open_to_fill("v1").unwrap(), "boot").unwrap();
        let (session, _) = replica.begin(1, SIZE).unwrap();
        Victim { _dir: dir, replica, session }
    }

    /// Whether a peer has made it so large that what comes next would fill the disk of a test.
    fn is_too_large(&self) -> bool {
        self.replica.volume().size() > ROOM
    }

    fn heed(&mut self, random: &mut Random, ask: Ask, done: &mut Counts) {
        match ask {
            Ask::Open(Open { epoch, size, .. }) => {
                if let Ok((session, _)) = self.replica.begin(epoch, size) {
                    self.session = session;
                    count(done, "open");
                }
            }
            Ask::Step(seq, op) => {
                if random.below(2) == 0 && self.replica.try_apply(self.session, seq, &op) {
                    count(done, "write at once");
                } else if self.replica.apply(self.session, seq, &op).is_ok() {
                    count(done, kind(&op));
                }
            }
        }
    }

    fn look(&self, random: &mut Random, done: &mut Counts) {
        let (at, len) = (random.number(), random.below(1 << 14));
        let region = if random.below(2) == 0 { random.number() } else { random.below(4) };
        let (what, found) = match random.below(64) {
            // It hashes a mebibyte.
            0 => ("digest", self.replica.digest(self.session, region).is_ok()),
            3 => ("blocks", self.replica.blocks(self.session, &question(random, region)).is_ok()),
            1 => ("torn", self.replica.torn(self.session, region).is_ok()),
            2 => ("read matching", self.replica.read_matching(self.session, at, len).is_ok()),
            _ => ("read", self.replica.read(self.session, at, len).is_ok()),
        };
        if found {
            count(done, what);
        }
    }
}

fn question(random: &mut Random, region: u64) -> Question {
    let mut sum = || u128::from(random.next()).to_le_bytes();
    Question { region, key: Some(sum()), known: Some(sum()) }
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Write { .. } => "write",
        Op::Zero { .. } => "zero",
        Op::Flush => "flush",
        Op::Grow(_) => "grow",
        Op::Clean(_) => "clean",
        Op::Settle { .. } => "settle",
        Op::CleanFor { .. } => "clean for",
        Op::SettleFor { .. } => "settle for",
    }
}

fn count(done: &mut Counts, kind: &'static str) {
    *done.entry(kind).or_default() += 1;
}

#[test]
fn no_frame_of_a_peer_ends_a_replica() {
    let (seed, runs) = dice();
    let (mut victim, mut decoded, mut done) = (Victim::new(), 0, Counts::new());
    for run in 0..runs {
        let mut random = Random(seed.wrapping_add(run).wrapping_mul(0x9e37));
        let mut bytes = postcard::to_stdvec(&random.ask()).unwrap();
        if random.below(2) == 0 {
            random.mutate(&mut bytes);
        }
        // What answers are made of is decoded by whoever asked.
        let _ = postcard::from_bytes::<Told>(&bytes);
        let _ = postcard::from_bytes::<Look>(&bytes);
        let _ = postcard::from_bytes::<Result<Opened, Failure>>(&bytes);
        let _ = postcard::from_bytes::<Compare>(&bytes);
        let _ = postcard::from_bytes::<Result<Found, Failure>>(&bytes);
        let Ok(ask) = postcard::from_bytes::<Ask>(&bytes) else { continue };
        decoded += 1;
        victim.heed(&mut random, ask, &mut done);
        victim.look(&mut random, &mut done);
        // What a few inputs did is there for the next, but no more of it than there is room for.
        if run % AGE == AGE - 1 || victim.is_too_large() {
            victim = Victim::new();
        }
    }
    println!("{decoded} of {runs} decoded, done: {done:?}");
    assert!(decoded > runs / 2, "{decoded} of {runs} decoded");
    for kind in KINDS {
        assert!(done.contains_key(kind), "nothing of the kind {kind} was done in {runs}: {done:?}");
    }
}

#[test]
fn no_bytes_of_a_disk_end_who_reads_them() {
    let (seed, runs) = dice();
    let manifest = serde_json::to_vec(&Manifest::new("v1", 3 << 30, false)).unwrap();
    let marker = br#"{"format":1,"disk":"d1","cloud":"c1"}"#.to_vec();
    let mut read = 0;
    for run in 0..runs {
        let mut random = Random(seed.wrapping_add(run).wrapping_mul(0x51ed));
        let (mut a, mut b) = (manifest.clone(), marker.clone());
        random.mutate(&mut a);
        random.mutate(&mut b);
        if let Ok(m) = Manifest::parse(&a, "v1") {
            assert!(m.segments() <= 1 << 20, "{m:?}");
            read += 1;
        }
        let _ = Marker::parse(&b);
        let _ = Owner::parse(&b);
    }
    assert!(read > runs / 100, "{read} of {runs}");
}

#[test]
fn no_garbled_volume_ends_who_opens_it() {
    let dir = directory();
    common::make_disk(dir.path(), "d1");
    let pool = Pool::new(dir.path(), None);
    pool.scan().unwrap();
    pool.create(&NewVolume { id: "v1".into(), size: 1 << 20, read_only: false, source: None }).unwrap();
    let volume = pool.open("v1").unwrap();
    volume.write_slice(0, &[7; 70_000]).unwrap();
    volume.flush().unwrap();
    let home = volume.dir().to_owned();
    drop(volume);
    let replica = Replica::open(pool.open_to_fill("v1").unwrap(), "boot").unwrap();
    replica.begin(3, 1 << 20).unwrap();
    drop(replica);
    let names: Vec<_> = std::fs::read_dir(&home).unwrap().map(|e| e.unwrap().path()).collect();
    let whole: Vec<Vec<u8>> = names.iter().map(|name| std::fs::read(name).unwrap()).collect();
    let (seed, runs) = dice();
    let mut opened = 0;
    for run in 0..runs / 40 {
        let mut random = Random(seed.wrapping_add(run).wrapping_mul(0x1234_5679));
        let which = random.below(names.len() as u64) as usize;
        let mut bytes = whole[which].clone();
        random.mutate(&mut bytes);
        std::fs::write(&names[which], &bytes).unwrap();
        if let Ok(volume) = Volume::open(&home) {
            opened += 1;
            let mut some = vec![0; 9000];
            let at = random.below(1 << 20);
            let _ = volume.read_slice(at, &mut some);
            let _ = volume.write_slice(at, &some[..random.below(9000) as usize]);
            if let Ok(replica) = Replica::open(Arc::new(volume), "boot") {
                let _ = replica.begin(random.below(6), 1 << 20);
            }
        }
        // The next input meets nothing of what this one did.
        for entry in std::fs::read_dir(&home).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (name, bytes) in names.iter().zip(&whole) {
            std::fs::write(name, bytes).unwrap();
        }
    }
    assert!(opened > runs / 400, "{opened} of {}", runs / 40);
}
