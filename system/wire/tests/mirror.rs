//! What an agent stands on, across restarts of the controller: its mirrors and its status.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use cairn_state::{LocalStore, Mirror, Record, Reporter, RoleStatus, SharedStore, StoreExt};
use cairn_wire::RemoteStore;
use common::{serve, stop, within};

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Thing {
    id: u32,
}

impl Record for Thing {
    const KIND: &'static str = "test/thing";
    fn id(&self) -> String {
        self.id.to_string()
    }
}

async fn until(mirror: &Mirror<Thing>, what: impl Fn(&Mirror<Thing>) -> bool) {
    let mut changes = mirror.changes();
    within(async {
        while !what(mirror) {
            changes.changed().await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_mirror_outlives_the_controller() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, file) = (directory.path().join("state.sock"), directory.path().join("state.redb"));
    let remote: SharedStore = Arc::new(RemoteStore::new(&socket));
    let mirror = Mirror::<Thing>::start(remote.clone(), None).await;
    assert!(!mirror.synced());

    let store = LocalStore::open(&file).unwrap();
    let server = serve(&socket, store.clone(), &[""]);
    within(mirror.wait_synced()).await;
    store.put_record(&Thing { id: 1 }).await.unwrap();
    until(&mirror, |m| m.get("1").is_some()).await;
    let reporter = Reporter::new(remote, "n1", "compute");
    drop(store);
    stop(server).await;
    assert_eq!(mirror.all().len(), 1, "nothing is forgotten");

    tokio::time::sleep(Duration::from_millis(50)).await;
    let store = LocalStore::open(&file).unwrap();
    store.put_record(&Thing { id: 2 }).await.unwrap();
    store.delete_record::<Thing>("1").await.unwrap();
    let _server = serve(&socket, store.clone(), &[""]);
    until(&mirror, |m| m.get("2").is_some() && m.get("1").is_none()).await;
    store.put_record(&Thing { id: 3 }).await.unwrap();
    until(&mirror, |m| m.get("3").is_some()).await;

    reporter.set_fact("back", true.into());
    within(async {
        loop {
            match store.get_record::<RoleStatus>("n1/compute").await.unwrap() {
                Some(status) if status.facts["back"] == true => break,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
}
