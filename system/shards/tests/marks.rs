//! Marks as they are on the disk: those of earlier releases count and are taken over, and what is not what was written
//! counts as marked, until it has been looked at. Manifests and promises that are not what was written are refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_shards::format::{Manifest, VOLUME_FORMAT, VOLUME_FORMAT_GUARDED, VOLUME_FORMAT_SHARED};
use cairn_shards::format::{VOLUME_FORMAT_GUARDED_UNSUMMED, VOLUME_FORMAT_UNSUMMED};
use cairn_shards::replication::op::Op;
use cairn_shards::replication::regions::AREA;
use cairn_shards::replication::replica::Replica;
use cairn_shards::volume::{Volume, write_manifest};

/// Six areas.
const SIZE: u64 = 96 << 20;
const PLAIN: &[u8] = include_bytes!("fixtures/areas-3");
const GUARDED: &[u8] = include_bytes!("fixtures/marks-4");

/// The directory of a replica of this format, in which a writer has begun.
fn directory(parent: &Path, format: u32) -> PathBuf {
    let dir = parent.join("v1");
    std::fs::create_dir(&dir).unwrap();
    write_manifest(&dir, &Manifest { format, ..Manifest::new("v1", SIZE, false) }).unwrap();
    std::fs::write(dir.join("replica.json"), r#"{"format":1,"epoch":1,"boot":"boot"}"#).unwrap();
    dir
}

fn open(dir: &Path) -> (Replica, u64, Vec<u64>) {
    let replica = Replica::open(Arc::new(Volume::open(dir).unwrap()), "boot").unwrap();
    let (session, opened) = replica.begin(1, SIZE).unwrap();
    (replica, session, opened.areas)
}

fn write(area: u64) -> Op {
    Op::Write { offset: area * AREA + 5, data: vec![7; 100].into() }
}

fn format_of(dir: &Path) -> u32 {
    Volume::open(dir).unwrap().manifest().format
}

#[test]
fn marks_of_earlier_releases_count_and_are_taken_over_with_the_next() {
    for (before, after) in [
        (VOLUME_FORMAT_UNSUMMED, VOLUME_FORMAT_GUARDED_UNSUMMED),
        (VOLUME_FORMAT, VOLUME_FORMAT_GUARDED),
        (VOLUME_FORMAT_SHARED, VOLUME_FORMAT_GUARDED),
    ] {
        let parent = tempfile::tempdir().unwrap();
        let dir = directory(parent.path(), before);
        std::fs::write(dir.join("areas"), PLAIN).unwrap();
        let (replica, session, areas) = open(&dir);
        assert_eq!((areas, format_of(&dir)), (vec![0, 2], before), "looking changes nothing");
        replica.apply(session, 1, &write(4)).unwrap();
        drop(replica);
        assert_eq!((open(&dir).2, format_of(&dir)), (vec![0, 2, 4], after));
        assert!(!dir.join("areas").exists());
        // A crash before it was removed: both count, until the next mark.
        std::fs::write(dir.join("areas"), [2]).unwrap();
        let (replica, session, areas) = open(&dir);
        assert_eq!(areas, [0, 1, 2, 4]);
        replica.apply(session, 1, &write(5)).unwrap();
        drop(replica);
        assert!(!dir.join("areas").exists());
        let (replica, session, areas) = open(&dir);
        assert_eq!(areas, [0, 1, 2, 4, 5]);
        replica.apply(session, 1, &Op::Settle { keep: vec![1] }).unwrap();
        drop(replica);
        assert_eq!(open(&dir).2, [1]);
    }
}

#[test]
fn the_form_of_marks_stays_readable() {
    let parent = tempfile::tempdir().unwrap();
    let dir = directory(parent.path(), VOLUME_FORMAT_GUARDED);
    std::fs::write(dir.join("marks"), GUARDED).unwrap();
    let (replica, _, areas) = open(&dir);
    assert_eq!((areas, replica.volume().findings().corrupt), (vec![0, 2], 0));
}

#[test]
fn marks_that_are_damaged_are_all_set_until_they_were_looked_at() {
    let parent = tempfile::tempdir().unwrap();
    let dir = directory(parent.path(), VOLUME_FORMAT);
    let (replica, session, _) = open(&dir);
    replica.apply(session, 1, &write(3)).unwrap();
    drop(replica);
    let file = dir.join("marks");
    let whole = std::fs::read(&file).unwrap();
    let all: Vec<u64> = (0..SIZE / AREA).collect();
    // That each is noticed is tested where marks are read; here, what comes of it.
    for bit in (0..whole.len() * 8).step_by(97) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, bytes).unwrap();
        let (replica, _, areas) = open(&dir);
        assert_eq!((areas, replica.volume().findings().corrupt), (all.clone(), 1), "bit {bit}");
    }
    let (replica, session, _) = open(&dir);
    replica.apply(session, 1, &Op::Settle { keep: vec![] }).unwrap();
    drop(replica);
    let (replica, _, areas) = open(&dir);
    assert_eq!((areas, replica.volume().findings().corrupt), (vec![], 0), "it is whole again");
}

#[test]
fn a_volume_that_grows_has_marks_of_all_it_has() {
    let parent = tempfile::tempdir().unwrap();
    let dir = directory(parent.path(), VOLUME_FORMAT);
    let (replica, session, _) = open(&dir);
    replica.apply(session, 1, &write(3)).unwrap();
    // More than a block of marks is of.
    replica.apply(session, 2, &Op::Grow(100 << 30)).unwrap();
    drop(replica);
    assert_eq!(open(&dir).2, [3]);
    let (replica, session, _) = open(&dir);
    replica.apply(session, 1, &write(5000)).unwrap();
    drop(replica);
    let (replica, _, areas) = open(&dir);
    assert_eq!((areas, replica.volume().findings().corrupt), (vec![3, 5000], 0));
}

#[test]
fn a_manifest_or_a_promise_that_is_not_what_was_written_is_refused() {
    for (name, written, other) in
        [("manifest.json", "100663296", "100663808"), ("replica.json", r#""epoch":7"#, r#""epoch":3"#)]
    {
        let parent = tempfile::tempdir().unwrap();
        let dir = directory(parent.path(), VOLUME_FORMAT_GUARDED);
        let (replica, ..) = open(&dir);
        replica.begin(7, SIZE).unwrap();
        drop(replica);
        let opens = || Volume::open(&dir).and_then(|v| Replica::open(Arc::new(v), "boot")).is_ok();
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(opens() && text.contains(written), "{name}: {text}");
        std::fs::write(dir.join(name), text.replace(written, other)).unwrap();
        assert!(!opens(), "{name}");
    }
}
