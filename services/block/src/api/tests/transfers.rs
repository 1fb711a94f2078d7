//! Volumes that change their project.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, P1, P2};
use crate::quota;

impl Cloud {
    async fn offer(&self, volume: &str) -> (String, String) {
        let body = json!({"transfer": {"volume_id": volume, "name": "t"}});
        let (status, made) = self.call(P1, Method::POST, "/os-volume-transfer", body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{made}");
        let text = |key: &str| made["transfer"][key].as_str().unwrap().to_owned();
        (text("id"), text("auth_key"))
    }

    async fn take(&self, project: &str, id: &str, key: &str) -> (StatusCode, Value) {
        let path = format!("/os-volume-transfer/{id}/accept");
        self.call(project, Method::POST, &path, json!({"accept": {"auth_key": key}})).await
    }
}

#[tokio::test]
async fn who_has_the_key_takes_the_volume_and_its_snapshots() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 2})).await;
    let snapshot = json!({"snapshot": {"volume_id": id}});
    assert_eq!(cloud.call(P1, Method::POST, "/snapshots", snapshot).await.0, StatusCode::ACCEPTED);
    cloud.agent().await;

    let (transfer, key) = cloud.offer(&id).await;
    assert_eq!(cloud.status(P1, &id).await, "awaiting-transfer");
    let shown = cloud.get(P1, &format!("/os-volume-transfer/{transfer}")).await;
    assert!(shown["transfer"].get("auth_key").is_none());
    assert_eq!(cloud.get(P1, "/os-volume-transfer/detail").await["transfers"][0]["volume_id"], id);
    assert_eq!(cloud.get(P2, "/os-volume-transfer").await["transfers"], json!([]));

    let (status, refused) = cloud.take(P2, &transfer, "another").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    let (status, taken) = cloud.take(P2, &transfer, &key).await;
    assert_eq!((status, &taken["transfer"]["volume_id"]), (StatusCode::ACCEPTED, &json!(id)));
    assert_eq!(cloud.status(P2, &id).await, "available");
    assert_eq!(
        cloud.call(P1, Method::GET, &format!("/volumes/{id}"), Value::Null).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(cloud.get(P2, "/snapshots").await["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(cloud.take(P2, &transfer, &key).await.0, StatusCode::NOT_FOUND);
    let used = |project| cloud.read(|tx| quota::usage(tx, project));
    assert_eq!((used(P1).volumes, used(P1).snapshots, used(P1).gigabytes), (0, 0, 0));
    assert_eq!((used(P2).volumes, used(P2).snapshots, used(P2).gigabytes), (1, 1, 4));
}

#[tokio::test]
async fn an_offer_is_taken_back_and_ends_with_its_volume() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 1})).await;
    let (transfer, _) = cloud.offer(&id).await;
    let again = json!({"transfer": {"volume_id": id}});
    assert_eq!(cloud.call(P1, Method::POST, "/os-volume-transfer", again).await.0, StatusCode::BAD_REQUEST);
    let volume = format!("/volumes/{id}");
    assert_eq!(cloud.call(P1, Method::DELETE, &volume, Value::Null).await.0, StatusCode::BAD_REQUEST);
    let path = format!("/os-volume-transfer/{transfer}");
    assert_eq!(cloud.call(P2, Method::DELETE, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
    assert_eq!(cloud.call(P1, Method::DELETE, &path, Value::Null).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.status(P1, &id).await, "available");

    let (transfer, key) = cloud.offer(&id).await;
    assert_eq!(cloud.act(ADMIN, &id, json!({"os-force_delete": {}})).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.take(P2, &transfer, &key).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_project_takes_no_more_than_its_quota() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 3})).await;
    let (transfer, key) = cloud.offer(&id).await;
    let limits = json!({"quota_set": {"gigabytes": 2}});
    assert_eq!(
        cloud.call(ADMIN, Method::PUT, &format!("/os-quota-sets/{P2}"), limits).await.0,
        StatusCode::OK
    );
    assert_eq!(cloud.take(P2, &transfer, &key).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(cloud.status(P1, &id).await, "awaiting-transfer");
    assert_eq!(cloud.read(|tx| quota::usage(tx, P1)).gigabytes, 3);
}

#[tokio::test]
async fn the_newer_name_is_for_newer_clients_and_says_more() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 1})).await;
    let body = json!({"transfer": {"volume_id": id, "no_snapshots": true}});
    let old = cloud.call_at("3.54", P1, Method::POST, "/v3/volume-transfers", body.clone()).await;
    assert_eq!(old.0, StatusCode::NOT_FOUND);
    let (status, made) = cloud.call_at("3.57", P1, Method::POST, "/v3/volume-transfers", body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{made}");
    let made = &made["transfer"];
    assert_eq!((&made["no_snapshots"], &made["source_project_id"]), (&json!(true), &json!(P1)));
    assert_eq!((&made["accepted"], &made["destination_project_id"]), (&json!(false), &Value::Null));
}
