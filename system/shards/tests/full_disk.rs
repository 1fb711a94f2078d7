//! On a real data disk: an XFS with shared blocks, on a loop device. Clones that cost nothing, and a disk that
//! fills up under a guest. Needs root and loop devices; says so where it has them not.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on, or cannot run, says so"
)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_shards::blk::{Export, ServeOptions};
use cairn_shards::pool::{NewVolume, Pool};
use common::front_end::*;
use common::xfs::{self, Mounted};

/// A node's disks: one, of 320 MiB.
struct Disks {
    dir: tempfile::TempDir,
    _mounted: Mounted,
}

impl Disks {
    fn path(&self) -> PathBuf {
        self.dir.path().join("disks")
    }
}

fn mounted() -> Option<Disks> {
    let dir = tempfile::tempdir().unwrap();
    let mounted =
        xfs::or_skip(Mounted::new(&dir.path().join("image"), &dir.path().join("disks/d1"), 320 << 20))?;
    common::make_disk(&dir.path().join("disks"), "d1");
    Some(Disks { dir, _mounted: mounted })
}

fn free(path: &Path) -> u64 {
    let s = nix::sys::statvfs::statvfs(path).unwrap();
    s.blocks_available() * s.fragment_size()
}

fn volume(id: &str, size: u64, source: Option<&str>) -> NewVolume {
    NewVolume { id: id.into(), size, read_only: false, source: source.map(Into::into) }
}

#[test]
fn a_clone_shares_its_blocks() {
    let Some(disk) = mounted() else { return };
    let pool = Pool::new(&disk.path(), None);
    pool.scan().unwrap();
    pool.create(&volume("a", 256 << 20, None)).unwrap();
    let a = pool.open("a").unwrap();
    for i in 0..100 {
        a.write_slice(i << 20, &vec![1; 1 << 20]).unwrap();
    }
    a.flush().unwrap();
    let before = free(&disk.path().join("d1"));
    for i in 0..20 {
        pool.create(&volume(&format!("b{i}"), 256 << 20, Some("a"))).unwrap();
    }
    let little = || before < free(&disk.path().join("d1")) + (16 << 20);
    assert!(little(), "20 clones of 100 MiB");
    // Each with files of its own from here on, of which it changes a block.
    for i in 0..10 {
        let clone = pool.open(&format!("b{i}")).unwrap();
        clone.write_slice(i << 20, &[2; 4096]).unwrap();
        clone.flush().unwrap();
    }
    assert!(little(), "10 of which were written");
    let mut bytes = vec![0; 1 << 20];
    for i in 0..10 {
        pool.open(&format!("b{i}")).unwrap().read_slice(i << 20, &mut bytes).unwrap();
        assert!(bytes[..4096].iter().all(|b| *b == 2) && bytes[4096..].iter().all(|b| *b == 1));
    }
    pool.open("b19").unwrap().read_slice(99 << 20, &mut bytes).unwrap();
    assert!(bytes.iter().all(|b| *b == 1));
}

#[test]
fn a_full_disk_holds_writes_until_there_is_room() {
    let Some(disk) = mounted() else { return };
    let pool = Pool::new(&disk.path(), None);
    pool.scan().unwrap();
    pool.create(&volume("a", 1 << 30, None)).unwrap();
    pool.create(&volume("other", 1 << 20, None)).unwrap();
    pool.open("other").unwrap().write_slice(0, &[4; 4096]).unwrap();
    let ballast = disk.path().join("d1/ballast");
    std::fs::write(&ballast, vec![1; 200 << 20]).unwrap();

    let options = ServeOptions { dir: disk.dir.path().join("run"), gid: None };
    options.prepare().unwrap();
    let a = pool.open("a").unwrap();
    let mut export = Export::start("a", 1, a.clone(), &options).unwrap();
    let mut guest = Guest::new().keeping();
    guest.connect(export.socket()).unwrap();
    // More than there is room for, 64 requests of 256 KiB at a time.
    let mut round = 0;
    let held = loop {
        for slot in 0..SLOTS {
            let sector = (round * u64::from(SLOTS) + u64::from(slot)) * 512;
            guest.submit(slot, OUT, sector, &Data::Out(&[round as u8 + 1; 256 << 10]));
        }
        guest.kick();
        let mut done = Vec::new();
        for _ in 0..3000 {
            done.extend(guest.completed());
            if done.len() == usize::from(SLOTS) || a.is_full() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if done.len() < usize::from(SLOTS) {
            break usize::from(SLOTS) - done.len();
        }
        round += 1;
        assert!(round < 40, "the disk never filled up");
    };
    assert!(a.is_full());
    // Another volume goes on being read, and what this one has completed stays completed.
    let mut bytes = [0; 4096];
    pool.open("other").unwrap().read_slice(0, &mut bytes).unwrap();
    assert_eq!(bytes, [4; 4096]);
    std::thread::sleep(Duration::from_millis(700));
    assert!(guest.completed().is_empty(), "held, neither failed nor dropped");

    // What can be done without room is done.
    guest.submit(SLOTS, IN, 0, &Data::In(4096));
    guest.kick();
    assert_eq!(guest.wait(1)[0].0, 3 * SLOTS);
    // A ring that is stopped meanwhile, as for a migration, has them all again.
    let next = guest.stop_ring();
    assert_eq!(next as u16, guest.used_index(), "the first that is not done");
    guest.disconnect();
    guest.connect(export.socket()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(guest.completed().is_empty());

    std::fs::remove_file(&ballast).unwrap();
    let done = guest.wait(held);
    assert_eq!(done.len(), held);
    assert!((0..SLOTS).all(|slot| guest.status(slot) == 0));
    assert!(!a.is_full());
    let last = (round * u64::from(SLOTS) + u64::from(SLOTS) - 1) * 512;
    assert!(guest.read(last, 65536).iter().all(|b| *b == round as u8 + 1));
    drop(guest);
    assert!(export.stop(Duration::from_secs(60)));
}
