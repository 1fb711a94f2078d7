//! What a volume does about blocks that are not what was written: bits that flip on the disk, a process or a machine that
//! ends between a block and its sum, volumes from before there were sums.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use cairn_shards::format::{BLOCK, Manifest, VOLUME_FORMAT_UNSUMMED};
use cairn_shards::volume::{Findings, Volume, is_corrupt, make_sums, write_manifest};

const SIZE: u64 = (40 << 20) + 512;

struct Bench {
    _parent: tempfile::TempDir,
    dir: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Manifest::new("v1", SIZE, false))
    }

    fn with(manifest: Manifest) -> Bench {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("v1");
        std::fs::create_dir(&dir).unwrap();
        write_manifest(&dir, &manifest).unwrap();
        Bench { _parent: parent, dir }
    }

    fn open(&self) -> Volume {
        Volume::open(&self.dir).unwrap()
    }

    fn flip(&self, name: &str, byte: u64) {
        flip(&self.dir.join(name), byte);
    }
}

fn flip(path: &Path, byte: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut found = [0];
    file.read_exact_at(&mut found, byte).unwrap();
    file.write_all_at(&[found[0] ^ 0x10], byte).unwrap();
}

fn read(volume: &Volume, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0xee; len];
    volume.read_slice(offset, &mut bytes).map(|()| bytes)
}

/// All that was written is covered by a flush and is no longer marked.
fn settle(volume: &Volume) {
    for _ in 0..3 {
        volume.flush().unwrap();
        volume.clean().unwrap();
    }
}

#[test]
fn a_flipped_bit_is_never_handed_out() {
    for (name, byte) in [("seg-00000000", 2 * BLOCK + 77), ("sum-00000000", 9)] {
        let bench = Bench::new();
        let volume = bench.open();
        volume.write_slice(0, &[7; 5 * BLOCK as usize]).unwrap();
        settle(&volume);
        bench.flip(name, byte);
        for volume in [volume, bench.open()] {
            for (offset, len) in [(0, 5 * BLOCK), (2 * BLOCK, BLOCK), (2 * BLOCK + 512, 512)] {
                let read = read(&volume, offset, len as usize);
                assert!(read.as_ref().is_err_and(is_corrupt), "{name}: {offset}+{len}: {read:?}");
            }
            assert_eq!(volume.findings(), Findings { corrupt: 3, mended: 0 });
            assert_eq!(read(&volume, 3 * BLOCK, 512).unwrap(), [7; 512], "its neighbour is whole");
            // A part of it cannot be changed without giving the rest for right; the whole can.
            assert!(volume.write_slice(2 * BLOCK, &[8; 512]).is_err_and(|e| is_corrupt(&e)));
            assert!(volume.write_zeroes(2 * BLOCK, 512, true).is_err_and(|e| is_corrupt(&e)));
        }
        let volume = bench.open();
        volume.write_slice(2 * BLOCK, &[8; BLOCK as usize]).unwrap();
        assert_eq!(read(&volume, 2 * BLOCK, 512).unwrap(), [8; 512]);
    }
}

#[test]
fn data_that_is_lost_is_no_hole() {
    let bench = Bench::new();
    let volume = bench.open();
    volume.write_slice(1 << 20, &[7; 8 * BLOCK as usize]).unwrap();
    settle(&volume);
    File::options().write(true).open(bench.dir.join("seg-00000000")).unwrap().set_len(0).unwrap();
    assert!(!volume.is_hole(1 << 20, 8 * BLOCK).unwrap());
    assert!(volume.is_hole(0, 1 << 20).unwrap(), "nothing was stored there");
    assert!(read(&volume, 1 << 20, 512).is_err_and(|e| is_corrupt(&e)));
}

#[test]
fn where_a_crash_may_have_parted_them_the_data_counts() {
    let bench = Bench::new();
    let volume = bench.open();
    volume.write_slice(0, &[7; 3 * BLOCK as usize]).unwrap();
    volume.flush().unwrap();
    drop(volume);
    // Written, and killed before the sum was; the area is marked still.
    bench.flip("seg-00000000", BLOCK);
    let volume = bench.open();
    assert_eq!(read(&volume, BLOCK, 2).unwrap(), [7 ^ 0x10, 7]);
    assert_eq!(volume.findings(), Findings { corrupt: 0, mended: 1 });
    assert_eq!(read(&volume, BLOCK, 1).unwrap(), [7 ^ 0x10]);
    assert_eq!(volume.findings().mended, 1, "its sum is right now");
    // What nobody has read yet is looked at before the mark goes.
    bench.flip("seg-00000000", 0);
    settle(&volume);
    assert_eq!(volume.findings().mended, 2);
    bench.flip("seg-00000000", 0);
    assert!(read(&volume, 0, 1).is_err_and(|e| is_corrupt(&e)));
    assert!(read(&bench.open(), 0, 1).is_err_and(|e| is_corrupt(&e)));
}

