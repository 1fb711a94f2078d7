//! The life of volumes and snapshots.

use cairn_shards::model::{Phase, VolumeSpec};
use cairn_state::StoreExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, IMAGE, P1, P2};
use crate::model::{GIB, Provisioned};
use crate::{capacity, quota};

#[tokio::test]
async fn a_volume_lives_from_creating_to_gone() {
    let cloud = Cloud::new().await;
    let fields = json!({"size": 1, "name": "v", "metadata": {"Type": "Test"}, "imageRef": null,
                        "backup_id": null, "consistencygroup_id": null, "availability_zone": null});
    let (status, made) = cloud.call(P1, Method::POST, "/volumes", json!({"volume": fields})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{made}");
    let made = &made["volume"];
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["status"], &made["bootable"]), (&json!("creating"), &json!("false")));
    assert_eq!(made["volume_type"], "cairn");
    assert!(made.get("os-vol-tenant-attr:tenant_id").is_none());
    let spec = cloud.spec(id).await.unwrap();
    assert_eq!((spec.size, spec.node.as_str()), (GIB, "node-1"));

    cloud.agent().await;
    let shown = cloud.get(P1, &format!("/volumes/{id}")).await;
    assert_eq!(shown["volume"]["status"], "available");
    assert_eq!(shown["volume"]["os-vol-tenant-attr:tenant_id"], P1);
    assert!(shown["volume"].get("os-vol-host-attr:host").is_none());
    let (_, by_admin) =
        cloud.call_at("3.67", ADMIN, Method::GET, &format!("/v3/volumes/{id}"), Value::Null).await;
    assert_eq!(by_admin["volume"]["os-vol-host-attr:host"], "node-1@cairn#cairn");
    assert_eq!(by_admin["volume"]["volume_type_id"], crate::types::DEFAULT_ID);

    let update = json!({"volume": {"name": "new", "description": "d"}});
    let (_, updated) = cloud.call(P1, Method::PUT, &format!("/volumes/{id}"), update).await;
    assert_eq!((&updated["volume"]["name"], &updated["volume"]["description"]), (&json!("new"), &json!("d")));

    let path = format!("/volumes/{id}");
    assert_eq!(cloud.call(P2, Method::DELETE, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
    assert_eq!(cloud.call(P1, Method::DELETE, &path, Value::Null).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.status(P1, id).await, "deleting");
    cloud.agent().await;
    assert_eq!(cloud.call(P1, Method::GET, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
    assert!(cloud.spec(id).await.is_none());
    let left = cloud.read(|tx| quota::usage(tx, P1));
    assert_eq!((left.volumes, left.gigabytes), (0, 0));
    let promised = cloud.svc.store.get_record::<Provisioned>("node-1").await.unwrap().unwrap();
    assert_eq!(promised.gigabytes, 0);
}

#[tokio::test]
async fn bad_volumes_are_refused_and_leave_nothing() {
    let cloud = Cloud::new().await;
    let image = cloud.image().await;
    for (fields, status) in [
        (json!({"size": "#$%"}), 400),
        (json!({"size": ""}), 400),
        (json!({"size": "0"}), 400),
        (json!({"size": "-1"}), 400),
        (json!({}), 400),
        (json!({"size": 1, "volume_type": "absent"}), 404),
        (json!({"size": 1, "snapshot_id": IMAGE}), 404),
        (json!({"size": 1, "source_volid": IMAGE}), 404),
        (json!({"size": 1, "imageRef": "absent"}), 404),
        (json!({"size": 1, "imageRef": image.id}), 400),
        (json!({"imageRef": image.id}), 400),
        (json!({"size": 1, "availability_zone": "mars"}), 400),
        (json!({"size": 1, "multiattach": true}), 400),
        (json!({"size": 1, "backup_id": IMAGE}), 400),
        (json!({"size": 1, "metadata": {"k": 1}}), 400),
        (json!({"size": 1, "metadata": {"k": "v".repeat(256)}}), 400),
        (json!({"size": 1, "name": "n".repeat(256)}), 400),
        (json!({"size": 1001}), 413),
    ] {
        let (got, body) = cloud.call(P1, Method::POST, "/volumes", json!({"volume": fields})).await;
        assert_eq!(got.as_u16(), status, "{fields}: {body}");
    }
    assert_eq!(cloud.svc.store.list_records::<VolumeSpec>().await.unwrap().len(), 1, "only the image's");
    assert_eq!(cloud.read(|tx| quota::usage(tx, P1)).volumes, 0);
}

#[tokio::test]
async fn a_volume_that_cannot_be_made_says_why_and_may_recover() {
    let cloud = Cloud::new().await;
    let body = json!({"volume": {"size": 1}});
    let (_, made) = cloud.call(P1, Method::POST, "/volumes", body).await;
    let id = made["volume"]["id"].as_str().unwrap();
    let spec = cloud.spec(id).await.unwrap();
    cloud.report(&spec, Phase::Failed, Some("disk full")).await;
    cloud.conduct().await;
    assert_eq!(cloud.status(P1, id).await, "error");
    cloud.agent().await;
    assert_eq!(cloud.status(P1, id).await, "available");
}

#[tokio::test]
async fn room_is_promised_up_to_the_overcommitment() {
    let cloud = Cloud::new().await;
    let unlimited = json!({"quota_set": {"volumes": -1, "gigabytes": -1}});
    let (status, _) = cloud.call(ADMIN, Method::PUT, &format!("/os-quota-sets/{P1}"), unlimited).await;
    assert_eq!(status, StatusCode::OK);
    for _ in 0..capacity::OVERCOMMIT {
        cloud.volume(P1, json!({"size": 100})).await;
    }
    let why = cloud.placeless(json!({"volume": {"size": 1}})).await;
    assert!(why.contains("No valid backend"), "{why}");
}

#[tokio::test]
async fn what_no_node_can_take_is_told_and_can_be_ended() {
    let cloud = Cloud::new().await;
    let why = cloud.placeless(json!({"volume": {"size": 101}})).await;
    assert!(why.contains("its largest disk holds 100 GiB"), "{why}");
    let shown = cloud.get(P1, "/volumes").await;
    let id = shown["volumes"][0]["id"].as_str().unwrap();
    let host = cloud.get(ADMIN, &format!("/volumes/{id}")).await["volume"]["os-vol-host-attr:host"].clone();
    assert_eq!(host, Value::Null, "it is nowhere");
    let message =
        cloud.call_at("3.3", P1, Method::GET, "/v3/messages", Value::Null).await.1["messages"][0].clone();
    assert_eq!(
        (&message["event_id"], &message["resource_uuid"]),
        (&json!("VOLUME_VOLUME_001_002"), &json!(id))
    );
    let path = format!("/v3/messages/{}", message["id"].as_str().unwrap());
    let ask = async |project: &str, method: Method| {
        cloud.call_at("3.3", project, method, &path, Value::Null).await.0
    };
    assert_eq!(ask(P2, Method::GET).await, StatusCode::NOT_FOUND);
    assert_eq!(ask(P1, Method::DELETE).await, StatusCode::NO_CONTENT);
    assert_eq!(ask(P1, Method::GET).await, StatusCode::NOT_FOUND);
    // An administrator may say that it is well; it is no disk for a server.
    assert_eq!(
        cloud.act(ADMIN, id, json!({"os-reset_status": {"status": "available"}})).await,
        StatusCode::ACCEPTED
    );
    let caller = super::caller(P1);
    assert!(cloud.tx(|tx| crate::servers::reserve(tx, &caller, id, "s", "node-1", None)).await.is_err());
    assert_eq!(
        cloud.call(P1, Method::DELETE, &format!("/volumes/{id}"), Value::Null).await.0,
        StatusCode::ACCEPTED
    );
    assert_eq!(cloud.get(P1, "/volumes").await["volumes"], json!([]));
    assert_eq!(cloud.read(|tx| quota::usage(tx, P1)).gigabytes, 0);
}

#[tokio::test]
async fn quotas_hold_and_are_told() {
    let cloud = Cloud::new().await;
    let path = format!("/os-quota-sets/{P1}");
    let (status, _) = cloud
        .call(ADMIN, Method::PUT, &path, json!({"quota_set": {"volumes": 1, "per_volume_gigabytes": 5}}))
        .await;
    assert_eq!(status, StatusCode::OK);
    let id = cloud.volume(P1, json!({"size": 2})).await;
    let (status, why) = cloud.call(P1, Method::POST, "/volumes", json!({"volume": {"size": 1}})).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(why.as_str().unwrap().contains("exceed"));
    assert_eq!(
        cloud.act(P1, &id, json!({"os-extend": {"new_size": 6}})).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );

    let set = cloud.get(P1, &format!("{path}?usage=True")).await;
    assert_eq!(set["quota_set"]["volumes"], json!({"limit": 1, "in_use": 1, "reserved": 0}));
    let limits = cloud.get(P1, "/limits").await;
    assert_eq!(limits["limits"]["absolute"]["totalGigabytesUsed"], 2);
    assert_eq!(cloud.call(P2, Method::GET, &path, Value::Null).await.0, StatusCode::FORBIDDEN);
    assert_eq!(cloud.call(P1, Method::PUT, &path, json!({"quota_set": {}})).await.0, StatusCode::FORBIDDEN);
    let unknown = json!({"quota_set": {"wat": 1}});
    assert_eq!(cloud.call(ADMIN, Method::PUT, &path, unknown).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.call(ADMIN, Method::DELETE, &path, Value::Null).await.0, StatusCode::OK);
    assert_eq!(cloud.get(P1, &path).await["quota_set"]["volumes"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_requests_never_pass_a_quota() {
    let cloud = std::sync::Arc::new(Cloud::new().await);
    let set = json!({"quota_set": {"volumes": 3}});
    cloud.call(ADMIN, Method::PUT, &format!("/os-quota-sets/{P1}"), set).await;
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let cloud = cloud.clone();
            tokio::spawn(async move {
                cloud.call(P1, Method::POST, "/volumes", json!({"volume": {"size": 1}})).await.0
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += usize::from(task.await.unwrap() == StatusCode::ACCEPTED);
    }
    assert_eq!(made, 3);
}

#[tokio::test]
async fn images_make_bootable_volumes() {
    let cloud = Cloud::new().await;
    let image = cloud.image().await;
    let id = cloud.volume(P1, json!({"size": 2, "imageRef": image.id})).await;
    assert_eq!(cloud.spec(&id).await.unwrap().source.as_deref(), Some(IMAGE));
    let shown = cloud.get(P1, &format!("/volumes/{id}")).await;
    assert_eq!(shown["volume"]["bootable"], "true");
    let metadata = &shown["volume"]["volume_image_metadata"];
    assert_eq!((&metadata["image_id"], &metadata["os_distro"]), (&json!(IMAGE), &json!("linux")));
    let clone = cloud.volume(P1, json!({"source_volid": id})).await;
    let shown = cloud.get(P1, &format!("/volumes/{clone}")).await;
    assert_eq!((&shown["volume"]["size"], &shown["volume"]["bootable"]), (&json!(2), &json!("true")));
    assert_eq!(shown["volume"]["source_volid"], id);
}

#[tokio::test]
async fn snapshots_hold_their_volume_and_make_new_ones() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 1})).await;
    let body = json!({"snapshot": {"volume_id": id, "name": "s", "metadata": {"a": "b"}}});
    let (status, made) = cloud.call(P1, Method::POST, "/snapshots", body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{made}");
    let snapshot = made["snapshot"]["id"].as_str().unwrap().to_owned();
    // While it is being taken, its volume stays.
    let path = format!("/volumes/{id}");
    assert_eq!(cloud.call(P1, Method::DELETE, &path, Value::Null).await.0, StatusCode::BAD_REQUEST);
    cloud.agent().await;
    let shown = cloud.get(P1, &format!("/snapshots/{snapshot}")).await;
    assert_eq!(shown["snapshot"]["status"], "available");
    assert_eq!(shown["snapshot"]["os-extended-snapshot-attributes:progress"], "100%");
    assert_eq!(cloud.call(P1, Method::DELETE, &path, Value::Null).await.0, StatusCode::BAD_REQUEST);

    let too_small = json!({"volume": {"size": 0, "snapshot_id": snapshot}});
    assert_eq!(cloud.call(P1, Method::POST, "/volumes", too_small).await.0, StatusCode::BAD_REQUEST);
    let new = cloud.volume(P1, json!({"size": 2, "snapshot_id": snapshot})).await;
    assert_eq!(cloud.get(P1, &format!("/volumes/{new}")).await["volume"]["snapshot_id"], snapshot);

    let (status, _) = cloud.call(P1, Method::DELETE, &format!("{path}?cascade=True"), Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    cloud.agent().await;
    assert_eq!(cloud.call(P1, Method::GET, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
    assert_eq!(cloud.get(P1, "/snapshots").await["snapshots"], json!([]));
    let left = cloud.read(|tx| quota::usage(tx, P1));
    assert_eq!((left.volumes, left.snapshots, left.gigabytes), (1, 0, 2));
}

#[tokio::test]
async fn a_volume_grows_when_the_agent_says_so() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 1})).await;
    for bad in [json!({"new_size": 1}), json!({"new_size": "abc"}), json!({"new_size": null}), json!({})] {
        assert_eq!(cloud.act(P1, &id, json!({"os-extend": bad})).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(cloud.act(P1, &id, json!({"os-extend": {"new_size": 3}})).await, StatusCode::ACCEPTED);
    cloud.conduct().await;
    assert_eq!(cloud.status(P1, &id).await, "extending");
    cloud.agent().await;
    assert_eq!(cloud.status(P1, &id).await, "available");
    assert_eq!(cloud.spec(&id).await.unwrap().size, 3 * GIB);
}

#[tokio::test]
async fn a_volume_becomes_an_image() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(P1, json!({"size": 1})).await;
    let upload = |format: &str| json!({"os-volume_upload_image": {"image_name": "i", "disk_format": format}});
    assert_eq!(cloud.act(P1, &id, upload("qcow2")).await, StatusCode::BAD_REQUEST);
    let path = format!("/volumes/{id}/action");
    let (status, body) = cloud.call(P1, Method::POST, &path, upload("raw")).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    cloud.conduct().await;
    assert_eq!(cloud.status(P1, &id).await, "uploading");
    let image = body["os-volume_upload_image"]["image_id"].as_str().unwrap();
    cloud
        .tx(|tx| {
            let mut found = tx.get::<cairn_image::Image>(image)?.unwrap();
            found.status = cairn_image::model::Status::Active;
            Ok(tx.put(&found)?)
        })
        .await
        .unwrap();
    cloud.conduct().await;
    assert_eq!(cloud.status(P1, &id).await, "available");
}
