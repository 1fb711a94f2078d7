//! What a replica that was away gets when it is back: what it missed, whoever writes by then; all, if it was made anew.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cairn_shards::model::{Phase, VolumeSpec};
use cairn_shards::volumes;

use crate::cloud::Cloud;
use crate::common::front_end::*;
use crate::{ALL, assert_alike, connected, export, finish, guest};

const MIB: u64 = 1 << 20;
/// Bytes of the volume: many areas.
const SIZE: u64 = 256 * MIB;

/// Writes a block at each of these MiB, and flushes.
pub fn write(guest: &mut Guest, stamp: u8, at: impl Iterator<Item = u64>) {
    for mib in at {
        assert_eq!(finish(guest, OUT, mib * MIB / 512, &Data::Out(&[stamp; 4096])), 0);
    }
    assert_eq!(finish(guest, FLUSH, 0, &Data::None), 0);
}

pub async fn until(what: &str, f: impl Fn() -> bool) {
    for _ in 0..1200 {
        if f() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within a minute");
}

fn has_no_marks(volume: &Path) -> bool {
    // Of one block; before the bits are its sum and its number.
    std::fs::read(volume.join("marks")).is_ok_and(|block| block[8..].iter().all(|byte| *byte == 0))
}

/// A volume with something in each MiB, of which nothing is marked.
pub async fn filled(cloud: &Cloud, places: &[&str], dirs: &[PathBuf]) -> (PathBuf, Guest) {
    filled_of(SIZE, cloud, places, dirs).await
}

async fn filled_of(size: u64, cloud: &Cloud, places: &[&str], dirs: &[PathBuf]) -> (PathBuf, Guest) {
    cloud.change(|tx| volumes::create(tx, VolumeSpec::new("v1", "a", size))).await;
    cloud.until_status("v1", |s| s.phase == Phase::Ready).await;
    let (_, socket) = export(cloud, "v1", "a").await;
    let there = socket.clone();
    let g = guest(move || {
        let mut g = connected(&there);
        write(&mut g, 1, 0..size / MIB);
        g
    })
    .await;
    cloud.until_in_sync("v1", places).await;
    for dir in dirs {
        until("marks are cleared", || has_no_marks(dir)).await;
    }
    (socket, g)
}

/// Checks which stamp a block at each of these MiB has.
pub fn assert_written(guest: &mut Guest, found: &[(u64, u8)]) {
    for (mib, stamp) in found {
        assert_eq!(finish(guest, IN, mib * MIB / 512, &Data::In(4096)), 0);
        assert!(guest.data(0, 4096).iter().all(|b| b == stamp), "MiB {mib}, stamp {stamp}");
    }
}

fn dirs(cloud: &Cloud) -> [PathBuf; 3] {
    ALL.map(|node| cloud.site(node).volume("v1"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_writer_that_begins_during_an_absence_rebuilds_what_was_missed() {
    let mut cloud = Cloud::started(&ALL).await;
    let (socket, mut g) = filled(&cloud, &ALL, &dirs(&cloud)).await;
    cloud.stop("b").await;
    g = guest(move || {
        write(&mut g, 2, [3, 100].into_iter());
        g
    })
    .await;
    cloud.until_in_sync("v1", &["a", "c"]).await;
    // Marks have gone, and what they said is kept.
    for node in ["a", "c"] {
        until("it is kept", || has_no_marks(&cloud.site(node).volume("v1"))).await;
        assert!(cloud.site(node).volume("v1").join("absence").exists(), "{node}");
    }
    drop(g);
    cloud.stop("a").await;
    cloud.start("a").await;
    let g = guest(move || {
        let mut g = connected(&socket);
        write(&mut g, 3, [200].into_iter());
        g
    })
    .await;
    cloud.start("b").await;
    cloud.until_in_sync("v1", &ALL).await;
    assert_alike(&cloud, "v1", &ALL);
    let status = cloud.until_status("v1", |s| s.rebuilt > 0).await;
    assert_eq!(status.rebuilt, 3 * 4096, "each block that was missed, and no more");
    assert!(status.compared <= 3 * 16 * MIB, "compared {} of {SIZE}", status.compared);
    drop(g);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_was_lost_while_it_was_away_is_made_anew_in_full() {
    let mut cloud = Cloud::started(&ALL).await;
    let (_, mut g) = filled(&cloud, &ALL, &dirs(&cloud)).await;
    cloud.stop("b").await;
    g = guest(move || {
        write(&mut g, 2, [3].into_iter());
        g
    })
    .await;
    cloud.until_in_sync("v1", &["a", "c"]).await;
    // Something of the agent that was stopped may still be at work there.
    until("it is lost", || std::fs::remove_dir_all(cloud.site("b").volume("v1")).is_ok()).await;
    cloud.start("b").await;
    cloud.until_in_sync("v1", &ALL).await;
    assert_alike(&cloud, "v1", &ALL);
    drop(g);
}

/// Bytes that went over the loopback, by all who use it.
fn sent() -> u64 {
    let all = std::fs::read_to_string("/proc/net/dev").unwrap();
    let of = all.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
    of.split_whitespace().next().unwrap().parse().unwrap()
}

/// Writes blocks for a minute, somewhere in the first 256 MiB; answers how many.
fn write_for_a_minute(guest: &mut Guest) -> u64 {
    let (begun, mut count, mut place) = (Instant::now(), 0, 1u64);
    while begun.elapsed() < Duration::from_secs(60) {
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let sector = (place >> 33) % (SIZE / 4096) * 8;
        assert_eq!(finish(guest, OUT, sector, &Data::Out(&[2; 4096])), 0);
        count += 1;
        if count % 100 == 0 {
            assert_eq!(finish(guest, FLUSH, 0, &Data::None), 0);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    count
}

/// Figures for people. In a network namespace of its own nothing else is on the loopback.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "a minute and more; run by `cargo test -p cairn-shards --test replicated away_for -- --ignored --nocapture`"]
async fn a_node_that_was_away_for_a_minute_gets_what_it_missed() {
    let size = 4096 * MIB;
    let mut cloud = Cloud::started(&ALL).await;
    let (_, mut g) = filled_of(size, &cloud, &ALL, &dirs(&cloud)).await;
    cloud.stop("b").await;
    let (g, count) = guest(move || {
        let count = write_for_a_minute(&mut g);
        (g, count)
    })
    .await;
    cloud.until_in_sync("v1", &["a", "c"]).await;
    let (before, begun) = (sent(), Instant::now());
    cloud.start("b").await;
    cloud.until_in_sync("v1", &ALL).await;
    let (took, sent) = (begun.elapsed(), sent() - before);
    let status = cloud.until_status("v1", |s| s.rebuilt > 0).await;
    println!(
        "volume {} MiB; written meanwhile {count} blocks of 4 KiB, {} MiB; compared {} MiB, rebuilt {} MiB, sent {} MiB (all on the \
         loopback), in sync after {:.1} s",
        size / MIB,
        count * 4096 / MIB,
        status.compared / MIB,
        status.rebuilt / MIB,
        sent / MIB,
        took.as_secs_f64()
    );
    assert_alike(&cloud, "v1", &ALL);
    assert!(status.compared <= SIZE && status.rebuilt <= count * 4096, "{status:?}");
    drop(g);
}
