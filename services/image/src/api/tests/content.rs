//! Content in and out: uploads, their failures, downloads, captures, restarts.

use std::time::Duration;

use cairn_gateway::ApiError;
use cairn_shards::crypt::keys;
use cairn_shards::model::{Phase, VolumeSpec, VolumeStatus};
use cairn_shards::volumes;
use cairn_state::{Abort, StoreExt};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::Cloud;
use crate::capture::{self, Capture};
use crate::model::{Doomed, Image, Incoming, Status};
use crate::upload;

#[tokio::test]
async fn content_goes_in_and_comes_out() {
    let cloud = Cloud::new();
    let id = cloud.raw("p1").await;
    let empty = cloud.get("p1", &format!("/v2/images/{id}/file")).await;
    assert_eq!((empty.status, empty.bytes.len()), (StatusCode::NO_CONTENT, 0));

    assert_eq!(cloud.upload("p1", &id, "0123456789").await.status, StatusCode::NO_CONTENT);
    let shown = cloud.get("p1", &format!("/v2/images/{id}")).await.json();
    assert_eq!((&shown["status"], &shown["size"]), (&json!("active"), &json!(10)));
    assert_eq!(shown["os_hash_algo"], "sha512");
    let spec = cloud.svc.store.get_record::<VolumeSpec>(&id).await.unwrap().unwrap();
    assert!(spec.read_only && spec.size == 10 && spec.node == "node-1");

    let whole = cloud.get("p1", &format!("/v2/images/{id}/file")).await;
    assert_eq!((whole.status, &whole.bytes[..]), (StatusCode::OK, &b"0123456789"[..]));
    assert_eq!(whole.headers["content-md5"], "m".repeat(32));
    assert!(!whole.headers.contains_key("x-inner"));
    let ranged = Request::get(format!("/v2/images/{id}/file")).header("range", "bytes=1-2");
    let part = cloud.send("p1", ranged, "").await;
    assert_eq!((part.status, &part.bytes[..]), (StatusCode::PARTIAL_CONTENT, &b"12"[..]));

    assert_eq!(cloud.upload("p1", &id, "again").await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn refused_content_leaves_a_queued_image() {
    let cloud = Cloud::new();
    let id = cloud.raw("p1").await;
    for (content, status) in [
        ("bad", StatusCode::BAD_REQUEST),
        ("full", StatusCode::PAYLOAD_TOO_LARGE),
        ("broken", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let answer = cloud.upload("p1", &id, content).await;
        assert_eq!(answer.status, status, "{content}");
        let shown = cloud.get("p1", &format!("/v2/images/{id}")).await.json();
        assert_eq!(shown["status"], "queued", "{content}");
    }
    // What a broken connection may have left is on its way out, and until then nothing else comes in.
    assert!(cloud.svc.store.get_record::<Doomed>(&id).await.unwrap().is_some());
    assert_eq!(cloud.upload("p1", &id, "good").await.status, StatusCode::CONFLICT);

    let formless = cloud.image("p1", json!({"name": "x"})).await;
    assert_eq!(cloud.upload("p1", &formless, "x").await.status, StatusCode::BAD_REQUEST);
    let wrong_type = Request::put(format!("/v2/images/{id}/file")).header("content-type", "text/plain");
    assert_eq!(cloud.send("p1", wrong_type, "x").await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn deactivated_content_is_for_administrators() {
    let cloud = Cloud::new();
    let id = cloud.raw("p1").await;
    let action = |name: &str| format!("/v2/images/{id}/actions/{name}");
    let file = format!("/v2/images/{id}/file");
    let early = cloud.call("p1", Method::POST, &action("deactivate"), Value::Null).await;
    assert_eq!(early.status, StatusCode::FORBIDDEN);
    cloud.upload("p1", &id, "x").await;
    cloud.call("p1", Method::POST, &action("deactivate"), Value::Null).await;
    assert_eq!(cloud.get("p1", &file).await.status, StatusCode::FORBIDDEN);
    assert_eq!(cloud.get("admin", &file).await.status, StatusCode::OK);
    let back = cloud.call("p1", Method::POST, &action("reactivate"), Value::Null).await;
    assert_eq!(back.status, StatusCode::NO_CONTENT);
    assert_eq!(cloud.get("p1", &file).await.status, StatusCode::OK);
}

async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..6000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come to be");
}

#[tokio::test]
async fn what_a_deleted_image_leaves_is_purged_once_the_agent_says_so() {
    let cloud = Cloud::new();
    let conductor = tokio::spawn(crate::conductor(cloud.svc.clone()));
    let id = cloud.raw("p1").await;
    cloud.upload("p1", &id, "x").await;
    let deleted = cloud.call("p1", Method::DELETE, &format!("/v2/images/{id}"), Value::Null).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(cloud.get("p1", &format!("/v2/images/{id}")).await.status, StatusCode::NOT_FOUND);
    let store = &cloud.svc.store;
    let spec = store.get_record::<VolumeSpec>(&id).await.unwrap().unwrap();
    assert!(spec.deleted);
    let gone = VolumeStatus::new(&spec, Phase::Gone);
    store.put_record(&gone).await.unwrap();
    eventually("the purge", async || store.get_record::<VolumeSpec>(&id).await.unwrap().is_none()).await;
    eventually("its end", async || store.get_record::<Doomed>(&id).await.unwrap().is_none()).await;
    conductor.abort();
}

#[tokio::test]
async fn a_capture_becomes_an_image_or_is_killed() {
    let cloud = Cloud::new();
    let conductor = tokio::spawn(crate::conductor(cloud.svc.clone()));
    let store = &cloud.svc.store;
    for (volume, end) in [("vol-content", Status::Active), ("missing", Status::Killed)] {
        let caller = caller("p1");
        let image = store
            .transact(|tx| {
                let wanted = Capture { name: "snap".into(), volume: volume.into(), ..Capture::default() };
                capture::begin(tx, &caller, wanted)
            })
            .await
            .unwrap();
        eventually("the end of a capture", async || {
            store.get_record::<Image>(&image.id).await.unwrap().unwrap().status == end
        })
        .await;
    }
    conductor.abort();
}

#[tokio::test]
async fn an_image_of_an_encrypted_volume_has_its_key_and_names_it() {
    let cloud = Cloud::new();
    let conductor = tokio::spawn(crate::conductor(cloud.svc.clone()));
    let store = &cloud.svc.store;
    let (caller, volume) = (caller("p1"), VolumeSpec::new("vol-content", "node-1", 4096));
    let (image, key) = store
        .transact(|tx| {
            let key = keys::generate(tx)?;
            volumes::create_under(tx, volume.clone(), Some(key.clone()))?;
            let wanted = Capture { name: "snap".into(), volume: volume.id.clone(), ..Capture::default() };
            Ok::<_, ApiError>((capture::begin(tx, &caller, wanted)?, key))
        })
        .await
        .unwrap();
    eventually("the end of a capture", async || {
        store.get_record::<Image>(&image.id).await.unwrap().unwrap().status == Status::Active
    })
    .await;
    assert_eq!(image.properties.get(capture::KEY_ID), Some(&key.id));
    let spec = store.get_record::<VolumeSpec>(&image.id).await.unwrap().unwrap();
    assert_eq!((spec.key, spec.recoded), (Some(key), None));
    conductor.abort();
}

fn caller(project: &str) -> cairn_gateway::Caller {
    cairn_gateway::Caller {
        user_id: "u".into(),
        project_id: project.into(),
        roles: ["member".to_owned()].into(),
        ..cairn_gateway::Caller::default()
    }
}

#[tokio::test]
async fn an_upload_that_died_with_an_earlier_run_is_put_back() {
    let cloud = Cloud::new();
    let id = cloud.raw("p1").await;
    let store = &cloud.svc.store;
    let dead = Incoming::Upload { run: "an earlier run".into(), id: "u1".into() };
    store
        .transact(|tx| {
            let mut image = tx.get::<Image>(&id)?.unwrap();
            image.status = Status::Saving;
            image.incoming = Some(dead.clone());
            tx.put(&image)
        })
        .await
        .unwrap();
    let conductor = tokio::spawn(crate::conductor(cloud.svc.clone()));
    eventually("the reset", async || {
        store.get_record::<Image>(&id).await.unwrap().unwrap().status == Status::Queued
    })
    .await;
    assert!(store.get_record::<VolumeSpec>(&id).await.unwrap().unwrap().deleted);
    // A late end of that upload changes nothing.
    store.transact(|tx| upload::fail(tx, &id, &dead, None)).await.map_err(|e: Abort| e).unwrap();
    conductor.abort();
}
