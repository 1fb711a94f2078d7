//! A disk comes to a node whose others have volumes: what lies above their share goes there, under a guest that writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use cairn_shards::balance::{self, Found, Round};
use cairn_shards::conductor::{self, Absent, Nodes};
use cairn_shards::disks;
use cairn_shards::model::{DiskStatus, Phase, ReplicaMove, VolumeSpec};
use cairn_shards::replication::fill::{self, BEGIN, Disk};
use cairn_shards::replication::set::ReplicaSet;
use cairn_shards::volumes;

use crate::absence::until;
use crate::cloud::Cloud;
use crate::common::front_end::*;
use crate::common::{make_disk, xfs};
use crate::{assert_stamped, connected, export, finish, guest, stamp, wait};

const MIB: u64 = 1 << 20;
/// Bytes of each disk; XFS leaves some 430 MiB of it.
const DISK: u64 = 512 * MIB;
/// Bytes of each volume, all of them written.
const SIZE: u64 = 32 * MIB;
const VOLUMES: [&str; 6] = ["v0", "v1", "v2", "v3", "v4", "v5"];
const BATCH: u64 = SLOTS as u64 * SLOT;

/// Writes all of a volume.
fn fill_up(guest: &mut Guest, byte: u8) {
    for batch in 0..SIZE / BATCH {
        for slot in 0..SLOTS {
            let sector = (batch * BATCH + u64::from(slot) * SLOT) / 512;
            guest.submit(slot, OUT, sector, &Data::Out(&[byte; SLOT as usize]));
        }
        guest.kick();
        wait(guest, usize::from(SLOTS));
        assert!((0..SLOTS).all(|slot| guest.status(slot) == 0));
    }
    assert_eq!(finish(guest, FLUSH, 0, &Data::None), 0);
}

impl Cloud {
    /// How full disks are.
    fn fills(&self) -> Vec<Disk> {
        let disk = |d: DiskStatus| {
            let used = d.size - self.free(&d.disk);
            Disk { used, node: d.node, disk: d.disk, size: d.size, binds: true }
        };
        self.store.read(|tx| tx.list::<DiskStatus>()).unwrap().into_iter().map(disk).collect()
    }

    fn free(&self, disk: &str) -> u64 {
        let now = nix::sys::statvfs::statvfs(self.disk(disk).as_path()).unwrap();
        now.blocks_available() * now.fragment_size()
    }

    /// Waits until what was destroyed takes no room, and disks are reported as they are.
    async fn until_true(&self) {
        let is_true = |d: &DiskStatus| {
            let is_empty =
                std::fs::read_dir(self.disk(&d.disk).join("trash")).is_ok_and(|mut t| t.next().is_none());
            is_empty && self.free(&d.disk).abs_diff(d.free) <= d.size / 400
        };
        until("disks are reported as they are", || {
            self.store.read(|tx| tx.list::<DiskStatus>()).unwrap().iter().all(is_true)
        })
        .await;
    }

