//! Volumes that have files in common: what one changes no other ever sees, whatever is copied, written, killed and destroyed
//! in whatever order.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use cairn_shards::format::{
    BLOCK, Manifest, VOLUME_FORMAT, VOLUME_FORMAT_GUARDED, VOLUME_FORMAT_SHARED, VOLUME_FORMAT_UNSUMMED,
};
use cairn_shards::volume::{Findings, Volume, write_manifest};
use proptest::prelude::*;

const SEGMENT: u64 = 64 << 10;
const SIZE: u64 = 3 * SEGMENT + 4096;

fn make(parent: &Path, id: &str) -> Arc<Volume> {
    let dir = parent.join(id);
    std::fs::create_dir(&dir).unwrap();
    let manifest = Manifest { segment_size: SEGMENT, ..Manifest::new(id, SIZE, false) };
    write_manifest(&dir, &manifest).unwrap();
    Arc::new(Volume::open(&dir).unwrap())
}

fn copy(of: &Volume, id: &str, read_only: bool) -> Arc<Volume> {
    let dir = of.dir().parent().unwrap().join(id);
    std::fs::create_dir(&dir).unwrap();
    let mut manifest = Manifest::new(id, of.size(), read_only);
    of.copy_to(&dir, &mut manifest).unwrap();
    write_manifest(&dir, &manifest).unwrap();
    Arc::new(Volume::open(&dir).unwrap())
}

fn all(volume: &Volume) -> Vec<u8> {
    let mut bytes = vec![0xcc; volume.size() as usize];
    volume.read_slice(0, &mut bytes).unwrap();
    bytes
}

fn names(volume: &Volume, name: &str) -> u64 {
    std::fs::metadata(volume.dir().join(name)).unwrap().nlink()
}

fn flip(path: &Path, byte: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut found = [0];
    file.read_exact_at(&mut found, byte).unwrap();
    file.write_all_at(&[found[0] ^ 0x10], byte).unwrap();
}

