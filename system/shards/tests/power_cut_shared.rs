//! A real file system that loses what is not on its disk, its log too, while volumes that share files are written,
//! copied and destroyed: what was flushed is there, and no copy has anything of another. Needs root, loop devices and
//! `xfs_io`; says so where it has them not.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on, or cannot run, says so"
)]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::volume::Volume;
use common::xfs::{self, Mounted};

const ROUNDS: u64 = 6;
const SIZE: u64 = 3 << 30;
/// What is written: the same number to a block of each segment, one after the other.
const PLACES: [u64; 3] = [4096, (1 << 30) + 4096, (2 << 30) + 4096];
/// Numbers of clones are above those of the source.
const OF_CLONES: u64 = 1 << 40;

fn put(volume: &Volume, number: u64) -> io::Result<()> {
    PLACES.iter().try_for_each(|at| volume.write_slice(*at, &[number.to_le_bytes(); 512].concat()))
}

fn numbers(volume: &Volume) -> io::Result<Vec<u64>> {
    let of = |at: &u64| {
        let mut bytes = vec![0; 4096];
        volume.read_slice(*at, &mut bytes)?;
        let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let whole = bytes.chunks(8).all(|n| n == number.to_le_bytes());
        if whole { Ok(number) } else { Err(io::Error::other("a block of two writes")) }
    };
    PLACES.iter().map(of).collect()
}

/// What is known of a copy: what it held when it was made, what was written to it, and whether that was flushed.
#[derive(Debug, Clone)]
struct Known {
    at_first: Vec<u64>,
    written: u64,
    flushed: bool,
}

#[derive(Default)]
struct World {
    /// The number that the source has for sure, and the last that was begun.
    flushed: AtomicU64,
    begun: AtomicU64,
    copies: Mutex<BTreeMap<String, Known>>,
    ended: AtomicBool,
}

impl World {
    /// Writes the source until that fails.
    fn write(&self, pool: &Pool) -> io::Result<()> {
        let volume = pool.open("v")?;
        loop {
            let number = self.begun.fetch_add(1, SeqCst) + 1;
            put(&volume, number)?;
            if number.is_multiple_of(3) {
                volume.flush()?;
                self.flushed.store(number, SeqCst);
            }
        }
    }

    /// Copies it, writes to the copies and destroys some, until that fails.
    fn copy(&self, pool: &Pool, prefix: &str) -> io::Result<()> {
        for turn in 1u64.. {
            let (id, read_only) = (format!("{prefix}{turn}"), turn.is_multiple_of(3));
            pool.create(&NewVolume { id: id.clone(), size: SIZE, read_only, source: Some("v".into()) })?;
            let copy = pool.open(&id)?;
            let known = Known { at_first: numbers(&copy)?, written: 0, flushed: false };
            self.know(&id, known.clone());
            if !read_only {
                let written = OF_CLONES + turn;
                self.know(&id, Known { written, ..known.clone() });
                put(&copy, written)?;
                if turn.is_multiple_of(2) {
                    copy.flush()?;
                    self.know(&id, Known { written, flushed: true, ..known });
                }
            }
            if turn > 6 {
                let gone = format!("{prefix}{}", turn - 6);
                self.copies.lock().unwrap().remove(&gone);
                pool.destroy(&gone)?;
                pool.disks().iter().try_for_each(|disk| disk.empty_trash())?;
            }
        }
        Ok(())
    }

    fn know(&self, id: &str, known: Known) {
        self.copies.lock().unwrap().insert(id.into(), known);
    }

    /// Has data written to the disk without the log that says whose it is, as a kernel does that needs memory.
    fn write_back(&self, disk: &Path) {
        while !self.ended.load(SeqCst) {
            let volumes = std::fs::read_dir(disk.join("volumes")).into_iter().flatten().flatten();
            let files = volumes.flat_map(|v| (0..3).map(move |n| v.path().join(format!("seg-{n:08}"))));
            let mut command = Command::new("xfs_io");
            command.args(["-c", "sync_range -w 0 8192"]).args(files.filter(|f| f.exists()));
            let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }

    /// What there must be once the power is back.
    fn check(&self, pool: &Pool) {
        let of = |id: &str| {
            let volume = pool.open(id).unwrap();
            let found = numbers(&volume).unwrap();
            assert_eq!(volume.findings().corrupt, 0, "{id}");
            found
        };
        let (least, most) = (self.flushed.load(SeqCst), self.begun.load(SeqCst));
        let source = of("v");
        assert!(source.iter().all(|n| (least..=most).contains(n)), "{source:?}, not {least} to {most}");
        for (id, known) in self.copies.lock().unwrap().iter() {
            let found = of(id);
            let mut places = found.iter().zip(&known.at_first);
            let right = match known.flushed {
                true => found.iter().all(|n| *n == known.written),
                false => places.all(|(n, first)| n == first || (*n == known.written && known.written > 0)),
            };
            assert!(right, "{id} has {found:?}: {known:?}");
        }
    }
}

struct Disks {
    dir: tempfile::TempDir,
}

impl Disks {
    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.dir.path().join("disks/d1")
    }
}

#[test]
fn no_copy_has_anything_of_another_after_a_power_cut() {
    if Command::new("xfs_io").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED, not tested here: no xfs_io");
        return;
    }
    for round in 0..ROUNDS {
        let disks = Disks { dir: tempfile::tempdir().unwrap() };
        let made = Mounted::new(&disks.image(), &disks.mounted(), 1 << 30);
        let Some(mounted) = xfs::or_skip(made) else { return };
        let disk = common::make_disk(&disks.dir.path().join("disks"), "d1");
        for path in [&disk.join("cairn-disk.json"), &disk] {
            std::fs::File::open(path).unwrap().sync_all().unwrap();
        }
        let world = World::default();
        {
            let pool = Pool::new(&disks.dir.path().join("disks"), None);
            pool.scan().unwrap();
            pool.create(&NewVolume { id: "v".into(), size: SIZE, read_only: false, source: None }).unwrap();
            std::thread::scope(|scope| {
                let (world, pool) = (&world, &pool);
                scope.spawn(move || world.write(pool));
                scope.spawn(move || world.copy(pool, "a"));
                scope.spawn(move || world.copy(pool, "b"));
                let at = disks.mounted();
                scope.spawn(move || world.write_back(&at));
                std::thread::sleep(Duration::from_millis(400 + round * 170));
                let cut = Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(disks.mounted()).status();
                world.ended.store(true, SeqCst);
                assert!(cut.unwrap().success());
            });
        }
        drop(mounted);
        let _mounted = Mounted::again(&disks.image(), &disks.mounted()).unwrap();
        let pool = Pool::new(&disks.dir.path().join("disks"), None);
        pool.scan().unwrap();
        assert!(world.copies.lock().unwrap().len() > 2, "too few copies were made in round {round}");
        world.check(&pool);
    }
}
