//! The storage agent against a store and directories as disks: volumes come, are served, grow, go.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use cairn_shards::model::{Phase, VolumeSpec, VolumeStatus};
use cairn_shards::volumes;
use common::front_end::*;
use common::{NODE, Node, spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_and_leaves_nothing() {
    let node = Node::new().await;
    node.change(|tx| volumes::create(tx, spec("v1", 8 << 20))).await;
    let ready = node.until("v1", |s| s.phase == Phase::Ready).await;
    assert_eq!((ready.size, ready.disk.as_deref(), ready.socket), (8 << 20, Some("d1"), None));

    let epoch = node.change(|tx| volumes::export(tx, "v1", NODE, "server")).await;
    let served = node.until("v1", |s| s.epoch == epoch).await;
    let socket = std::path::PathBuf::from(served.socket.unwrap());
    tokio::task::spawn_blocking({
        let socket = socket.clone();
        move || {
            let mut guest = Guest::connected(&socket);
            assert_eq!(guest.request(OUT, 0, &Data::Out(&[5; 512])), 0);
        }
    })
    .await
    .unwrap();

    node.change(|tx| volumes::resize(tx, "v1", 16 << 20)).await;
    node.until("v1", |s| s.size == 16 << 20 && s.epoch == epoch).await;

    let clone = VolumeSpec { source: Some("v1".into()), ..spec("v2", 32 << 20) };
    node.change(|tx| {
        volumes::create(tx, clone.clone())?;
        volumes::delete(tx, "v1") // The clone is made first, although its source is to go.
    })
    .await;
    node.until("v2", |s| s.phase == Phase::Ready).await;
    node.until("v1", |s| s.phase == Phase::Gone).await;
    assert!(!socket.exists());
    let epoch = node.change(|tx| volumes::export(tx, "v2", NODE, "server")).await;
    let served = node.until("v2", |s| s.epoch == epoch).await;
    let read =
        tokio::task::spawn_blocking(move || Guest::connected(served.socket.unwrap().as_ref()).read(0, 512));
    assert_eq!(read.await.unwrap(), [5; 512]);

    node.change(|tx| volumes::delete(tx, "v2")).await;
    node.until("v2", |s| s.phase == Phase::Gone && s.socket.is_none()).await;
    for id in ["v1", "v2"] {
        assert!(node.change(|tx| volumes::purge_if_gone(tx, id)).await);
    }
    for fact in ["volumes_on_disk", "sockets", "staging", "trash", "orphans"] {
        node.until_fact(fact, |f| f["count"] == 0).await;
    }
    assert!(node.store.read(|tx| tx.list::<VolumeStatus>()).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_come_back_without_the_controller() {
    let mut node = Node::new().await;
    node.change(|tx| volumes::create(tx, spec("v1", 8 << 20))).await;
    let epoch = node.change(|tx| volumes::export(tx, "v1", NODE, "server")).await;
    let socket = node.until("v1", |s| s.epoch == epoch).await.socket.unwrap();
    // The ledger gathers changes for half a second.
    tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    node.stop().await;
    node.start_without_store();
    for _ in 0..2400 {
        let path = std::path::PathBuf::from(&socket);
        let served = tokio::task::spawn_blocking(move || {
            let mut guest = Guest::new();
            guest.connect(&path).is_ok() && guest.read(0, 512) == [0; 512]
        });
        if served.await.unwrap() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("the volume is not served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_is_a_fault_and_never_an_empty_volume() {
    let mut node = Node::new().await;
    node.change(|tx| volumes::create(tx, spec("v1", 8 << 20))).await;
    node.until("v1", |s| s.phase == Phase::Ready).await;
    node.stop().await;
    let away = node.dir.path().join("away");
    std::fs::rename(node.disk(), &away).unwrap();
    common::make_disk(&node.dir.path().join("disks"), "d2");
    node.start();
    let lost = node.until("v1", |s| s.phase == Phase::Failed).await;
    assert!(lost.error.unwrap().contains("d1"));
    // Its end is not reported while its bytes are somewhere.
    node.change(|tx| volumes::delete(tx, "v1")).await;
    node.until("v1", |s| s.phase == Phase::Failed && s.generation == 2).await;
    assert!(!node.change(|tx| volumes::purge_if_gone(tx, "v1")).await);
    std::fs::rename(&away, node.disk()).unwrap();
    node.until("v1", |s| s.phase == Phase::Gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_spec_is_reported_and_kept() {
    let mut node = Node::new().await;
    node.change(|tx| volumes::create(tx, spec("v1", 8 << 20))).await;
    node.until("v1", |s| s.phase == Phase::Ready).await;
    node.change(|tx| tx.delete::<VolumeSpec>("v1")).await;
    node.until_fact("orphans", |f| f["names"][0] == "v1").await;
    assert!(node.disk().join("volumes/v1/manifest.json").exists());
    node.stop().await;
    // Asked for in so many words, it goes; but not while nobody can say whether the disk holds it.
    let marker = std::fs::File::open(node.disk().join("cairn-disk.json")).unwrap();
    marker.lock().unwrap();
    node.start();
    node.change(|tx| volumes::abandon(tx, "v1", NODE)).await;
    let unknown = node.until("v1", |s| s.error.is_some()).await;
    assert_ne!(unknown.phase, Phase::Gone, "{unknown:?}");
    drop(marker);
    node.until("v1", |s| s.phase == Phase::Gone).await;
    assert!(!node.disk().join("volumes/v1").exists());
}
