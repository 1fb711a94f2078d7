//! Giving volumes to servers, and taking them back.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, P1, P2, caller};
use crate::create::{NewVolume, Source};
use crate::model::{Status, Volume};
use crate::servers;

const SERVER: &str = "5e5e5e5e-0000-4000-8000-000000000001";
const OTHER: &str = "5e5e5e5e-0000-4000-8000-000000000002";

#[tokio::test]
async fn compute_attaches_and_detaches() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 1})).await;
    let reserve = |server: &'static str, project: &'static str, node: &'static str| {
        let id = id.clone();
        move |tx: &mut cairn_state::Tx| {
            servers::reserve(tx, &caller(project), &id, server, node, Some("/dev/vdb"))
        }
    };
    assert_eq!(cloud.tx(reserve(SERVER, P2, "node-1")).await.unwrap_err().status, StatusCode::NOT_FOUND);
    let info = cloud.tx(reserve(SERVER, P1, "node-1")).await.unwrap();
    assert_eq!(cloud.status(P1, &id).await, "attaching");
    let export = cloud.spec(&id).await.unwrap().export.unwrap();
    assert_eq!((export.owner.as_str(), export.epoch), (SERVER, info.epoch));
    assert_eq!(cloud.tx(reserve(OTHER, P1, "node-1")).await.unwrap_err().status, StatusCode::BAD_REQUEST);

    cloud.tx(|tx| Ok(servers::attached(tx, &id, SERVER)?)).await.unwrap();
    let shown = cloud.get(P1, &format!("/volumes/{id}")).await;
    let attachment = &shown["volume"]["attachments"][0];
    assert_eq!(shown["volume"]["status"], "in-use");
    assert_eq!((&attachment["id"], &attachment["server_id"]), (&json!(id), &json!(SERVER)));
    assert_eq!((&attachment["device"], &attachment["host_name"]), (&json!("/dev/vdb"), &Value::Null));
    let path = format!("/v3/{P1}/attachments/{}", info.attachment_id);
    let (_, one) = cloud.call_at("3.27", P1, Method::GET, &path, Value::Null).await;
    assert_eq!(
        (&one["attachment"]["status"], &one["attachment"]["instance"]),
        (&json!("attached"), &json!(SERVER))
    );
    assert_eq!(cloud.call_at("3.27", P1, Method::DELETE, &path, Value::Null).await.0, StatusCode::CONFLICT);

    // A server's disk cannot be pulled out through this API.
    for action in ["os-detach", "os-begin_detaching", "os-unreserve"] {
        assert_eq!(cloud.act(P1, &id, json!({action: {}})).await, StatusCode::CONFLICT, "{action}");
    }
    for action in ["os-force_detach", "os-force_delete"] {
        assert_eq!(cloud.act(ADMIN_, &id, json!({action: {}})).await, StatusCode::CONFLICT, "{action}");
    }
    let deleted = cloud.call(P1, Method::DELETE, &format!("/volumes/{id}"), Value::Null).await;
    assert_eq!(deleted.0, StatusCode::BAD_REQUEST);

    cloud.tx(|tx| servers::begin_detach(tx, &caller(P1), &id, SERVER)).await.unwrap();
    assert_eq!(cloud.status(P1, &id).await, "detaching");
    cloud.tx(|tx| Ok(servers::detached(tx, &id, OTHER)?)).await.unwrap();
    assert_eq!(cloud.status(P1, &id).await, "detaching", "not another server's to say");
    cloud.tx(|tx| Ok(servers::detached(tx, &id, SERVER)?)).await.unwrap();
    assert_eq!(cloud.status(P1, &id).await, "available");
    assert!(cloud.spec(&id).await.unwrap().export.is_none());
}

const ADMIN_: &str = ADMIN;

