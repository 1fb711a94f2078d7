//! Disks that are put into other nodes: what lies on one is never taken for what the other node had, all of it is used
//! there once the store says so, and what was written meanwhile is not missing.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use cairn_shards::adoption;
use cairn_shards::backup::{self, BackupStatus, RestoreStatus};
use cairn_shards::conductor::{self, Absent, Nodes};
use cairn_shards::disks::{self, DiskState};
use cairn_shards::model::{DiskStatus, Phase, VolumeSpec};
use cairn_shards::replication::place::node_of;
use cairn_shards::replication::set::ReplicaSet;
use cairn_shards::volumes;

use crate::absence::until;
use crate::cloud::{Cloud, content_of};
use crate::common::make_disk;
use crate::{ALL, SIZE, assert_stamped, connected, export, guest, stamp, volume};

fn alive(nodes: &[&str]) -> Nodes {
    Nodes { alive: nodes.iter().map(|n| (*n).to_owned()).collect(), ..Nodes::default() }
}

impl Cloud {
    /// Where a node's first disk is, or was put.
    fn disk_of(&self, of: &str, node: &str) -> PathBuf {
        self.site(node).dir.path().join(format!("disks/disk-{of}"))
    }

    /// Takes a node's first disk out of one, and puts it into another. Nobody uses it.
    fn put_disk(&self, of: &str, from: &str, to: &str) {
        std::fs::rename(self.disk_of(of, from), self.disk_of(of, to)).unwrap();
    }

    /// Waits until a node says that this disk is another's.
    async fn until_visiting(&self, node: &str, of: &str) {
        let id = format!("{node}/disk-{of}");
        let visits =
            |tx: &mut cairn_state::Tx| Ok(tx.get::<DiskStatus>(&id)?.filter(|d| d.visiting.is_some()));
        let status = self.until("the disk is seen", visits).await;
        assert!(!status.healthy && status.size == 0, "none of its room counts: {status:?}");
        let all = self.store.read(disks::list).unwrap();
        let shown = all.iter().find(|d| d.node == node && d.disk == format!("disk-{of}")).unwrap();
        assert_eq!(shown.state, DiskState::Elsewhere);
    }

    async fn adopts(&self, nodes: &[&str]) -> bool {
        adoption::pass(&self.store, &alive(nodes)).await.unwrap()
    }

