//! Volumes in a backend that an operator made known.

use cairn_shards::external::model::{Access, BackendStatus, Secret};
use cairn_shards::external::orders::{self, NewBackend};
use cairn_state::StoreExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, IMAGE, P1};
use crate::model::{GIB, Provisioned};

impl Cloud {
    /// One with a Ceph cluster of 30 GiB, of which 20 are free, and a type of its name.
    async fn with_ceph() -> Cloud {
        let cloud = Cloud::new().await;
        let access = Access { monitors: vec!["10.0.0.1".into()], pool: "p".into(), user: "cairn".into() };
        let new = NewBackend { name: "ceph".into(), access, secret: Secret("secret".into()) };
        let store = &cloud.svc.store;
        store.transact(|tx| orders::add(tx, &new)).await.unwrap();
        cloud.reached(None).await;
        cloud.new_type("ceph", json!({"volume_backend_name": "ceph", "vendor_name": "Ceph"})).await;
        cloud
    }

    async fn reached(&self, error: Option<&str>) {
        let (backend, node, error) = ("ceph".into(), "node-1".into(), error.map(str::to_owned));
        let status = BackendStatus { backend, node, error, size: 30 * GIB, free: 20 * GIB };
        self.svc.store.put_record(&status).await.unwrap();
    }

    async fn promised(&self) -> u64 {
        self.svc.store.get_record::<Provisioned>("cairn@ceph").await.unwrap().map_or(0, |p| p.gigabytes)
    }

    async fn refused(&self, method: Method, path: &str, body: Value) {
        let (status, said) = self.call(P1, method, path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {said}");
        let why = said.as_str().unwrap_or_default();
        assert!(why.contains("backend"), "{path}: {why}");
    }
}

#[tokio::test]
async fn a_type_chooses_the_backend_for_volumes_and_all_that_is_made_of_them() {
    let cloud = Cloud::with_ceph().await;
    cloud.image().await;
    let volume = cloud.volume(P1, json!({"size": 1, "volume_type": "ceph"})).await;
    let spec = cloud.spec(&volume).await.unwrap();
    assert_eq!((spec.backend.as_deref(), spec.node.as_str()), (Some("ceph"), "node-1"));
    let shown = cloud.get(ADMIN, &format!("/volumes/{volume}")).await;
    assert_eq!(shown["volume"]["os-vol-host-attr:host"], "cairn@ceph#ceph");

    let body = json!({"snapshot": {"volume_id": volume}});
    let snapshot = cloud.call(P1, Method::POST, "/snapshots", body).await.1["snapshot"]["id"].clone();
    cloud.agent().await;
    for source in [json!({"snapshot_id": snapshot}), json!({"source_volid": volume})] {
        let made = cloud.volume(P1, source).await;
        assert_eq!(cloud.spec(&made).await.unwrap().backend.as_deref(), Some("ceph"));
        assert_eq!(
            cloud.call(P1, Method::DELETE, &format!("/volumes/{made}"), json!(null)).await.0,
            StatusCode::ACCEPTED
        );
    }
    let of_image = cloud.volume(P1, json!({"size": 2, "volume_type": "ceph", "imageRef": IMAGE})).await;
    let spec = cloud.spec(&of_image).await.unwrap();
    assert_eq!((spec.backend.as_deref(), spec.source.as_deref()), (Some("ceph"), Some(IMAGE)));
    cloud.agent().await;
    assert_eq!(cloud.promised().await, 4, "the volume, its snapshot, and two of the image");
    cloud.act(P1, &volume, json!({"os-extend": {"new_size": 3}})).await;
    cloud.agent().await;
    assert_eq!(cloud.promised().await, 6);
    let path = format!("/volumes/{volume}?cascade=true");
    assert_eq!(cloud.call(P1, Method::DELETE, &path, json!(null)).await.0, StatusCode::ACCEPTED);
    cloud.agent().await;
    cloud.agent().await;
    assert_eq!(cloud.promised().await, 2);
}

#[tokio::test]
async fn the_pool_is_shown_once_and_takes_nothing_while_it_is_full_disabled_or_away() {
    let cloud = Cloud::with_ceph().await;
    let pools = cloud.get(ADMIN, "/scheduler-stats/get_pools?detail=true").await;
    let ours: Vec<&Value> =
        pools["pools"].as_array().unwrap().iter().filter(|p| p["name"] == "cairn@ceph#ceph").collect();
    let capabilities = &ours[0]["capabilities"];
    assert_eq!((ours.len(), &capabilities["free_capacity_gb"]), (1, &json!(20.0)));
    assert_eq!(
        (&capabilities["total_capacity_gb"], &capabilities["vendor_name"]),
        (&json!(30.0), &json!("Ceph"))
    );
    let ask = |size: u64| json!({"volume": {"size": size, "volume_type": "ceph"}});
    assert!(cloud.placeless(ask(121)).await.contains("only 120 GiB more"));
    let named = json!({"binary": "cinder-volume", "host": "cairn@ceph"});
    cloud.call(ADMIN, Method::PUT, "/os-services/disable", named.clone()).await;
    assert!(cloud.placeless(ask(1)).await.contains("disabled"));
    cloud.call(ADMIN, Method::PUT, "/os-services/enable", named).await;
    cloud.volume(P1, json!({"size": 1, "volume_type": "ceph"})).await;
    cloud.reached(Some("no answer")).await;
    assert!(cloud.placeless(ask(1)).await.contains("no node reaches it"));
    let services = cloud.get(ADMIN, "/os-services?host=cairn@ceph").await;
    assert_eq!(services["services"][0]["state"], "down");
}

#[tokio::test]
async fn what_such_volumes_cannot_do_is_refused() {
    let cloud = Cloud::with_ceph().await;
    let ours = cloud.volume(P1, json!({"size": 1, "volume_type": "ceph"})).await;
    let plain = cloud.volume(P1, json!({"size": 1})).await;
    cloud.refused(Method::POST, "/backups", json!({"backup": {"volume_id": ours}})).await;
    for (source, of_type) in [(&ours, "cairn"), (&plain, "ceph")] {
        let body = json!({"volume": {"source_volid": source, "volume_type": of_type}});
        cloud.refused(Method::POST, "/volumes", body).await;
    }
    for (volume, to) in [(&ours, "cairn"), (&plain, "ceph")] {
        let body = json!({"os-retype": {"new_type": to, "migration_policy": "on-demand"}});
        cloud.refused(Method::POST, &format!("/volumes/{volume}/action"), body).await;
    }
    let unmanaged =
        cloud.call(ADMIN, Method::POST, &format!("/volumes/{ours}/action"), json!({"os-unmanage": {}})).await;
    assert_eq!(unmanaged.0, StatusCode::BAD_REQUEST, "{}", unmanaged.1);
    assert_eq!(cloud.status(P1, &ours).await, "available");
}
