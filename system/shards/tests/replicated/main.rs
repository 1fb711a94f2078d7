//! Volumes on several nodes, over real connections and disks: what a guest flushed is there, whichever node is lost.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "../common/mod.rs"]
mod common;

mod absence;
mod cloud;
mod disks;
mod encrypted;
mod filling;
mod full;
mod moved;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use cairn_shards::conductor::{self, Absent, Nodes};
use cairn_shards::model::{Phase, VolumeSpec, VolumeStatus};
use cairn_shards::replication::set::ReplicaSet;
use cairn_shards::volumes;
use cloud::Cloud;
use common::front_end::*;

const SIZE: u64 = 24 << 20;
const ALL: [&str; 3] = ["a", "b", "c"];

/// Does what a guest does, on a thread that may block.
async fn guest<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(f).await.unwrap()
}

fn connected(socket: &Path) -> Guest {
    let until = Instant::now() + Duration::from_secs(60);
    let mut guest = Guest::new().keeping(); // as QEMU is
    while guest.connect(socket).is_err() {
        assert!(Instant::now() < until, "nobody serves");
        std::thread::sleep(Duration::from_millis(50));
    }
    guest
}

/// Writes a stamp into every slot of the volume's beginning, then flushes.
fn stamp(guest: &mut Guest, stamp: u8) {
    for slot in 0..SLOTS {
        guest.submit(slot, OUT, sector(slot), &Data::Out(&[stamp; 4096]));
    }
    guest.kick();
    wait(guest, usize::from(SLOTS));
    assert!((0..SLOTS).all(|slot| guest.status(slot) == 0), "stamp {stamp}");
    assert_eq!(finish(guest, FLUSH, 0, &Data::None), 0, "stamp {stamp}");
}

/// Slots lie far apart: in regions and areas of their own.
fn sector(slot: u16) -> u64 {
    u64::from(slot) * (SIZE / u64::from(SLOTS) / 4096 * 4096) / 512
}

