//! Several disks of one node, each with its replica: one fails under its guest and comes back, another is drained, and
//! when a second node comes the replicas part.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use cairn_shards::conductor::{self, Absent, Nodes};
use cairn_shards::disks::{self, DiskAction, DiskOrder, DiskState};
use cairn_shards::model::{Phase, VolumeSpec, VolumeStatus};
use cairn_shards::replication::set::ReplicaSet;
use cairn_shards::volumes;

use crate::absence::{assert_written, filled, until, write};
use crate::cloud::{Cloud, content_of};
use crate::common::{make_disk, xfs};
use crate::{SIZE, assert_stamped, connected, export, guest, stamp, volume};

const MIB: u64 = 1 << 20;
/// Bytes of the file system that fails.
const DISK: u64 = 400 * MIB;

impl Cloud {
    pub fn disk(&self, disk: &str) -> PathBuf {
        self.site("a").dir.path().join("disks").join(disk)
    }

    pub fn has_alike(&self, id: &str, disks: &[&str]) {
        let content = |disk: &str| content_of(&self.disk(disk).join("volumes").join(id));
        let first = content(disks[0]);
        assert!(disks.iter().all(|disk| content(disk) == first), "{disks:?} differ");
    }

    pub async fn until_disks(&self, count: usize) {
        let here = |tx: &mut cairn_state::Tx| {
            let healthy = disks::list(tx)?.iter().filter(|d| d.error.is_none()).count();
            Ok((healthy == count).then_some(()))
        };
        self.until("disks are reported", here).await;
    }

