//! Groups of volumes, their types and snapshots.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, P1, P2};
use crate::quota;

const NEWEST: &str = "3.67";

impl Cloud {
    async fn at_newest(&self, project: &str, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.call_at(NEWEST, project, method, &format!("/v3{path}"), body).await
    }

    async fn shown(&self, project: &str, path: &str) -> Value {
        let (status, body) = self.at_newest(project, Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn group_type(&self, name: &str, specs: Value) -> String {
        let body = json!({"group_type": {"name": name, "group_specs": specs}});
        let (status, made) = self.at_newest(ADMIN, Method::POST, "/group_types", body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{made}");
        made["group_type"]["id"].as_str().unwrap().to_owned()
    }

    async fn group(&self, project: &str) -> String {
        let of = json!({"name": "g", "group_type": "plain", "volume_types": ["cairn"]});
        let (status, made) = self.at_newest(project, Method::POST, "/groups", json!({"group": of})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{made}");
        made["group"]["id"].as_str().unwrap().to_owned()
    }

    async fn member(&self, group: &str) -> String {
        let body = json!({"volume": {"size": 1, "group_id": group}});
        let (status, made) = self.at_newest(P1, Method::POST, "/volumes", body).await;
        assert_eq!((status, &made["volume"]["group_id"]), (StatusCode::ACCEPTED, &json!(group)), "{made}");
        self.agent().await;
        made["volume"]["id"].as_str().unwrap().to_owned()
    }

    async fn group_status(&self, id: &str) -> Value {
        self.shown(P1, &format!("/groups/{id}")).await["group"]["status"].clone()
    }

    async fn end_group(&self, id: &str, with_volumes: bool) -> StatusCode {
        let body = json!({"delete": {"delete-volumes": with_volumes}});
        self.at_newest(P1, Method::POST, &format!("/groups/{id}/action"), body).await.0
    }
}

#[tokio::test]
async fn a_group_lives_with_its_volumes() {
    let cloud = Cloud::new().await;
    cloud.group_type("plain", json!({})).await;
    let id = cloud.group(P1).await;
    assert_eq!(cloud.group_status(&id).await, "available");
    let volume = cloud.member(&id).await;
    let shown = cloud.shown(P1, &format!("/groups/{id}?list_volume=True")).await;
    assert_eq!(shown["group"]["volumes"], json!([volume]));
    assert_eq!(cloud.shown(P2, "/groups/detail").await["groups"], json!([]));

    // A volume of a group ends with it, or is let go first.
    let path = format!("/volumes/{volume}");
    assert_eq!(cloud.call(P1, Method::DELETE, &path, Value::Null).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.end_group(&id, false).await, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.end_group(&id, true).await, StatusCode::ACCEPTED);
    assert_eq!(
        (cloud.status(P1, &volume).await, cloud.group_status(&id).await),
        ("deleting".into(), json!("deleting"))
    );
    cloud.agent().await;
    let gone = cloud.at_newest(P1, Method::GET, &format!("/groups/{id}"), Value::Null).await.0;
    assert_eq!(gone, StatusCode::NOT_FOUND);
    let left = cloud.read(|tx| quota::usage(tx, P1));
    assert_eq!((left.groups, left.volumes, left.gigabytes), (0, 0, 0));
}

#[tokio::test]
async fn volumes_come_and_go() {
    let cloud = Cloud::new().await;
    cloud.group_type("plain", json!({})).await;
    let (id, other) = (cloud.group(P1).await, cloud.group(P1).await);
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let change = |fields: Value| (format!("/groups/{id}"), json!({"group": fields}));
    let ask = async |(path, body): (String, Value)| cloud.at_newest(P1, Method::PUT, &path, body).await.0;
    assert_eq!(ask(change(json!({}))).await, StatusCode::BAD_REQUEST);
    assert_eq!(ask(change(json!({"remove_volumes": volume}))).await, StatusCode::BAD_REQUEST);
    let added = change(json!({"add_volumes": volume, "name": "new", "description": "d"}));
    assert_eq!(ask(added).await, StatusCode::ACCEPTED);
    let shown = cloud.shown(P1, &format!("/groups/{id}")).await;
    assert_eq!((&shown["group"]["name"], &shown["group"]["description"]), (&json!("new"), &json!("d")));
    let taken = (format!("/groups/{other}"), json!({"group": {"add_volumes": volume}}));
    assert_eq!(ask(taken).await, StatusCode::BAD_REQUEST, "it is in a group");
    let offered = json!({"transfer": {"volume_id": volume}});
    assert_eq!(cloud.call(P1, Method::POST, "/os-volume-transfer", offered).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(ask(change(json!({"remove_volumes": volume}))).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.end_group(&id, false).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.status(P1, &volume).await, "available");
}

#[tokio::test]
async fn a_group_is_copied_and_restored_from_its_snapshot() {
    let cloud = Cloud::new().await;
    cloud.group_type("plain", json!({})).await;
    let id = cloud.group(P1).await;
    let empty = json!({"group_snapshot": {"group_id": id}});
    let refused = cloud.at_newest(P1, Method::POST, "/group_snapshots", empty.clone()).await.0;
    assert_eq!(refused, StatusCode::BAD_REQUEST, "it has no volumes");
    for _ in 0..2 {
        cloud.member(&id).await;
    }
    let (status, made) = cloud.at_newest(P1, Method::POST, "/group_snapshots", empty).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{made}");
    let whole = made["group_snapshot"]["id"].as_str().unwrap().to_owned();
    let path = format!("/group_snapshots/{whole}");
    assert_eq!(cloud.shown(P1, &path).await["group_snapshot"]["status"], "creating");
    cloud.agent().await;
    assert_eq!(cloud.shown(P1, &path).await["group_snapshot"]["status"], "available");
    let parts = cloud.shown(P1, "/snapshots/detail").await["snapshots"].clone();
    assert_eq!((parts.as_array().unwrap().len(), &parts[0]["group_snapshot_id"]), (2, &json!(whole)));
    let part = format!("/snapshots/{}", parts[0]["id"].as_str().unwrap());
    assert_eq!(cloud.call(P1, Method::DELETE, &part, Value::Null).await.0, StatusCode::BAD_REQUEST);

    for source in [json!({"group_snapshot_id": whole}), json!({"source_group_id": id})] {
        let body = json!({"create-from-src": source});
        let (status, made) = cloud.at_newest(P1, Method::POST, "/groups/action", body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{made}");
        let copy = made["group"]["id"].as_str().unwrap().to_owned();
        assert_eq!(cloud.group_status(&copy).await, "creating");
        cloud.agent().await;
        assert_eq!(cloud.group_status(&copy).await, "available");
        let shown = cloud.shown(P1, &format!("/groups/{copy}?list_volume=True")).await;
        assert_eq!(shown["group"]["volumes"].as_array().unwrap().len(), 2);
        assert_eq!(cloud.end_group(&copy, true).await, StatusCode::ACCEPTED);
        cloud.agent().await;
    }
    assert_eq!(cloud.end_group(&id, true).await, StatusCode::BAD_REQUEST, "it has a snapshot");
    assert_eq!(cloud.at_newest(P1, Method::DELETE, &path, Value::Null).await.0, StatusCode::ACCEPTED);
    cloud.agent().await;
    assert_eq!(cloud.at_newest(P1, Method::GET, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
    assert_eq!(cloud.end_group(&id, true).await, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn types_of_groups_are_administered() {
    let cloud = Cloud::new().await;
    let id = cloud.group_type("plain", json!({"a": "1"})).await;
    let path = format!("/group_types/{id}");
    assert!(cloud.shown(P1, &path).await["group_type"].get("group_specs").is_none());
    let body = json!({"group_type": {"name": "other"}});
    assert_eq!(
        cloud.at_newest(P1, Method::POST, "/group_types", body.clone()).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(cloud.at_newest(ADMIN, Method::PUT, &path, body).await.1["group_type"]["name"], "other");
    let specs = format!("{path}/group_specs");
    let more = json!({"group_specs": {"b": "2"}});
    assert_eq!(cloud.at_newest(ADMIN, Method::POST, &specs, more).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.shown(ADMIN, &specs).await["group_specs"], json!({"a": "1", "b": "2"}));
    let one = format!("{specs}/b");
    assert_eq!(cloud.at_newest(ADMIN, Method::DELETE, &one, Value::Null).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.at_newest(ADMIN, Method::GET, &one, Value::Null).await.0, StatusCode::NOT_FOUND);
    let old = cloud.call_at("3.10", ADMIN, Method::GET, "/v3/group_types", Value::Null).await.0;
    assert_eq!(old, StatusCode::NOT_FOUND, "before they were known");
    assert_eq!(cloud.at_newest(ADMIN, Method::DELETE, &path, Value::Null).await.0, StatusCode::ACCEPTED);

    cloud.group_type("at once", json!({"consistent_group_snapshot_enabled": "<is> True"})).await;
    let of = json!({"group": {"group_type": "at once", "volume_types": ["cairn"]}});
    let refused = cloud.at_newest(P1, Method::POST, "/groups", of).await;
    assert_eq!(refused.0, StatusCode::BAD_REQUEST, "{}", refused.1);
}