/// Like [`Guest::wait`], with the patience that a lost node needs.
fn wait(guest: &mut Guest, count: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    let mut done = 0;
    while done < count {
        done += guest.completed().len();
        assert!(Instant::now() < until, "{done} of {count} requests completed");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn finish(guest: &mut Guest, kind: u32, sector: u64, data: &Data<'_>) -> u8 {
    guest.submit(0, kind, sector, data);
    guest.kick();
    wait(guest, 1);
    guest.status(0)
}

fn assert_stamped(guest: &mut Guest, stamp: u8) {
    for slot in 0..SLOTS {
        assert_eq!(finish(guest, IN, sector(slot), &Data::In(4096)), 0);
        assert!(guest.data(0, 4096).iter().all(|b| *b == stamp), "slot {slot}, stamp {stamp}");
    }
}

async fn volume(cloud: &Cloud, id: &str, home: &str) {
    cloud.change(|tx| volumes::create(tx, VolumeSpec::new(id, home, SIZE))).await;
    cloud.until_status(id, |s| s.phase == Phase::Ready).await;
}

async fn export(cloud: &Cloud, id: &str, node: &str) -> (u64, PathBuf) {
    let epoch = cloud.change(|tx| volumes::export(tx, id, node, &format!("server-on-{node}"))).await;
    (epoch, cloud.socket(id, epoch).await)
}

fn assert_alike(cloud: &Cloud, id: &str, nodes: &[&str]) {
    let first = cloud.site(nodes[0]).content(id);
    for node in &nodes[1..] {
        assert!(cloud.site(node).content(id) == first, "{node} differs from {}", nodes[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_one_node_may_be_lost() {
    let mut cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "a").await;
    let (_, socket) = export(&cloud, "v1", "a").await;
    let mut g = guest(move || {
        let mut g = connected(&socket);
        stamp(&mut g, 1);
        g
    })
    .await;
    assert_alike(&cloud, "v1", &ALL);

    // Another node is lost: the guest goes on, and the store knows who has what it wrote.
    cloud.stop("b").await;
    g = guest(move || {
        stamp(&mut g, 2);
        g
    })
    .await;
    cloud.until_in_sync("v1", &["a", "c"]).await;
    cloud.start("b").await;
    g = guest(move || {
        stamp(&mut g, 3);
        g
    })
    .await;
    cloud.until_in_sync("v1", &ALL).await;
    assert_alike(&cloud, "v1", &ALL);

    // The guest's own node is lost: it starts elsewhere with all that was flushed.
    cloud.stop("a").await;
    drop(g);
    let (_, socket) = export(&cloud, "v1", "c").await;
    let g = guest(move || {
        let mut g = connected(&socket);
        assert_stamped(&mut g, 3);
        stamp(&mut g, 4);
        g
    })
    .await;
    cloud.until_in_sync("v1", &["b", "c"]).await;
    cloud.start("a").await;
    cloud.until_in_sync("v1", &ALL).await;
    assert_alike(&cloud, "v1", &ALL);
    drop(g);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_guest_that_never_rests_loses_nothing_while_nodes_are_killed() {
    let mut cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "a").await;
    let (_, socket) = export(&cloud, "v1", "a").await;
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let (mut g, mut last) = (connected(&socket), 0);
        while last == 0 || !end.load(SeqCst) {
            last = last % 250 + 1;
            stamp(&mut g, last);
        }
        last
    });
    for nodes in [&["b"][..], &["c"], &["b", "c"]] {
        for node in nodes {
            cloud.stop(node).await;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        for node in nodes {
            cloud.start(node).await;
        }
        cloud.until_in_sync("v1", &ALL).await;
    }
    ended.store(true, SeqCst);
    let last = writing.await.unwrap();
    cloud.stop("a").await;
    let (_, socket) = export(&cloud, "v1", "b").await;
    guest(move || assert_stamped(&mut connected(&socket), last)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_volume_gets_replicas_under_its_guest_and_is_served_where_none_is() {
    let mut cloud = Cloud::new(&["a", "b", "c", "d"]);
    cloud.start("a").await;
    volume(&cloud, "v1", "a").await;
    let (_, socket) = export(&cloud, "v1", "a").await;
    let mut g = guest(move || {
        let mut g = connected(&socket);
        stamp(&mut g, 1);
        g
    })
    .await;
    assert_eq!(cloud.store.read(|tx| tx.get::<ReplicaSet>("v1")).unwrap(), None);

    for node in ["b", "c"] {
        cloud.start(node).await;
    }
    let nodes = Nodes { alive: ALL.iter().map(|n| (*n).to_owned()).collect(), ..Nodes::default() };
    for _ in 0..3 {
        conductor::pass(&cloud.store, &nodes, &Absent::default()).await.unwrap();
        g = guest(move || {
            stamp(&mut g, 2);
            g
        })
        .await;
    }
    cloud.until_in_sync("v1", &ALL).await;
    assert_alike(&cloud, "v1", &ALL);
    drop(g);

    cloud.start("d").await;
    let (_, socket) = export(&cloud, "v1", "d").await;
    guest(move || {
        let mut g = connected(&socket);
        assert_stamped(&mut g, 2);
        stamp(&mut g, 5);
    })
    .await;
    assert_alike(&cloud, "v1", &ALL);
    assert!(!cloud.site("d").volume("v1").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_volume_moves_with_its_guest_is_cloned_and_goes() {
    let cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "a").await;
    let (_, socket) = export(&cloud, "v1", "a").await;
    let source = guest(move || {
        let mut g = connected(&socket);
        stamp(&mut g, 1);
        g
    })
    .await;
    cloud.change(|tx| volumes::begin_move(tx, "v1", "b")).await;
    let there = cloud.until_prepared("v1", "b").await;
    let target = guest(move || connected(&there)).await;
    // The guest pauses there, and runs here.
    drop(source);
    let epoch = cloud.change(|tx| volumes::finish_move(tx, "v1", "b")).await;
    let mut g = guest(move || {
        let mut g = target;
        assert_stamped(&mut g, 1);
        stamp(&mut g, 2);
        g
    })
    .await;
    assert_eq!(cloud.until_status("v1", |s| s.epoch == epoch).await.node, "b");

    // A clone of a volume in use has what was flushed, on every node.
    let clone = VolumeSpec { source: Some("v1".into()), ..VolumeSpec::new("v2", "b", SIZE) };
    cloud.change(|tx| volumes::create(tx, clone.clone())).await;
    cloud.until_status("v2", |s| s.phase == Phase::Ready).await;
    g = guest(move || {
        stamp(&mut g, 3);
        g
    })
    .await;
    cloud.until_in_sync("v2", &ALL).await;
    assert_alike(&cloud, "v2", &ALL);
    let (_, socket) = export(&cloud, "v2", "c").await;
    guest(move || assert_stamped(&mut connected(&socket), 2)).await;
    drop(g);

    for id in ["v1", "v2"] {
        cloud.change(|tx| volumes::delete(tx, id)).await;
        cloud.until_status(id, |s| s.phase == Phase::Gone).await;
        assert!(cloud.change(|tx| volumes::purge_if_gone(tx, id)).await);
        assert!(ALL.iter().all(|n| !cloud.site(n).volume(id).exists()), "{id}");
    }
    let left = cloud.store.read(|tx| tx.list::<VolumeStatus>()).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// Flips a bit of a slot on a node's disk.
fn flip(cloud: &Cloud, node: &str, slot: u16) {
    let path = cloud.site(node).volume("v1").join("seg-00000000");
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let (at, mut byte) = (sector(slot) * 512 + 100, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn is_stored(cloud: &Cloud, node: &str, slot: u16, stamp: u8) -> bool {
    let file = std::fs::File::open(cloud.site(node).volume("v1").join("seg-00000000")).unwrap();
    let mut bytes = [0; 4096];
    file.read_exact_at(&mut bytes, sector(slot) * 512).unwrap();
    bytes == [stamp; 4096]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flipped_bit_is_read_from_another_replica_and_made_right() {
    let cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "a").await;
    let (_, socket) = export(&cloud, "v1", "a").await;
    cloud.until_in_sync("v1", &ALL).await;
    let mut g = guest(move || {
        let mut g = connected(&socket);
        stamp(&mut g, 1);
        g
    })
    .await;
    // One that the writer reads, one where the next is corrupt too, one that nobody has whole.
    for (node, slot) in [("a", 3), ("a", 5), ("b", 5), ("a", 9), ("b", 9), ("c", 9)] {
        flip(&cloud, node, slot);
    }
    g = guest(move || {
        for slot in (0..SLOTS).filter(|slot| *slot != 9) {
            assert_eq!(finish(&mut g, IN, sector(slot), &Data::In(4096)), 0);
            assert!(g.data(0, 4096).iter().all(|b| *b == 1), "slot {slot}");
        }
        assert_eq!(finish(&mut g, FLUSH, 0, &Data::None), 0);
        g
    })
    .await;
    assert!(is_stored(&cloud, "a", 3, 1) && is_stored(&cloud, "a", 5, 1), "a flush waits for what is copied");
    g = guest(move || {
        assert_eq!(finish(&mut g, IN, sector(9), &Data::In(4096)), 1);
        // The volume is as usable as it was.
        stamp(&mut g, 2);
        assert_stamped(&mut g, 2);
        g
    })
    .await;
    cloud.until_in_sync("v1", &ALL).await;
    assert_alike(&cloud, "v1", &ALL);
    assert!(ALL.iter().all(|node| is_stored(&cloud, node, 9, 2)));
    drop(g);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_writer_that_takes_over_on_a_corrupt_replica_gets_it_right_from_another() {
    let cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "b").await;
    let (_, socket) = export(&cloud, "v1", "b").await;
    cloud.until_in_sync("v1", &ALL).await;
    guest(move || stamp(&mut connected(&socket), 1)).await;
    // Areas are still marked, so the next writer compares them, and takes its own node's as the source.
    flip(&cloud, "a", 3);
    let (_, socket) = export(&cloud, "v1", "a").await;
    guest(move || assert_stamped(&mut connected(&socket), 1)).await;
    cloud.until_in_sync("v1", &ALL).await;
    assert_alike(&cloud, "v1", &ALL);
}
