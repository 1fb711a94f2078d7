//! The storage process killed at any moment: what was flushed is there, and no request is lost or done twice.
//!
//! The backend runs in a process of its own (this test binary, started again with an environment variable), so
//! that it can be killed as a kernel or an operator would.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cairn_shards::blk::{Export, ServeOptions};
use cairn_shards::pool::{NewVolume, Pool};
use common::front_end::*;

const BACKEND: &str = "CAIRN_TEST_BACKEND";

/// Not a test of its own: the backend process.
#[test]
fn backend_process() {
    let Some(dir) = std::env::var_os(BACKEND) else { return };
    let dir = Path::new(&dir);
    let pool = pool_of(dir);
    let options = ServeOptions { dir: dir.join("run"), gid: None };
    options.prepare().unwrap();
    let _export = Export::start("v1", 1, pool.open("v1").unwrap(), &options).unwrap();
    loop {
        std::thread::park();
    }
}

const COPIER: &str = "CAIRN_TEST_COPIER";
/// What is written, again and again: at the beginning of segments, and beside it.
const PLACES: [u64; 3] = [0, (1 << 30) + 8192, (2 << 30) + 65536];
const PLACE: usize = 20480;

/// Not a test of its own: a process that writes a volume, takes snapshots and destroys them, until it is killed.
#[test]
fn copier_process() {
    let Some(dir) = std::env::var_os(COPIER) else { return };
    let pool = pool_of(Path::new(&dir));
    let volume = pool.open("v1").unwrap();
    for round in 1.. {
        let value = (round % 250 + 1) as u8;
        for at in PLACES {
            volume.write_slice(at, &vec![value; PLACE]).unwrap();
        }
        let snapshot = format!("s{}-{value}-{round}", std::process::id());
        let (id, source) = (snapshot.clone(), Some("v1".into()));
        pool.create(&NewVolume { id, size: 3 << 30, read_only: true, source }).unwrap();
        if round % 3 == 0 {
            pool.destroy(&snapshot).unwrap();
            pool.disks()[0].empty_trash().unwrap();
        }
    }
}

#[test]
fn snapshots_outlive_who_is_killed_while_it_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let disk = common::make_disk(dir.path(), "d1");
    let pool = pool_of(dir.path());
    pool.create(&NewVolume { id: "v1".into(), size: 3 << 30, read_only: false, source: None }).unwrap();
    drop(pool);
    let mut snapshots = 0;
    for round in 0..12u64 {
        let mut process = Killed(start("copier_process", COPIER, dir.path()));
        // Where it is then, nobody knows.
        std::thread::sleep(Duration::from_millis(150 + round * 37));
        assert!(process.0.try_wait().unwrap().is_none(), "it has ended by itself");
        drop(process);
        let pool = pool_of(dir.path());
        let of_volume = |id: &str| {
            let volume = pool.open(id).unwrap();
            let read = |at: &u64| {
                let mut bytes = vec![0; PLACE];
                volume.read_slice(*at, &mut bytes).unwrap();
                bytes
            };
            let bytes: Vec<Vec<u8>> = PLACES.iter().map(read).collect();
            assert_eq!(volume.findings().corrupt, 0, "{id}");
            bytes
        };
        of_volume("v1");
        for id in pool.disks()[0].volumes().unwrap().into_iter().filter(|id| id != "v1") {
            let value = id.split('-').nth(1).unwrap().parse::<u8>().unwrap();
            assert!(of_volume(&id).iter().flatten().all(|b| *b == value), "{id} in round {round}");
            pool.destroy(&id).unwrap();
            snapshots += 1;
        }
        // It goes on as if nothing had been.
        pool.open("v1").unwrap().write_slice(PLACES[1], &[251; 4096]).unwrap();
        assert_eq!(of_volume("v1")[1][..4096], [251; 4096]);
        pool.disks()[0].empty_trash().unwrap();
    }
    assert!(snapshots > 12, "only {snapshots} were taken");
    assert!(disk.join("volumes/v1").is_dir());
}