    fn set(&self, id: &str) -> ReplicaSet {
        self.store.read(|tx| tx.get::<ReplicaSet>(id)).unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stale_replica_on_a_disk_of_another_node_is_not_taken_for_the_nodes_own() {
    let mut cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "b").await;
    let (_, socket) = export(&cloud, "v1", "b").await;
    let there = socket.clone();
    let mut g = guest(move || {
        let mut g = connected(&there);
        stamp(&mut g, 1);
        g
    })
    .await;
    cloud.until_in_sync("v1", &ALL).await;
    // Node a is off, and its disk on its way to b, while its guest goes on.
    cloud.stop("a").await;
    g = guest(move || {
        stamp(&mut g, 2);
        g
    })
    .await;
    cloud.until_in_sync("v1", &["b", "c"]).await;
    drop(g);
    cloud.stop("b").await;
    cloud.put_disk("a", "a", "b");
    cloud.start("b").await;
    guest(move || assert_stamped(&mut connected(&socket), 2)).await;
    cloud.until_in_sync("v1", &["b", "c"]).await;
    assert!(cloud.site("b").content("v1") == cloud.site("c").content("v1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_put_into_another_node_has_all_it_had_and_gets_what_it_missed() {
    let mut cloud = Cloud::started(&ALL).await;
    // One that is written all the time, one at rest in its guest, and one of one copy that was used, with its backup.
    for id in ["busy", "idle"] {
        volume(&cloud, id, "b").await;
    }
    let one = VolumeSpec { copies: Some(1), ..VolumeSpec::new("one", "a", SIZE) };
    cloud.change(|tx| volumes::create(tx, one.clone())).await;
    cloud.until_status("one", |s| s.phase == Phase::Ready).await;
    let (_, socket) = export(&cloud, "one", "a").await;
    guest(move || stamp(&mut connected(&socket), 7)).await;
    cloud.change(|tx| volumes::unexport(tx, "one")).await;
    cloud.change(|tx| backup::create(tx, "copy", "a", "one", None)).await;
    let whole =
        |tx: &mut cairn_state::Tx| Ok(backup::status(tx, "copy")?.filter(|s| s.phase == Phase::Ready));
    cloud.until("the backup is whole", whole).await;

    let (_, busy) = export(&cloud, "busy", "b").await;
    let (_, idle) = export(&cloud, "idle", "b").await;
    let mut rests = guest(move || {
        let mut g = connected(&idle);
        stamp(&mut g, 1);
        g
    })
    .await;
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let (mut g, mut last) = (connected(&busy), 0);
        while last == 0 || !end.load(SeqCst) {
            last = last % 250 + 1;
            stamp(&mut g, last);
        }
        (g, last)
    });
    cloud.until_in_sync("busy", &ALL).await;
    cloud.until_in_sync("idle", &ALL).await;

    cloud.stop("a").await;
    cloud.until_in_sync("busy", &["b", "c"]).await;
    cloud.put_disk("a", "a", "c");
    cloud.until_visiting("c", "a").await;
    assert!(!cloud.adopts(&ALL).await, "a lives, and has not said that it is gone");
    assert!(cloud.adopts(&["b", "c"]).await);
    let (three, disk) = (["b", "c", "c/disk-a"], cloud.disk_of("a", "c"));
    cloud.until_in_sync("busy", &three).await;
    let status = cloud.until_status("one", |s| s.node == "c" && s.phase == Phase::Ready).await;
    assert_eq!(status.disk.as_deref(), Some("disk-a"));
    rests = guest(move || {
        assert_stamped(&mut rests, 1);
        stamp(&mut rests, 2);
        rests
    })
    .await;
    cloud.until_in_sync("idle", &three).await;
    ended.store(true, SeqCst);
    let (g, last) = writing.await.unwrap();
    drop((g, rests));
    for id in ["busy", "idle"] {
        let here = content_of(&disk.join("volumes").join(id));
        assert!(here == cloud.site("b").content(id), "{id} differs on the disk from b");
        assert!(here == cloud.site("c").content(id), "{id} differs on the disk from c's own");
    }
    let (_, socket) = export(&cloud, "one", "c").await;
    guest(move || assert_stamped(&mut connected(&socket), 7)).await;
    let (_, socket) = export(&cloud, "busy", "c").await;
    guest(move || assert_stamped(&mut connected(&socket), last)).await;

    // The backup is restored where it is.
    cloud.until("it is c's", |tx| Ok(tx.get::<BackupStatus>("copy")?.filter(|s| s.node == "c"))).await;
    cloud.change(|tx| backup::restore(tx, "again", "copy", "a", None)).await;
    let restored = cloud.until("a restore", |tx| tx.get::<RestoreStatus>("again")).await;
    assert_eq!((restored.phase, restored.node.as_str()), (Phase::Ready, "c"), "{restored:?}");

    // Two on one node are one too many there.
    for _ in 0..600 {
        conductor::pass(&cloud.store, &alive(&["b", "c"]), &Absent::default()).await.unwrap();
        if cloud.set("idle").replicas.len() == 2 && cloud.set("busy").replicas.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    for id in ["busy", "idle"] {
        let set = cloud.set(id);
        let nodes: BTreeSet<&str> = set.in_sync().map(node_of).collect();
        assert_eq!((nodes.len(), set.replicas.len()), (2, 2), "{set:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_that_goes_back_before_it_is_adopted_was_never_away() {
    let mut cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "b").await;
    let (_, socket) = export(&cloud, "v1", "b").await;
    cloud.until_in_sync("v1", &ALL).await;
    let mut g = guest(move || {
        let mut g = connected(&socket);
        stamp(&mut g, 1);
        g
    })
    .await;
    cloud.stop("a").await;
    g = guest(move || {
        stamp(&mut g, 2);
        g
    })
    .await;
    cloud.put_disk("a", "a", "c");
    cloud.until_visiting("c", "a").await;
    cloud.put_disk("a", "c", "a");
    until("c has forgotten it", || {
        cloud.store.read(|tx| tx.get::<DiskStatus>("c/disk-a")).unwrap().is_none()
    })
    .await;
    cloud.start("a").await;
    cloud.until_in_sync("v1", &ALL).await;
    assert!(!cloud.adopts(&ALL).await && !cloud.disk_of("a", "a").join("volumes/v1/pinned").exists());
    guest(move || assert_stamped(&mut g, 2)).await;
    assert!(cloud.site("a").content("v1") == cloud.site("b").content("v1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_between_store_and_disk_heals_wherever_the_disk_is_next() {
    let mut cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "b").await;
    let (_, socket) = export(&cloud, "v1", "b").await;
    cloud.until_in_sync("v1", &ALL).await;
    let mut g = guest(move || {
        let mut g = connected(&socket);
        stamp(&mut g, 1);
        g
    })
    .await;
    cloud.stop("a").await;
    cloud.put_disk("a", "a", "c");
    cloud.until_visiting("c", "a").await;
    cloud.stop("c").await;
    // The store has decided, and c is killed before the disk says so.
    assert!(cloud.adopts(&["b", "c"]).await);
    g = guest(move || {
        stamp(&mut g, 2);
        g
    })
    .await;
    cloud.until_in_sync("v1", &["b"]).await;

    // It is back in its old node, says that it is that one's, and the store knows better.
    cloud.put_disk("a", "c", "a");
    cloud.start("a").await;
    cloud.until_visiting("a", "a").await;
    cloud.until_in_sync("v1", &["b"]).await;
    cloud.start("c").await;
    cloud.until_in_sync("v1", &["b", "c"]).await;
    until("c has forgotten it", || {
        cloud.store.read(|tx| tx.get::<DiskStatus>("c/disk-a")).unwrap().is_none()
    })
    .await;
    cloud.stop("a").await;
    assert!(cloud.adopts(&ALL).await);
    // Killed once more, half-way.
    File::create(cloud.disk_of("a", "a").join("volumes/v1/pinned")).unwrap();
    cloud.start("a").await;
    cloud.until_in_sync("v1", &["a/disk-a", "b", "c"]).await;
    guest(move || assert_stamped(&mut g, 2)).await;
    assert!(cloud.site("a").content("v1") == cloud.site("b").content("v1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_only_the_moved_disk_has_is_what_counts() {
    let mut cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "a").await;
    let (_, socket) = export(&cloud, "v1", "a").await;
    cloud.until_in_sync("v1", &ALL).await;
    let mut g = guest(move || {
        let mut g = connected(&socket);
        stamp(&mut g, 1);
        g
    })
    .await;
    for node in ["b", "c"] {
        cloud.stop(node).await;
    }
    g = guest(move || {
        stamp(&mut g, 3);
        g
    })
    .await;
    cloud.until_in_sync("v1", &["a"]).await;
    drop(g);
    cloud.stop("a").await;
    cloud.put_disk("a", "a", "b");
    cloud.start("b").await;
    cloud.until_visiting("b", "a").await;
    // Its guest starts on b, where an old replica is, and waits for the one that has all.
    let epoch = cloud.change(|tx| volumes::export(tx, "v1", "b", "server-on-b")).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(cloud.set("v1").in_sync().collect::<Vec<_>>(), ["a"]);
    assert!(cloud.adopts(&["b"]).await);
    let socket = cloud.socket("v1", epoch).await;
    guest(move || assert_stamped(&mut connected(&socket), 3)).await;
    cloud.start("c").await;
    cloud.until_in_sync("v1", &["b", "b/disk-a", "c"]).await;
    let here = content_of(&cloud.disk_of("a", "b").join("volumes/v1"));
    assert!(here == cloud.site("b").content("v1") && here == cloud.site("c").content("v1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_of_an_older_release_that_was_moved_meanwhile_is_not_taken_for_anothers() {
    let mut cloud = Cloud::started(&ALL).await;
    volume(&cloud, "v1", "b").await;
    let (_, socket) = export(&cloud, "v1", "b").await;
    cloud.until_in_sync("v1", &ALL).await;
    let mut g = guest(move || {
        let mut g = connected(&socket);
        stamp(&mut g, 1);
        g
    })
    .await;
    // As that release left them: none says whose it is.
    for node in ["a", "c"] {
        cloud.stop(node).await;
        std::fs::remove_file(cloud.disk_of(node, node).join("cairn-owner.json")).unwrap();
    }
    g = guest(move || {
        stamp(&mut g, 2);
        g
    })
    .await;
    cloud.put_disk("a", "a", "c");
    cloud.start("c").await;
    cloud.until_visiting("c", "a").await;
    cloud.until_in_sync("v1", &["b", "c"]).await;
    assert!(cloud.disk_of("c", "c").join("cairn-owner.json").exists());
    assert!(!cloud.disk_of("a", "c").join("cairn-owner.json").exists());
    assert!(cloud.adopts(&["b", "c"]).await);
    cloud.until_in_sync("v1", &["b", "c", "c/disk-a"]).await;
    guest(move || assert_stamped(&mut g, 2)).await;
    assert!(content_of(&cloud.disk_of("a", "c").join("volumes/v1")) == cloud.site("b").content("v1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_live_node_without_its_disk_reaches_what_is_on_it_where_it_is() {
    let mut cloud = Cloud::started(&ALL).await;
    let one = VolumeSpec { copies: Some(1), ..VolumeSpec::new("one", "a", SIZE) };
    cloud.change(|tx| volumes::create(tx, one.clone())).await;
    cloud.until_status("one", |s| s.phase == Phase::Ready).await;
    let (epoch, socket) = export(&cloud, "one", "a").await;
    guest(move || stamp(&mut connected(&socket), 5)).await;
    // It boots with another disk, on which no empty volume may take the place of the one that is missing.
    cloud.stop("a").await;
    cloud.put_disk("a", "a", "c");
    make_disk(&cloud.site("a").dir.path().join("disks"), "disk-new");
    cloud.until_visiting("c", "a").await;
    cloud.start("a").await;
    let gone = |tx: &mut cairn_state::Tx| Ok(tx.get::<DiskStatus>("a/disk-a")?.filter(|d| d.gone));
    cloud.until("a says that it is gone", gone).await;
    cloud.until_status("one", |s| s.phase == Phase::Failed).await;
    assert!(cloud.adopts(&ALL).await);
    cloud.until("its user is on a", |tx| Ok(tx.get::<VolumeSpec>("one")?.filter(|s| s.lead() == "a"))).await;
    let socket = cloud.until_status("one", |s| s.phase == Phase::Ready && s.epoch == epoch).await.socket;
    guest(move || {
        let mut g = connected(Path::new(&socket.unwrap()));
        assert_stamped(&mut g, 5);
        stamp(&mut g, 6);
    })
    .await;
    assert!(!cloud.site("a").dir.path().join("disks/disk-new/volumes/one").exists());
    let (_, socket) = export(&cloud, "one", "c").await;
    guest(move || assert_stamped(&mut connected(&socket), 6)).await;
}
