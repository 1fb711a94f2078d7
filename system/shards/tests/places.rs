//! Two replicas of a volume on two disks of one node: each is found by its own name alone, and one whose disk was away
//! for a while is not taken for what it was.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::sync::Arc;

use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::replication::op::{Failure, Op};
use cairn_shards::replication::replica::Replicas;
use cairn_shards::volume::Volume;
use common::make_disk;

const SIZE: u64 = 1 << 20;

fn new(id: &str, source: Option<&str>) -> NewVolume {
    NewVolume { id: id.into(), size: SIZE, read_only: false, source: source.map(Into::into) }
}

fn pool(disks: &[&str]) -> (tempfile::TempDir, Arc<Pool>) {
    let dir = tempfile::tempdir().unwrap();
    disks.iter().for_each(|disk| drop(make_disk(dir.path(), disk)));
    let pool = Arc::new(Pool::new(dir.path(), Some("c1".into())));
    pool.scan().unwrap();
    (dir, pool)
}

fn byte(volume: &Volume) -> u8 {
    let mut byte = [0];
    volume.read_slice(0, &mut byte).unwrap();
    byte[0]
}

#[test]
fn each_disk_has_its_own_and_none_stands_for_another() {
    let (dir, pool) = pool(&["d1", "d2", "d3"]);
    let on = pool.create(&new("v", None)).unwrap().id().to_owned();
    let other = ["d1", "d2", "d3"].into_iter().find(|disk| *disk != on).unwrap();
    let (name, there) = (format!("v/{other}"), |name: &str| pool.find(name).map(|d| d.id().to_owned()));
    assert_eq!((there("v"), there(&name), there(&format!("v/{on}"))), (Some(on.clone()), None, None));
    assert!(pool.create(&new(&format!("v/{on}"), None)).is_err(), "that disk has one already");
    assert!(pool.create(&new("v/d9", None)).is_err(), "there is no such disk");
    pool.create(&new(&name, None)).unwrap();
    pool.open("v").unwrap().write_slice(0, &[1]).unwrap();
    pool.open(&name).unwrap().write_slice(0, &[2]).unwrap();
    assert_eq!((byte(&pool.open("v").unwrap()), byte(&pool.open(&name).unwrap())), (1, 2));

    // Clones are of the one that is named, on the disk that is named.
    pool.create(&new("c/d3", Some(&name))).unwrap();
    assert_eq!((byte(&pool.open("c/d3").unwrap()), there("c/d3")), (2, Some("d3".into())));

    // Without its disk the volume is not there, whatever lies on others.
    std::fs::rename(dir.path().join(&on), dir.path().join("away")).unwrap();
    std::fs::rename(dir.path().join("away/cairn-disk.json"), dir.path().join("away/hidden")).unwrap();
    pool.scan().unwrap();
    assert_eq!((there("v"), there(&name)), (None, Some(other.to_owned())));
    pool.destroy(&name).unwrap();
    assert_eq!(there(&name), None);
    assert!(dir.path().join("away/volumes/v").is_dir());
}

#[test]
fn a_replica_whose_disk_was_away_says_so_and_is_not_written_by_the_way_it_was() {
    let (dir, pool) = pool(&["d1", "d2"]);
    pool.create(&new("v/d1", None)).unwrap();
    let replicas = Replicas::new(pool.clone(), "boot");
    let before = replicas.get("v/d1").unwrap();
    let (session, _) = before.begin(1, SIZE).unwrap();
    before.apply(session, 1, &Op::Settle { keep: vec![] }).unwrap();
    before.apply(session, 2, &Op::Write { offset: 0, data: vec![1; 4096].into() }).unwrap();

    // A process that is killed has lost nothing.
    let again = Replicas::new(pool.clone(), "boot");
    let (_, opened) = again.get("v/d1").unwrap().begin(1, SIZE).unwrap();
    assert!(opened.intact && opened.areas == [0]);
    drop(again);

    let (marker, hidden) = (dir.path().join("d1/cairn-disk.json"), dir.path().join("d1/hidden"));
    std::fs::rename(&marker, &hidden).unwrap();
    pool.scan().unwrap();
    std::fs::rename(&hidden, &marker).unwrap();
    pool.scan().unwrap();
    let after = replicas.get("v/d1").unwrap();
    assert!(matches!(before.apply(session, 3, &Op::Flush), Err(Failure::Broken(_))));
    assert!(matches!(before.begin(2, SIZE), Err(Failure::Broken(_))));
    let (session, opened) = after.begin(1, SIZE).unwrap();
    assert!(!opened.intact && opened.areas == [0], "{opened:?}");
    // So it stays for the next process, until it is like the others.
    let next = Replicas::new(pool.clone(), "boot");
    assert!(!next.get("v/d1").unwrap().begin(1, SIZE).unwrap().1.intact);
    drop(next);
    after.apply(session, 4, &Op::Settle { keep: vec![0] }).unwrap();
    assert!(Replicas::new(pool, "boot").get("v/d1").is_ok());
}