    /// Lets the conductor look, until these places and no others are in sync.
    async fn conducted(&self, id: &str, nodes: &[&str], places: &[&str]) {
        let nodes = Nodes { alive: nodes.iter().map(|n| (*n).to_owned()).collect(), ..Nodes::default() };
        for _ in 0..600 {
            conductor::pass(&self.store, &nodes, &Absent::default()).await.unwrap();
            let set = self.store.read(|tx| tx.get::<ReplicaSet>(id)).unwrap().unwrap();
            let mut found: Vec<&str> = set.in_sync().collect();
            found.sort_unstable();
            if found == places && set.replicas.len() == places.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not within a minute: {:#?}", self.store.read(|tx| tx.get::<ReplicaSet>(id)));
    }

    async fn order(&self, disk: &str, action: DiskAction) {
        let order = DiskOrder { disk: disk.into(), action, lose_volumes: false };
        self.store.transact(|tx| disks::order(tx, &order)).await.unwrap();
    }

    fn state(&self, disk: &str) -> Option<DiskState> {
        let all = self.store.read(disks::list).unwrap();
        all.iter().find(|d| d.disk == disk).map(|d| d.state)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_guest_outlives_a_disk_of_the_only_node_and_the_disk_gets_what_it_missed() {
    let mut cloud = Cloud::new(&["a"]);
    let (image, at) = (cloud.site("a").dir.path().join("second"), cloud.disk("disk-x"));
    let Some(mut second) = xfs::or_skip(xfs::Mounted::new(&image, &at, DISK)) else { return };
    make_disk(&cloud.site("a").dir.path().join("disks"), "disk-x");
    cloud.start("a").await;
    cloud.until_disks(2).await;
    let (both, one) = (["a/disk-a", "a/disk-x"], ["a/disk-a"]);
    let dirs = ["disk-a", "disk-x"].map(|disk| cloud.disk(disk).join("volumes/v1"));
    let (_, mut g) = filled(&cloud, &both, &dirs).await;
    cloud.has_alike("v1", &["disk-a", "disk-x"]);

    // What was cleared comes back if it was not written yet, and is compared.
    second.sync().unwrap();
    second.fail().unwrap();
    g = guest(move || {
        write(&mut g, 2, [3, 100].into_iter());
        g
    })
    .await;
    cloud.until_in_sync("v1", &one).await;
    until("it is lost", || cloud.state("disk-x") == Some(DiskState::Lost)).await;

    second.remount().await.unwrap();
    cloud.until_in_sync("v1", &both).await;
    let status = cloud.until_status("v1", |s| s.rebuilt > 0).await;
    assert_eq!(status.rebuilt, 2 * 4096, "each block that was missed, and no more");
    assert!(status.compared <= 2 * 16 * MIB, "compared {}", status.compared);
    assert_eq!(status.corrupt, 0);
    g = guest(move || {
        write(&mut g, 3, [3, 7].into_iter());
        g
    })
    .await;
    cloud.has_alike("v1", &["disk-a", "disk-x"]);

    // The other one fails to be there when the machine starts again: all is on the one that was rebuilt.
    cloud.stop("a").await;
    drop(g);
    let hidden = cloud.site("a").dir.path().join("hidden");
    until("it is hidden", || std::fs::rename(cloud.disk("disk-a"), &hidden).is_ok()).await;
    cloud.start("a").await;
    let (_, socket) = export(&cloud, "v1", "a").await;
    guest(move || {
        let mut g = connected(&socket);
        assert_written(&mut g, &[(3, 3), (7, 3), (100, 2), (101, 1)]);
        write(&mut g, 4, [9].into_iter());
    })
    .await;
    cloud.until_in_sync("v1", &["a/disk-x"]).await;
    cloud.stop("a").await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_is_drained_under_its_guest_and_a_second_node_takes_a_replica() {
    let mut cloud = Cloud::new(&["a", "b"]);
    let disks = cloud.site("a").dir.path().join("disks");
    cloud.start("a").await;
    cloud.until_disks(1).await;
    volume(&cloud, "v1", "a").await;
    let (_, socket) = export(&cloud, "v1", "a").await;
    let (ended, there) = (Arc::new(AtomicBool::new(false)), socket);
    let end = ended.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let (mut g, mut last) = (connected(&there), 0);
        while last == 0 || !end.load(SeqCst) {
            last = last % 250 + 1;
            stamp(&mut g, last);
        }
        last
    });
    // What was on the one disk gets a second replica when another comes.
    make_disk(&disks, "disk-x");
    cloud.until_disks(2).await;
    cloud.conducted("v1", &["a"], &["a", "a/disk-x"]).await;

    make_disk(&disks, "disk-y");
    cloud.until_disks(3).await;
    cloud.order("disk-a", DiskAction::Drain).await;
    cloud.conducted("v1", &["a"], &["a/disk-x", "a/disk-y"]).await;
    until("it is empty", || cloud.state("disk-a") == Some(DiskState::Drained)).await;
    assert!(!cloud.site("a").volume("v1").exists());
    // Nothing new is put there, and what is made has two replicas from the beginning.
    volume(&cloud, "v2", "a").await;
    cloud.until_in_sync("v2", &["a/disk-x", "a/disk-y"]).await;

    cloud.start("b").await;
    for _ in 0..600 {
        let nodes = Nodes { alive: ["a", "b"].map(str::to_owned).into(), ..Nodes::default() };
        conductor::pass(&cloud.store, &nodes, &Absent::default()).await.unwrap();
        let set = cloud.store.read(|tx| tx.get::<ReplicaSet>("v1")).unwrap().unwrap();
        if set.replicas.len() == 2 && set.is_in_sync("b") && set.on_node("a").all(|r| r.in_sync) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let set = cloud.until("v1 parts", |tx| tx.get::<ReplicaSet>("v1")).await;
    let disk = set.in_sync().find_map(|at| at.strip_prefix("a/")).unwrap().to_owned();
    ended.store(true, SeqCst);
    let last = writing.await.unwrap();
    assert_eq!(set.in_sync().count(), 2, "{set:?}");
    let here = content_of(&cloud.disk(&disk).join("volumes/v1"));
    assert!(here == cloud.site("b").content("v1"), "{disk} and b differ");
    // The guest's node is lost with all its disks.
    cloud.stop("a").await;
    let (_, socket) = export(&cloud, "v1", "b").await;
    guest(move || assert_stamped(&mut connected(&socket), last)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_copy_of_a_volume_is_not_let_go_and_one_that_ends_goes_from_all_disks() {
    let mut cloud = Cloud::new(&["a"]);
    cloud.start("a").await;
    volume(&cloud, "v1", "a").await;
    let order = DiskOrder { disk: "disk-a".into(), action: DiskAction::Retire, lose_volumes: false };
    let refused = cloud.store.transact(|tx| disks::order(tx, &order)).await.unwrap_err();
    assert!(refused.to_string().contains("only whole copy of v1"), "{refused}");
    make_disk(&cloud.site("a").dir.path().join("disks"), "disk-x");
    cloud.until_disks(2).await;
    cloud.order("disk-a", DiskAction::Retire).await;
    cloud.conducted("v1", &["a"], &["a/disk-x"]).await;
    until("it is empty", || cloud.state("disk-a") == Some(DiskState::Retired)).await;
    cloud.order("disk-a", DiskAction::Keep).await;
    cloud.conducted("v1", &["a"], &["a/disk-a", "a/disk-x"]).await;

    // A clone lies beside its source, and both go.
    let clone = VolumeSpec { source: Some("v1".into()), ..VolumeSpec::new("v2", "a", SIZE) };
    cloud.change(|tx| volumes::create(tx, clone.clone())).await;
    cloud.until_status("v2", |s| s.phase == Phase::Ready).await;
    cloud.until_in_sync("v2", &["a/disk-a", "a/disk-x"]).await;
    for id in ["v1", "v2"] {
        cloud.change(|tx| volumes::delete(tx, id)).await;
        cloud.until_status(id, |s| s.phase == Phase::Gone).await;
        assert!(cloud.change(|tx| volumes::purge_if_gone(tx, id)).await);
        let left = ["disk-a", "disk-x"].map(|disk| cloud.disk(disk).join("volumes").join(id).exists());
        assert_eq!(left, [false; 2], "{id}");
    }
    assert!(cloud.store.read(|tx| tx.list::<VolumeStatus>()).unwrap().is_empty());
}