#[tokio::test]
async fn a_root_disk_is_nowhere_to_be_seen() {
    let cloud = Cloud::new().await;
    let image = cloud.image().await;
    let root =
        cloud.tx(|tx| servers::create_root(tx, &caller(P1), &image, 1, SERVER, "node-1")).await.unwrap();
    let spec = cloud.spec(&root).await.unwrap();
    assert_eq!(spec.size, image.virtual_size.unwrap(), "never smaller than its image");
    assert_eq!(spec.export.unwrap().owner, SERVER);
    cloud.agent().await;
    assert_eq!(cloud.get(P1, "/volumes").await["volumes"], json!([]));
    assert_eq!(cloud.get(ADMIN, "/volumes?all_tenants=1").await["volumes"], json!([]));
    let (status, _) = cloud.call(P1, Method::GET, &format!("/volumes/{root}"), Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(cloud.read(|tx| servers::volumes_of(tx, SERVER)).len(), 1);

    for _ in 0..2 {
        cloud.tx(|tx| Ok(servers::delete_root(tx, &root)?)).await.unwrap();
    }
    cloud.agent().await;
    assert!(cloud.read(|tx| tx.get::<Volume>(&root)).is_none());
    assert!(cloud.spec(&root).await.is_none());
}

#[tokio::test]
async fn a_server_starts_from_a_new_volume() {
    let cloud = Cloud::new().await;
    let image = cloud.image().await;
    let made = |tx: &mut cairn_state::Tx| {
        let wanted = NewVolume { size_gb: Some(2), ..NewVolume::of(Source::Image(Box::new(image.clone()))) };
        servers::create_attached(tx, &caller(P1), wanted, SERVER, "node-1", Some("/dev/vda"))
    };
    let id = cloud.tx(made).await.unwrap().volume_id;
    cloud.agent().await;
    assert_eq!(cloud.status(P1, &id).await, "attaching");
    cloud.tx(|tx| Ok(servers::attached(tx, &id, SERVER)?)).await.unwrap();
    assert_eq!(cloud.status(P1, &id).await, "in-use");
    // Growing while in use, and let go meanwhile: available at the end.
    let path = format!("/v3/{P1}/volumes/{id}/action");
    let grow = json!({"os-extend": {"new_size": 3}});
    assert_eq!(cloud.act(P1, &id, grow.clone()).await, StatusCode::BAD_REQUEST, "before 3.42");
    assert_eq!(cloud.call_at("3.42", P1, Method::POST, &path, grow).await.0, StatusCode::ACCEPTED);
    cloud.tx(|tx| Ok(servers::detached(tx, &id, SERVER)?)).await.unwrap();
    cloud.agent().await;
    assert_eq!(cloud.status(P1, &id).await, "available");
}

#[tokio::test]
async fn attachments_may_be_noted_by_hand() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 1})).await;
    let attach = json!({"os-attach": {"instance_uuid": SERVER, "mountpoint": "/dev/vdb"}});
    assert_eq!(cloud.act(P1, &id, attach.clone()).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.act(P1, &id, attach).await, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.status(P1, &id).await, "in-use");
    assert!(cloud.spec(&id).await.unwrap().export.is_none());
    assert_eq!(cloud.act(P1, &id, json!({"os-detach": {}})).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.status(P1, &id).await, "available");

    assert_eq!(cloud.act(P1, &id, json!({"os-reserve": {}})).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.act(P1, &id, json!({"os-reserve": {}})).await, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.act(P1, &id, json!({"os-unreserve": {}})).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.status(P1, &id).await, "available");
}

#[tokio::test]
async fn flags_and_what_only_administrators_do() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 1})).await;
    for wanted in [true, false] {
        let body = json!({"os-set_bootable": {"bootable": wanted}});
        assert_eq!(cloud.act(P1, &id, body).await, StatusCode::OK);
        let body = json!({"os-update_readonly_flag": {"readonly": wanted}});
        assert_eq!(cloud.act(P1, &id, body).await, StatusCode::ACCEPTED);
        let shown = cloud.get(P1, &format!("/volumes/{id}")).await;
        assert_eq!(shown["volume"]["bootable"], wanted.to_string());
        assert_eq!(shown["volume"]["metadata"]["readonly"], if wanted { "True" } else { "False" });
    }
    let reset = |status: &str| json!({"os-reset_status": {"status": status}});
    assert_eq!(cloud.act(P1, &id, reset("error")).await, StatusCode::FORBIDDEN);
    for status in ["error", "available", "maintenance"] {
        assert_eq!(cloud.act(ADMIN, &id, reset(status)).await, StatusCode::ACCEPTED);
        assert_eq!(cloud.status(P1, &id).await, status);
    }
    assert_eq!(cloud.act(ADMIN, &id, reset("wat")).await, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.act(P1, &id, json!({"os-migrate_volume": {}})).await, StatusCode::FORBIDDEN);
    assert_eq!(cloud.act(P1, &id, json!({"os-absent": {}})).await, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.act(P1, &id, json!({})).await, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.act(P1, &id, json!({"os-force_delete": {}})).await, StatusCode::FORBIDDEN);
    assert_eq!(cloud.act(ADMIN, &id, json!({"os-force_delete": {}})).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.read(|tx| tx.get::<Volume>(&id)).unwrap().status, Status::Deleting);
}
