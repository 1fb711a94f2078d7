//! What a peer that lies, or a disk that garbles, may put before us, by the dice: it is refused or done, and nothing ends
//! for it. `CAIRN_FUZZ_RUNS` inputs each (4,000 by default), from `CAIRN_FUZZ_SEED` on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::sync::Arc;

use cairn_shards::format::{Manifest, Marker, SIZE_MAX};
use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::replication::op::{Failure, Op, Opened};
use cairn_shards::replication::replica::Replica;
use cairn_shards::replication::service::{Ask, Look, Open, Told};
use cairn_shards::volume::Volume;

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
        match self.below(7) {
            0 | 1 => {
                let len = self.below(9000) as usize;
                Op::Write { offset: self.number(), data: vec![self.next() as u8; len].into() }
            }
            2 => Op::Zero { offset: self.number(), len: self.number(), unmap: self.below(2) == 0 },
            3 => Op::Flush,
            // Nothing between that the disk of a test has no room for.
            4 => Op::Grow(Some(self.number()).filter(|n| *n > SIZE_MAX).unwrap_or(self.below(16 << 20))),
            5 => Op::Clean((0..self.below(4)).map(|_| self.number()).collect()),
            _ => Op::Settle { keep: (0..self.below(4)).map(|_| self.number()).collect() },
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

#[test]
fn no_frame_of_a_peer_ends_a_replica() {
    let dir = directory();
    common::make_disk(dir.path(), "d1");
    let pool = Pool::new(dir.path(), None);
    pool.scan().unwrap();
    let size = 4 << 20;
    pool.create(&NewVolume { id: "v1".into(), size, read_only: false, source: None }).unwrap();
    let replica = Replica::open(pool.open_to_fill("v1").unwrap(), "boot").unwrap();
    let (session, _) = replica.begin(1, size).unwrap();
    let (seed, runs) = dice();
    let (mut decoded, mut done) = (0, 0);
    for run in 0..runs {
        let mut random = Random(seed.wrapping_add(run).wrapping_mul(0x9e37));
        let ask = match random.below(16) {
            0 => Ask::Open(Open { volume: "v1".into(), epoch: random.number(), size: random.number() }),
            _ => Ask::Step(random.number(), random.op()),
        };
        let mut bytes = postcard::to_stdvec(&ask).unwrap();
        if random.below(2) == 0 {
            random.mutate(&mut bytes);
        }
        // What answers are made of is decoded by whoever asked.
        let _ = postcard::from_bytes::<Told>(&bytes);
        let _ = postcard::from_bytes::<Look>(&bytes);
        let _ = postcard::from_bytes::<Result<Opened, Failure>>(&bytes);
        let Ok(ask) = postcard::from_bytes::<Ask>(&bytes) else { continue };
        decoded += 1;
        if let Ask::Step(seq, op) = ask {
            let tried = random.below(2) == 0 && replica.try_apply(session, seq, &op);
            // A disk that is really synced each time would make this a test of the disk.
            if !tried && (op != Op::Flush || random.below(64) == 0) {
                done += u64::from(replica.apply(session, seq, &op).is_ok());
            }
        }
        let (at, len) = (random.number(), random.below(1 << 16));
        let _ = replica.read(session, at, len);
        // It hashes a mebibyte.
        if random.below(64) == 0 {
            let _ =
                replica.digest(session, if random.below(2) == 0 { random.number() } else { random.below(4) });
        }
    }
    assert!(decoded > runs / 2 && done > runs / 100, "{decoded} decoded and {done} done of {runs}");
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
        for (name, bytes) in names.iter().zip(&whole) {
            std::fs::write(name, bytes).unwrap();
        }
    }
    assert!(opened > runs / 400, "{opened} of {}", runs / 40);
}