    /// Lets the conductor look until it has nothing to do.
    async fn until_rest(&self, nodes: &Nodes) {
        let end = Instant::now() + Duration::from_secs(180);
        while !conductor::pass(&self.store, nodes, &Absent::default()).await.unwrap() {
            let moves = self.store.read(|tx| tx.list::<ReplicaMove>()).unwrap();
            assert!(Instant::now() < end, "not within three minutes: {moves:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Moves what is to be moved; answers the moves.
    async fn evened(&self, nodes: &Nodes) -> Vec<ReplicaMove> {
        let (mut round, mut all) = (Round::default(), Vec::new());
        self.store.read(|tx| round.ask(tx, nodes)).unwrap();
        loop {
            match self.store.transact(|tx| balance::even_out(tx, nodes, &round)).await.unwrap() {
                Found::Moves(moves) => {
                    let views = self.store.read(disks::list).unwrap();
                    let [coming, going] = [|d: &disks::DiskView| d.coming, |d: &disks::DiskView| d.going]
                        .map(|of| views.iter().map(of).sum::<usize>());
                    assert_eq!((coming, going), (moves.len(), moves.len()));
                    round.note(&moves);
                    all.extend(moves);
                }
                Found::Busy => tokio::time::sleep(Duration::from_millis(50)).await,
                Found::Even | Found::Vain => return all,
            }
            self.until_rest(nodes).await;
        }
    }
}

/// Volumes that have been written, and are known to take what they take.
async fn filled(cloud: &mut Cloud) {
    for (byte, id) in (1..).zip(VOLUMES) {
        cloud.change(|tx| volumes::create(tx, VolumeSpec::new(id, "a", SIZE))).await;
        cloud.until_status(id, |s| s.phase == Phase::Ready).await;
        let (_, socket) = export(cloud, id, "a").await;
        guest(move || fill_up(&mut connected(&socket), byte)).await;
        cloud.until_in_sync(id, &["a/disk-a", "a/disk-x"]).await;
    }
    // A process that begins reads how much volumes take, which one that runs does once in a while.
    cloud.stop("a").await;
    cloud.start("a").await;
    for id in VOLUMES {
        cloud.until_status(id, |s| s.allocated >= SIZE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[allow(clippy::print_stdout, reason = "figures for whoever asks for them")]
async fn a_third_disk_gets_its_share_of_what_is_on_two_while_a_guest_writes() {
    let Some(mut cloud) = xfs::or_skip(Cloud::mounted(&["a"], DISK).await) else { return };
    let dir = cloud.site("a").dir.path().to_owned();
    let second = xfs::Mounted::new(&dir.join("second"), &cloud.disk("disk-x"), DISK).unwrap();
    make_disk(&dir.join("disks"), "disk-x");
    cloud.until_disks(2).await;
    filled(&mut cloud).await;
    let status = cloud.until_status("v0", |s| s.socket.is_some()).await;
    let there = cloud.socket("v0", status.epoch).await;
    let (ended, socket) = (Arc::new(AtomicBool::new(false)), there.clone());
    let end = ended.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let (mut g, mut last, mut rounds) = (connected(&socket), 0, 0u64);
        while last == 0 || !end.load(SeqCst) {
            (last, rounds) = (last % 250 + 1, rounds + 1);
            stamp(&mut g, last);
        }
        (last, rounds)
    });

    let nodes = Nodes { alive: ["a".to_owned()].into(), ..Nodes::default() };
    cloud.until_rest(&nodes).await;
    cloud.until_true().await;
    assert_eq!(cloud.evened(&nodes).await, [], "two that are equally full");
    let third = xfs::Mounted::new(&dir.join("third"), &cloud.disk("disk-y"), DISK).unwrap();
    make_disk(&dir.join("disks"), "disk-y");
    cloud.until_disks(3).await;
    cloud.until_true().await;
    let (before, began) = (cloud.fills(), Instant::now());
    let moves = cloud.evened(&nodes).await;
    let took = began.elapsed();
    ended.store(true, SeqCst);
    let (last, rounds) = writing.await.unwrap();

    let (moved, optimum) = (moves.iter().map(|m| m.bytes).sum::<u64>(), fill::surplus(&before));
    // The last user of a file that grew gives back what XFS had set aside for it.
    cloud.stop("a").await;
    until("disks are even", || fill::spread(&cloud.fills()) < BEGIN).await;
    let after = cloud.fills();
    println!(
        "{} replicas, {} MiB moved in {:.1} s, {} MiB lay above the share; disks differed by {} points, and by {}; the \
         guest flushed {rounds} times",
        moves.len(),
        moved / MIB,
        took.as_secs_f64(),
        optimum / MIB,
        fill::spread(&before) / fill::POINT,
        fill::spread(&after) / fill::POINT,
    );
    assert!(fill::spread(&before) >= 2 * BEGIN, "{before:#?}");
    assert!(moved <= optimum / 10 * 11 + SIZE, "moved {moved} of {optimum}");
    let different: BTreeSet<&str> = moves.iter().map(|m| m.volume.as_str()).collect();
    assert_eq!(different.len(), moves.len(), "none moves twice");
    for id in VOLUMES {
        let set = cloud.store.read(|tx| tx.get::<ReplicaSet>(id)).unwrap().unwrap();
        let on: Vec<&str> = set.in_sync().map(|at| at.strip_prefix("a/").unwrap()).collect();
        assert_eq!((on.len(), set.replicas.len()), (2, 2), "{set:?}");
        cloud.has_alike(id, &on);
        assert_eq!(on.contains(&"disk-y"), different.contains(id), "{set:?}");
        let left = ["disk-a", "disk-x", "disk-y"].map(|d| cloud.disk(d).join("volumes").join(id).exists());
        assert_eq!(left.into_iter().filter(|there| *there).count(), 2, "{id}");
    }
    cloud.start("a").await;
    guest(move || assert_stamped(&mut connected(&there), last)).await;
    cloud.stop("a").await;
    drop((second, third));
}