#[test]
fn what_is_beyond_the_end_is_nothing() {
    let bench = Bench::new();
    let volume = bench.open();
    let last = SIZE - 512;
    volume.write_slice(last, &[7; 512]).unwrap();
    settle(&volume);
    bench.flip("seg-00000000", last + 1);
    assert!(volume.write_slice(last, &[8; 511]).is_err_and(|e| is_corrupt(&e)));
    volume.write_slice(last, &[8; 512]).unwrap();
    volume.grow(SIZE + 8192).unwrap();
    assert_eq!(read(&volume, last, 1024).unwrap(), [[8; 512], [0; 512]].concat());
    volume.write_slice(last + 512, &[9; 512]).unwrap();
    assert_eq!(read(&bench.open(), last, 1024).unwrap(), [[8; 512], [9; 512]].concat());
    assert_eq!(volume.findings().corrupt, 1);
}

#[test]
fn many_who_write_one_block_leave_one_of_theirs() {
    let bench = Bench::new();
    let volume = bench.open();
    volume.write_slice(0, &[1; 64 << 10]).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4u8)
            .map(|n| {
                let volume = &volume;
                scope.spawn(move || {
                    for i in 0..400u64 {
                        let at = (i * 7919 + u64::from(n)) % 100 * 512;
                        volume.write_slice(at, &vec![n; 512 * (1 + i as usize % 20)]).unwrap();
                        if i % 50 == u64::from(n) {
                            volume.write_zeroes(at, 6000, n > 1).unwrap();
                            volume.flush().unwrap();
                            volume.clean().unwrap();
                        }
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            while !ended.load(SeqCst) {
                read(&volume, 512, 60 << 10).unwrap();
            }
        });
        writers.into_iter().for_each(|w| w.join().unwrap());
        ended.store(true, SeqCst);
        reader.join().unwrap();
    });
    assert_eq!(volume.findings(), Findings::default());
}

#[test]
fn an_old_volume_gets_its_sums_while_it_is_written() {
    let manifest = Manifest {
        format: VOLUME_FORMAT_UNSUMMED,
        segment_size: 8 << 20,
        ..Manifest::new("v1", SIZE, false)
    };
    let bench = Bench::with(manifest);
    for index in [0, 2] {
        std::fs::write(bench.dir.join(format!("seg-{index:08}")), vec![5; 3 << 20]).unwrap();
    }
    let volume = bench.open();
    bench.flip("seg-00000000", 0);
    assert_eq!(read(&volume, 0, 2).unwrap(), [5 ^ 0x10, 5], "nobody can tell");
    let mut pieces = 0;
    let summed = volume.sum_up(|_| {
        pieces += 1;
        volume.write_slice(pieces * 12345, &[6; 700]).unwrap();
        pieces < 20
    });
    assert!(!summed.unwrap() && !volume.is_summed());
    drop(volume);
    let volume = bench.open();
    volume.write_slice(9 << 20, &[4; 512]).unwrap(); // a segment that was not there
    assert!(volume.sum_up(|_| volume.write_slice(17 << 20, &[3; 512]).is_ok()).unwrap());
    settle(&volume);
    for volume in [volume, bench.open()] {
        assert!(volume.is_summed() && volume.manifest().is_summed());
        read(&volume, 0, SIZE as usize).unwrap();
        assert_eq!(read(&volume, (17 << 20) - 1, 2).unwrap(), [5, 3]);
    }
    for (name, at) in [("seg-00000000", 0), ("seg-00000001", 1 << 20), ("seg-00000002", 4096)] {
        bench.flip(name, at % (8 << 20));
    }
    let volume = bench.open();
    for at in [0, 9 << 20, (16 << 20) + 4096] {
        assert!(read(&volume, at, 1).is_err_and(|e| is_corrupt(&e)), "{at}");
    }
}

#[test]
fn what_is_stored_past_the_volume_is_given_sums_before_it_is_used() {
    let manifest = Manifest { format: VOLUME_FORMAT_UNSUMMED, ..Manifest::new("v1", SIZE, true) };
    let bench = Bench::with(manifest);
    let file = File::create(bench.dir.join("seg-00000000")).unwrap();
    file.write_all_at(&[1; 5000], 30 << 20).unwrap();
    make_sums(&bench.dir, "v1").unwrap();
    assert!(bench.open().is_summed());
    assert_eq!(read(&bench.open(), (30 << 20) + 4999, 2).unwrap(), [1, 0]);
    bench.flip("seg-00000000", 30 << 20);
    assert!(read(&bench.open(), 30 << 20, 1).is_err_and(|e| is_corrupt(&e)));
}
