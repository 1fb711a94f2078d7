//! Disks that are put into other nodes: what lies on one is never taken for what the other node had, all of it is used
//! there once the store says so, and what was written meanwhile is not missing.

use std::path::PathBuf;

use crate::cloud::Cloud;
use crate::{ALL, assert_stamped, connected, export, guest, stamp, volume};

impl Cloud {
    /// Takes a node's first disk out, and puts it into another.
    fn put_disk(&self, of: &str, from: &str, to: &str) {
        let disk = format!("disks/disk-{of}");
        let at = |node: &str| -> PathBuf { self.site(node).dir.path().join(&disk) };
        std::fs::rename(at(from), at(to)).unwrap();
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