/// The disk in a directory. A process that another test is about to start may still have the lock of who had it last.
fn pool_of(dir: &Path) -> Pool {
    let pool = Pool::new(dir, None);
    for _ in 0..1000 {
        pool.scan().unwrap();
        if !pool.disks().is_empty() {
            return pool;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the disk is not there: {:?}", pool.refused());
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts a test of this binary as a process of its own.
fn start(test: &str, variable: &str, dir: &Path) -> Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(variable, dir)
        .stdout(Stdio::null())
        .spawn();
    child.unwrap()
}

fn backend(dir: &Path) -> Killed {
    Killed(start("backend_process", BACKEND, dir))
}

fn reconnect(guest: &mut Guest, socket: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    while guest.connect(socket).is_err() {
        assert!(Instant::now() < until, "the backend does not come back");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_backend_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    common::make_disk(dir.path(), "d1");
    let pool = pool_of(dir.path());
    pool.create(&NewVolume { id: "v1".into(), size: 64 << 20, read_only: false, source: None }).unwrap();
    drop(pool);
    let socket = dir.path().join("run/v1.sock");
    let mut guest = Guest::new();
    let mut acknowledged = vec![0u8; SLOTS.into()];
    for round in 1..=12u8 {
        let process = backend(dir.path());
        reconnect(&mut guest, &socket);
        for slot in 0..SLOTS {
            guest.submit(slot, OUT, u64::from(slot) * 128, &Data::Out(&[round; 65536]));
        }
        guest.kick();
        // Killed somewhere among them: at once, or after a few completions.
        let some = usize::from(round % 4) * 8;
        let mut done = if some > 0 { guest.wait(some) } else { vec![] };
        drop(process);
        done.extend(guest.completed());
        let in_order = done.iter().enumerate().all(|(i, (head, _))| usize::from(*head) == 3 * i);
        assert!(in_order, "round {round}: {done:?}");
        let process = backend(dir.path());
        guest.disconnect();
        reconnect(&mut guest, &socket);
        done.extend(guest.wait(usize::from(SLOTS) - done.len()));
        let heads: Vec<u16> = done.iter().map(|(head, _)| *head).collect();
        assert_eq!(heads, (0..SLOTS).map(|s| 3 * s).collect::<Vec<_>>(), "round {round}");
        assert!((0..SLOTS).all(|slot| guest.status(slot) == 0));
        acknowledged.fill(round);
        drop(process);
        guest.disconnect();
    }
    let _process = backend(dir.path());
    reconnect(&mut guest, &socket);
    for (slot, expected) in acknowledged.iter().enumerate() {
        assert!(guest.read(slot as u64 * 128, 65536).iter().all(|b| b == expected), "slot {slot}");
    }
}

#[test]
fn what_was_under_way_is_done_once_in_whatever_order() {
    let dir = tempfile::tempdir().unwrap();
    common::make_disk(dir.path(), "d1");
    let pool = pool_of(dir.path());
    pool.create(&NewVolume { id: "v1".into(), size: 64 << 20, read_only: false, source: None }).unwrap();
    drop(pool);
    let socket = dir.path().join("run/v1.sock");
    let mut guest = Guest::new().keeping();
    let all: Vec<u16> = (0..SLOTS).map(|s| 3 * s).collect();
    let mut overtaken = 0;
    for round in 1..=12u8 {
        let process = backend(dir.path());
        reconnect(&mut guest, &socket);
        for slot in 0..SLOTS {
            // Flushes take their time, and writes go past them.
            match slot % 8 {
                3 => guest.submit(slot, FLUSH, 0, &Data::None),
                _ => guest.submit(slot, OUT, u64::from(slot) * 128, &Data::Out(&[round; 65536])),
            }
        }
        guest.kick();
        let some = usize::from(round % 4) * 8;
        let mut done = if some > 0 { guest.wait(some) } else { vec![] };
        drop(process);
        done.extend(guest.completed());
        let _process = backend(dir.path());
        guest.disconnect();
        reconnect(&mut guest, &socket);
        done.extend(guest.wait(usize::from(SLOTS) - done.len()));
        std::thread::sleep(Duration::from_millis(20));
        done.extend(guest.completed());
        let mut heads: Vec<u16> = done.iter().map(|(head, _)| *head).collect();
        overtaken += usize::from(!heads.is_sorted());
        heads.sort_unstable();
        assert_eq!(heads, all, "round {round}");
        assert!((0..SLOTS).all(|slot| guest.status(slot) == 0));
        for slot in (0..SLOTS).filter(|slot| slot % 8 != 3) {
            assert!(guest.read(u64::from(slot) * 128, 65536).iter().all(|b| *b == round), "slot {slot}");
        }
        guest.disconnect();
    }
    assert!(overtaken > 0, "no write went past a flush");
}
