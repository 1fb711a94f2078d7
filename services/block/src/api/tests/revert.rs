//! Going back to a snapshot, and volumes meant for several servers.

use http::{Method, StatusCode};
use serde_json::json;

use super::{Cloud, P1};

impl Cloud {
    async fn snapshot_of(&self, volume: &str) -> String {
        let body = json!({"snapshot": {"volume_id": volume}});
        let made = self.call(P1, Method::POST, "/snapshots", body).await.1;
        self.agent().await;
        made["snapshot"]["id"].as_str().unwrap().to_owned()
    }

    async fn revert(&self, volume: &str, snapshot: &str) -> StatusCode {
        let body = json!({"revert": {"snapshot_id": snapshot}});
        let path = format!("/v3/volumes/{volume}/action");
        self.call_at("3.40", P1, Method::POST, &path, body).await.0
    }
}

#[tokio::test]
async fn a_volume_goes_back_to_its_latest_snapshot_alone() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let first = cloud.snapshot_of(&volume).await;
    let second = cloud.snapshot_of(&volume).await;
    assert_eq!(cloud.revert(&volume, &first).await, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.revert(&volume, &second).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.status(P1, &volume).await, "reverting");
    let path = format!("/snapshots/{second}");
    let refused = cloud.call(P1, Method::DELETE, &path, json!(null)).await.0;
    assert_eq!(refused, StatusCode::BAD_REQUEST, "it is being copied");
    cloud.agent().await;
    cloud.agent().await;
    assert_eq!(cloud.status(P1, &volume).await, "available");
    assert_eq!(cloud.spec(&volume).await.unwrap().source, Some(second.clone()));
    assert_eq!(cloud.get(P1, &path).await["snapshot"]["status"], "available");

    cloud.act(P1, &volume, json!({"os-extend": {"new_size": 2}})).await;
    cloud.agent().await;
    assert_eq!(cloud.revert(&volume, &second).await, StatusCode::BAD_REQUEST, "it is larger");
}

#[tokio::test]
async fn a_type_says_whether_its_volumes_are_for_several_servers() {
    let cloud = Cloud::new().await;
    let id = cloud.new_type("shared", json!({"multiattach": "<is> True", "key": "value"})).await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let is_shared =
        async || cloud.get(P1, &format!("/volumes/{volume}")).await["volume"]["multiattach"].clone();
    assert_eq!(is_shared().await, json!(false));
    let retype = |to: &str| json!({"os-retype": {"new_type": to, "migration_policy": "never"}});
    assert_eq!(cloud.act(P1, &volume, retype("shared")).await, StatusCode::BAD_REQUEST, "an unknown spec");
    let path = format!("/types/{id}/extra_specs");
    let seen = cloud.get(P1, &path).await;
    assert_eq!(seen, json!({"extra_specs": {"multiattach": "<is> True"}}), "what users see of it");
    cloud.call(super::ADMIN, Method::DELETE, &format!("{path}/key"), json!(null)).await;
    for (to, shared) in [("shared", true), ("cairn", false)] {
        assert_eq!(cloud.act(P1, &volume, retype(to)).await, StatusCode::ACCEPTED);
        assert_eq!((is_shared().await, cloud.status(P1, &volume).await), (json!(shared), "available".into()));
    }
}