#[derive(Debug, Clone)]
enum Op {
    Write(usize, u64, usize, u8),
    Zero(usize, u64, usize, bool),
    Flush(usize),
    Grow(usize, u64),
    Copy(usize, bool),
    Destroy(usize),
    Reopen(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (which, at) = (0usize..64, 0..SIZE);
    let len = prop_oneof![1usize..9000, (SEGMENT as usize - 600)..(SEGMENT as usize + 600)];
    prop_oneof![
        8 => (which.clone(), at.clone(), len.clone(), 1u8..).prop_map(|(v, a, l, b)| Op::Write(v, a, l, b)),
        2 => (which.clone(), at, len, any::<bool>()).prop_map(|(v, a, l, u)| Op::Zero(v, a, l, u)),
        1 => which.clone().prop_map(Op::Flush),
        1 => (which.clone(), SIZE..SIZE + 2 * SEGMENT).prop_map(|(v, s)| Op::Grow(v, s)),
        3 => (which.clone(), any::<bool>()).prop_map(|(v, r)| Op::Copy(v, r)),
        2 => which.clone().prop_map(Op::Destroy),
        1 => which.prop_map(Op::Reopen),
    ]
}

/// The volumes there are, each with what it should hold.
struct Family {
    parent: tempfile::TempDir,
    all: Vec<(Arc<Volume>, Vec<u8>)>,
    made: usize,
}

impl Family {
    fn apply(&mut self, op: &Op) {
        let count = self.all.len();
        match *op {
            Op::Write(which, at, len, byte) => {
                let (volume, model) = &mut self.all[which % count];
                let len = len.min(model.len() - at as usize);
                let written = volume.write_slice(at, &vec![byte; len]);
                assert_eq!(written.is_ok(), !volume.read_only());
                if written.is_ok() {
                    model[at as usize..][..len].fill(byte);
                }
            }
            Op::Zero(which, at, len, unmap) => {
                let (volume, model) = &mut self.all[which % count];
                let len = len.min(model.len() - at as usize);
                if volume.write_zeroes(at, len as u64, unmap).is_ok() {
                    model[at as usize..][..len].fill(0);
                }
            }
            Op::Flush(which) => {
                let volume = &self.all[which % count].0;
                volume.flush().and_then(|()| volume.clean()).unwrap();
            }
            Op::Grow(which, size) => {
                let (volume, model) = &mut self.all[which % count];
                volume.grow(size).unwrap();
                model.resize(volume.size() as usize, 0);
            }
            Op::Copy(which, read_only) if count < 8 => {
                self.made += 1;
                let (volume, model) = &self.all[which % count];
                let copied = (copy(volume, &format!("v{}", self.made), read_only), model.clone());
                self.all.push(copied);
            }
            Op::Copy(..) => {}
            Op::Destroy(which) if count > 1 => {
                let (volume, _) = self.all.swap_remove(which % count);
                std::fs::remove_dir_all(volume.dir()).unwrap();
            }
            Op::Destroy(_) => {}
            Op::Reopen(which) => {
                let volume = &mut self.all[which % count].0;
                *volume = Arc::new(Volume::open(volume.dir()).unwrap());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn copies_of_copies_are_volumes_of_their_own(ops in proptest::collection::vec(op(), 1..80)) {
        let parent = tempfile::tempdir().unwrap();
        let first = make(parent.path(), "v0");
        let mut family = Family { all: vec![(first, vec![0; SIZE as usize])], parent, made: 0 };
        for op in &ops {
            family.apply(op);
        }
        for (volume, model) in &family.all {
            for volume in [volume, &Arc::new(Volume::open(volume.dir()).unwrap())] {
                prop_assert!(all(volume) == *model, "{}", volume.dir().display());
                prop_assert_eq!(volume.findings(), Findings::default());
            }
        }
        prop_assert!(family.parent.path().exists());
    }
}

#[test]
fn a_copy_is_links_until_somebody_writes_and_the_last_one_writes_in_place() {
    let parent = tempfile::tempdir().unwrap();
    let a = make(parent.path(), "a");
    assert_eq!(a.manifest().format, VOLUME_FORMAT);
    assert_eq!(copy(&a, "empty", false).manifest().format, VOLUME_FORMAT_SHARED);
    a.write_slice(0, &[1; 100]).unwrap();
    a.write_slice(SEGMENT, &[1; 100]).unwrap();
    let b = copy(&a, "b", false);
    assert_eq!((a.manifest().format, b.manifest().format), (VOLUME_FORMAT_GUARDED, VOLUME_FORMAT_GUARDED));
    assert_eq!(Volume::open(a.dir()).unwrap().manifest().format, VOLUME_FORMAT_GUARDED);
    let shared =
        |v: &Volume| ["seg-00000000", "sum-00000000", "seg-00000001", "sum-00000001"].map(|n| names(v, n));
    assert_eq!((shared(&a), shared(&b)), ([2; 4], [2; 4]));
    let inode = |v: &Volume| std::fs::metadata(v.dir().join("seg-00000000")).unwrap().ino();
    let before = inode(&b);
    a.write_slice(50, &[2; 10]).unwrap();
    assert_eq!((shared(&a), shared(&b)), ([1, 1, 2, 2], [1, 1, 2, 2]));
    b.write_slice(0, &[3; 10]).unwrap();
    assert_eq!(inode(&b), before, "it has the file for itself");
    assert_eq!((all(&a)[..100].to_vec(), all(&b)[..20].to_vec()), {
        let mut a = vec![1; 100];
        a[50..60].fill(2);
        (a, [[3; 10], [1; 10]].concat())
    });
    std::fs::remove_dir_all(a.dir()).unwrap();
    assert_eq!(shared(&b), [1; 4]);
}

#[test]
fn a_volume_without_sums_is_copied_and_not_linked() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("old");
    std::fs::create_dir(&dir).unwrap();
    let manifest = Manifest {
        format: VOLUME_FORMAT_UNSUMMED,
        segment_size: SEGMENT,
        ..Manifest::new("old", SIZE, false)
    };
    write_manifest(&dir, &manifest).unwrap();
    std::fs::write(dir.join("seg-00000001"), [7; 5000]).unwrap();
    let old = Volume::open(&dir).unwrap();
    let new = copy(&old, "new", false);
    assert_eq!((names(&new, "seg-00000001"), new.manifest().format), (1, VOLUME_FORMAT_UNSUMMED));
    old.write_slice(SEGMENT, &[8; 100]).unwrap();
    assert_eq!(all(&new)[SEGMENT as usize..][..5000], [7; 5000]);
}

fn copy_file(from: PathBuf, to: PathBuf) {
    std::fs::copy(from, to).unwrap();
}

/// The steps in which a segment's files are replaced, each of them a place to die.
fn steps(dir: &Path) -> Vec<Box<dyn Fn() + '_>> {
    let at = move |name: &str| dir.join(name);
    vec![
        Box::new(move || std::fs::write(at("seg-00000000.new"), b"half of it").unwrap()),
        Box::new(move || copy_file(at("seg-00000000"), at("seg-00000000.new"))),
        Box::new(move || copy_file(at("sum-00000000"), at("sum-00000000.new"))),
        Box::new(move || std::fs::hard_link(at("seg-00000000"), at("seg-00000000.old")).unwrap()),
        Box::new(move || std::fs::rename(at("seg-00000000.new"), at("seg-00000000")).unwrap()),
        Box::new(move || std::fs::hard_link(at("sum-00000000"), at("sum-00000000.old")).unwrap()),
        Box::new(move || std::fs::rename(at("sum-00000000.new"), at("sum-00000000")).unwrap()),
        Box::new(move || std::fs::remove_file(at("seg-00000000.old")).unwrap()),
    ]
}

#[test]
fn whatever_step_a_process_dies_at_nothing_is_mixed_up() {
    for died_after in 0..=8 {
        let parent = tempfile::tempdir().unwrap();
        let a = make(parent.path(), "a");
        a.write_slice(0, &[1; 3 * BLOCK as usize]).unwrap();
        let b = copy(&a, "b", true);
        let dir: PathBuf = a.dir().into();
        drop(a);
        steps(&dir).iter().take(died_after).for_each(|step| step());
        let a = Volume::open(&dir).unwrap();
        let left = std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|n| n.ends_with(".new") || n.ends_with(".old")).collect();
        assert_eq!(left, Vec::<String>::new(), "after {died_after}");
        assert_eq!(all(&a)[..3 * BLOCK as usize], [1; 3 * BLOCK as usize]);
        a.write_slice(BLOCK, &[2; BLOCK as usize]).unwrap();
        for a in [a, Volume::open(&dir).unwrap()] {
            assert_eq!(all(&a)[BLOCK as usize - 1..][..3], [1, 2, 2], "after {died_after}");
            assert_eq!(a.findings(), Findings::default());
        }
        for b in [&*b, &Volume::open(b.dir()).unwrap()] {
            assert_eq!(all(b)[..3 * BLOCK as usize], [1; 3 * BLOCK as usize], "after {died_after}");
            assert_eq!(b.findings(), Findings::default());
        }
    }
}

#[test]
fn a_sum_is_made_right_for_one_and_stays_for_the_others() {
    let parent = tempfile::tempdir().unwrap();
    let a = make(parent.path(), "a");
    a.write_slice(0, &[1; 3 * BLOCK as usize]).unwrap();
    let dir: PathBuf = a.dir().into();
    drop(a);
    // Killed between a block and its sum; its area has a mark, and so has that of the copy.
    flip(&dir.join("seg-00000000"), 0);
    flip(&dir.join("seg-00000000"), 2 * BLOCK);
    let a = Arc::new(Volume::open(&dir).unwrap());
    let b = copy(&a, "b", true);
    let sums = std::fs::read(b.dir().join("sum-00000000")).unwrap();
    assert_eq!(all(&a)[0], 1 ^ 0x10);
    assert_eq!((a.findings().mended, names(&b, "sum-00000000")), (2, 1));
    assert_ne!(std::fs::read(a.dir().join("sum-00000000")).unwrap(), sums);
    assert_eq!(std::fs::read(b.dir().join("sum-00000000")).unwrap(), sums);
    assert_eq!(all(&b)[0], 1 ^ 0x10, "what is marked is taken as it is");
    // What nobody has read is made right before the mark goes, in files of its own too.
    let c = copy(&b, "c", false);
    for _ in 0..3 {
        c.flush().and_then(|()| c.clean()).unwrap();
    }
    assert_eq!((c.findings().mended, std::fs::read(b.dir().join("sum-00000000")).unwrap()), (2, sums));
    assert_eq!(all(&Volume::open(c.dir()).unwrap())[0], 1 ^ 0x10);
}

#[test]
fn who_fills_an_image_leaves_what_was_made_of_it_alone() {
    let parent = tempfile::tempdir().unwrap();
    let first = make(parent.path(), "first");
    first.write_slice(0, &[1; 8192]).unwrap();
    let image = copy(&first, "image", true);
    let filler = image.to_fill().unwrap();
    assert!(Arc::ptr_eq(&filler, &image.to_fill().unwrap()), "one at a time");
    filler.write_slice(0, &[2; 4096]).unwrap();
    assert_eq!(all(&image)[..8192], *[[2; 4096], [1; 4096]].as_flattened(), "its readers see it");
    let root = copy(&image, "root", false);
    filler.write_slice(4096, &[3; 4096]).unwrap();
    assert_eq!(all(&root)[..8192], *[[2; 4096], [1; 4096]].as_flattened());
    assert_eq!(all(&image)[..8192], *[[2; 4096], [3; 4096]].as_flattened());
    assert_eq!(all(&first)[..8192], [1; 8192]);
}

/// Writes the same growing number to a block of each segment, one after the other.
fn count_up(volume: &Volume, number: u64) {
    for segment in 0..3 {
        volume.write_slice(segment * SEGMENT + BLOCK, &number.to_le_bytes()).unwrap();
    }
}

fn counts(volume: &Volume) -> Vec<u64> {
    let bytes = all(volume);
    let at = |segment: u64| (segment * SEGMENT + BLOCK) as usize;
    (0..3).map(|s| u64::from_le_bytes(bytes[at(s)..][..8].try_into().unwrap())).collect()
}

#[test]
fn volumes_that_share_files_are_written_copied_and_destroyed_at_once() {
    const COPIES: usize = 25;
    let parent = tempfile::tempdir().unwrap();
    let a = make(parent.path(), "a");
    count_up(&a, 1);
    let (ended, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (a, ended, written) = (&a, &ended, &written);
        // Threads that meet in the same segments.
        scope.spawn(move || {
            for number in 2.. {
                count_up(a, number);
                written.store(number, SeqCst);
                if ended.load(SeqCst) {
                    return;
                }
            }
        });
        scope.spawn(move || {
            let mut seen = counts(a);
            while !ended.load(SeqCst) {
                a.write_slice(8 * BLOCK, &[9; 700]).unwrap();
                a.write_zeroes(SEGMENT + 8 * BLOCK, 9000, true).unwrap();
                a.flush().and_then(|()| a.clean()).unwrap();
                let now = counts(a);
                assert!(now.iter().zip(&seen).all(|(now, seen)| now >= seen), "{now:?} after {seen:?}");
                seen = now;
            }
        });
        let copier = scope.spawn(move || {
            for number in 0..COPIES {
                let least = written.load(SeqCst);
                let snapshot = copy(a, &format!("s{number}"), true);
                let found = counts(&snapshot);
                // As of one moment: the number goes through the segments in order.
                assert!(found.is_sorted_by(|x, y| x >= y) && found[0] <= found[2] + 1, "{found:?}");
                assert!(found[2] >= least, "{found:?}, {least} was written before");
                // Two who share files leave them at the same time.
                let clones = ["c", "d"].map(|c| copy(&snapshot, &format!("{c}{number}"), false));
                std::thread::scope(|scope| {
                    for (clone, value) in clones.iter().zip([1 << 40, 1 << 41]) {
                        scope.spawn(move || count_up(clone, value));
                    }
                });
                assert_eq!((counts(&clones[0]), counts(&clones[1])), (vec![1 << 40; 3], vec![1 << 41; 3]));
                assert_eq!(counts(&snapshot), found);
                for volume in [&clones[0], &clones[1], &snapshot] {
                    assert_eq!(volume.findings(), Findings::default());
                }
                let kept = [&clones[number % 2], &snapshot][number % 2];
                std::fs::remove_dir_all(kept.dir()).unwrap();
            }
        });
        let copied = copier.join();
        ended.store(true, SeqCst);
        copied.unwrap();
    });
    assert_eq!((counts(&a), a.findings()), (vec![written.load(SeqCst); 3], Findings::default()));
}
