//! What is let go of and taken over, types' encryption, backends and how volumes move between them, limits by type.

use cairn_shards::model::VolumeSpec;
use cairn_state::StoreExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, IMAGE, P1};
use crate::model::{BUSY, BY_WORK, Provisioned, Unmanaged};
use crate::{quota, unmanaged};

impl Cloud {
    async fn settle(&self) {
        let store = &self.svc.store;
        self.agent().await;
        for kept in store.read(|tx| tx.by_index::<Unmanaged>(BY_WORK, BUSY)).unwrap() {
            store.transact(|tx| unmanaged::advance(tx, &kept.id)).await.unwrap();
        }
    }

    pub(super) async fn new_type(&self, name: &str, extra_specs: Value) -> String {
        let body = json!({"volume_type": {"name": name, "extra_specs": extra_specs}});
        let (status, made) = self.call(ADMIN, Method::POST, "/types", body).await;
        assert_eq!(status, StatusCode::OK, "{made}");
        made["volume_type"]["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_volume_is_let_go_of_and_taken_over_with_its_content() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 2})).await;
    assert_eq!(cloud.act(P1, &volume, json!({"os-unmanage": {}})).await, StatusCode::FORBIDDEN);
    assert_eq!(cloud.act(ADMIN, &volume, json!({"os-unmanage": {}})).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.call(P1, Method::GET, &format!("/volumes/{volume}"), Value::Null).await.0.as_u16(), 404);
    assert!(!cloud.spec(&volume).await.unwrap().deleted, "its content stays");
    assert_eq!(cloud.read(|tx| quota::usage(tx, P1)).volumes, 0);

    let path = "/os-volume-manage/detail?host=node-1@cairn%23cairn";
    let listed = cloud.get(ADMIN, path).await["manageable-volumes"].clone();
    assert_eq!((&listed[0]["reference"]["source-id"], &listed[0]["size"]), (&json!(volume), &json!(2)));
    let manage = async |host: &str, id: &str| {
        let body = json!({"volume": {"host": host, "ref": {"source-id": id}, "name": "again"}});
        cloud.call(ADMIN, Method::POST, "/os-volume-manage", body).await
    };
    assert_eq!(manage("node-1@cairn#cairn", IMAGE).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(manage("node-2@cairn#cairn", &volume).await.0, StatusCode::BAD_REQUEST);
    let (status, made) = manage("node-1@cairn#cairn", &volume).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{made}");
    let new = made["volume"]["id"].as_str().unwrap();
    assert_eq!(cloud.spec(new).await.unwrap().source.as_deref(), Some(volume.as_str()));
    assert_eq!(manage("node-1@cairn#cairn", &volume).await.0, StatusCode::BAD_REQUEST, "once");
    cloud.settle().await;
    assert_eq!(cloud.status(ADMIN, new).await, "available");
    assert!(cloud.spec(&volume).await.is_none(), "the original went when its clone was there");
    assert!(cloud.svc.store.list_records::<Unmanaged>().await.unwrap().is_empty());
    let promised = cloud.svc.store.get_record::<Provisioned>("node-1").await.unwrap().unwrap();
    assert_eq!(promised.gigabytes, 2);
}

#[tokio::test]
async fn a_snapshot_is_taken_over_by_its_volume_alone() {
    let cloud = Cloud::new().await;
    let (volume, other) =
        (cloud.volume(P1, json!({"size": 1})).await, cloud.volume(P1, json!({"size": 1})).await);
    let body = json!({"snapshot": {"volume_id": volume}});
    let (_, made) = cloud.call(P1, Method::POST, "/snapshots", body).await;
    let snapshot = made["snapshot"]["id"].as_str().unwrap();
    cloud.agent().await;
    let act = format!("/snapshots/{snapshot}/action");
    assert_eq!(cloud.call(P1, Method::POST, &act, json!({"os-unmanage": {}})).await.0, StatusCode::FORBIDDEN);
    assert_eq!(
        cloud.call(ADMIN, Method::POST, &act, json!({"os-unmanage": {}})).await.0,
        StatusCode::ACCEPTED
    );
    let manage = async |volume: &str| {
        let body = json!({"snapshot": {"volume_id": volume, "ref": {"source-name": snapshot}, "name": "s"}});
        cloud.call(ADMIN, Method::POST, "/os-snapshot-manage", body).await
    };
    assert_eq!(manage(&other).await.0, StatusCode::BAD_REQUEST);
    let (status, made) = manage(&volume).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{made}");
    cloud.settle().await;
    let new = made["snapshot"]["id"].as_str().unwrap();
    let shown = cloud.get(P1, &format!("/snapshots/{new}")).await;
    assert_eq!(
        (&shown["snapshot"]["status"], &shown["snapshot"]["name"]),
        (&json!("available"), &json!("s"))
    );
    assert!(cloud.spec(snapshot).await.is_none());
}

#[tokio::test]
async fn who_made_a_snapshot_says_how_it_went_and_no_more() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let body = json!({"snapshot": {"volume_id": volume}});
    let (_, made) = cloud.call(P1, Method::POST, "/snapshots", body).await;
    let path = format!("/snapshots/{}", made["snapshot"]["id"].as_str().unwrap());
    let say = async |fields: Value| {
        let body = json!({"os-update_snapshot_status": fields});
        cloud.call(P1, Method::POST, &format!("{path}/action"), body).await.0
    };
    assert_eq!(say(json!({"status": "error_deleting"})).await, StatusCode::BAD_REQUEST);
    assert_eq!(say(json!({"status": "error", "progress": "much"})).await, StatusCode::BAD_REQUEST);
    assert_eq!(say(json!({"status": "error", "progress": "80%"})).await, StatusCode::ACCEPTED);
    let shown = cloud.get(P1, &path).await["snapshot"].clone();
    assert_eq!(shown["os-extended-snapshot-attributes:progress"], "80%");
    assert_eq!(say(json!({"status": "available"})).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_types_encryption_is_kept_and_no_volume_pretends_to_another() {
    let cloud = Cloud::new().await;
    let id = cloud.new_type("secret", json!({})).await;
    let path = format!("/types/{id}/encryption");
    assert_eq!(cloud.get(ADMIN, &path).await, json!({}));
    let body = json!({"encryption": {"provider": "luks", "control_location": "front-end", "key_size": 256,
                                     "cipher": "aes-xts-plain64"}});
    assert_eq!(cloud.call(P1, Method::POST, &path, body.clone()).await.0, StatusCode::FORBIDDEN);
    let (_, made) = cloud.call(ADMIN, Method::POST, &path, body.clone()).await;
    let own = format!("{path}/{}", made["encryption"]["encryption_id"].as_str().unwrap());
    assert_eq!(cloud.call(ADMIN, Method::POST, &path, body).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.get(ADMIN, &format!("{path}/cipher")).await, json!({"cipher": "aes-xts-plain64"}));
    for bad in [json!({"key_size": "x"}), json!({"control_location": "moon"})] {
        let (status, _) = cloud.call(ADMIN, Method::PUT, &own, json!({"encryption": bad})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    let update = json!({"encryption": {"key_size": 128, "cipher": "serpent"}});
    assert_eq!(cloud.call(ADMIN, Method::PUT, &own, update).await.0, StatusCode::OK);
    assert_eq!(cloud.get(ADMIN, &path).await["key_size"], 128);

    let why = cloud.placeless(json!({"volume": {"size": 1, "volume_type": "secret"}})).await;
    assert!(why.contains("asks for the cipher serpent"), "{why}");
    assert_eq!(cloud.call(ADMIN, Method::DELETE, &own, Value::Null).await.0, StatusCode::BAD_REQUEST);
    let failed = cloud.get(P1, "/volumes").await["volumes"][0]["id"].as_str().unwrap().to_owned();
    cloud.call(P1, Method::DELETE, &format!("/volumes/{failed}"), Value::Null).await;
    cloud.agent().await;
    assert_eq!(cloud.call(ADMIN, Method::DELETE, &own, Value::Null).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.get(ADMIN, &path).await, json!({}));
}

#[tokio::test]
async fn a_volume_moves_to_the_backend_of_its_new_type() {
    let cloud = Cloud::new().await;
    cloud.new_type("single", json!({"volume_backend_name": "cairn-single"})).await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let host = async || {
        let shown = cloud.get(ADMIN, &format!("/volumes/{volume}")).await["volume"].clone();
        (shown["os-vol-host-attr:host"].as_str().unwrap().to_owned(), shown["migration_status"].clone())
    };
    assert_eq!(host().await, ("node-1@cairn#cairn".into(), Value::Null));
    let retype = |policy: &str| json!({"os-retype": {"new_type": "single", "migration_policy": policy}});
    assert_eq!(cloud.act(P1, &volume, retype("never")).await, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.act(P1, &volume, retype("on-demand")).await, StatusCode::ACCEPTED);
    assert_eq!(host().await, ("node-1@cairn-single#cairn-single".into(), json!("success")));
    assert_eq!(cloud.spec(&volume).await.unwrap().copies, Some(1));
    let clone = cloud.volume(P1, json!({"size": 1, "source_volid": volume, "volume_type": "single"})).await;
    assert_eq!(cloud.spec(&clone).await.unwrap().copies, Some(1));

    let plain = cloud.volume(P1, json!({"size": 1})).await;
    let migrate = |host: &str| json!({"os-migrate_volume": {"host": host}});
    assert_eq!(cloud.act(P1, &plain, migrate("node-1@cairn-single")).await, StatusCode::FORBIDDEN);
    for bad in ["node-1@cairn", "node-2@cairn-single", "nonsense@x"] {
        assert_eq!(cloud.act(ADMIN, &plain, migrate(bad)).await, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(
        cloud.act(ADMIN, &plain, migrate("node-1@cairn-single#cairn-single")).await,
        StatusCode::ACCEPTED
    );
    assert_eq!(cloud.spec(&plain).await.unwrap().copies, Some(1));
}

#[tokio::test]
async fn a_type_has_limits_of_its_own() {
    let cloud = Cloud::new().await;
    cloud.new_type("fast", json!({})).await;
    let limit = json!({"quota_set": {"volumes_fast": 1, "gigabytes_fast": 3}});
    let (status, set) = cloud.call(ADMIN, Method::PUT, &format!("/os-quota-sets/{P1}"), limit).await;
    assert_eq!((status, &set["quota_set"]["snapshots_fast"]), (StatusCode::OK, &json!(-1)));
    let volume = cloud.volume(P1, json!({"size": 2, "volume_type": "fast"})).await;
    let more = json!({"volume": {"size": 1, "volume_type": "fast"}});
    assert_eq!(cloud.call(P1, Method::POST, "/volumes", more).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        cloud.act(P1, &volume, json!({"os-extend": {"new_size": 4}})).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let used = cloud.get(P1, &format!("/os-quota-sets/{P1}?usage=true")).await["quota_set"].clone();
    assert_eq!((&used["gigabytes_fast"]["in_use"], &used["volumes_cairn"]["in_use"]), (&json!(2), &json!(0)));
    assert_eq!(
        cloud.act(P1, &volume, json!({"os-retype": {"new_type": "cairn"}})).await,
        StatusCode::ACCEPTED
    );
    let used = cloud.get(P1, &format!("/os-quota-sets/{P1}?usage=true")).await["quota_set"].clone();
    assert_eq!((&used["gigabytes_fast"]["in_use"], &used["volumes_cairn"]["in_use"]), (&json!(0), &json!(1)));
    let bad = json!({"quota_set": {"volumes_absent": 1}});
    let (status, _) = cloud.call(ADMIN, Method::PUT, &format!("/os-quota-sets/{P1}"), bad).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_volume_is_made_anew_of_an_image() {
    let cloud = Cloud::new().await;
    let image = cloud.image().await;
    let (small, volume) =
        (cloud.volume(P1, json!({"size": 1})).await, cloud.volume(P1, json!({"size": 2})).await);
    let reimage = async |id: &str| {
        let path = format!("/v3/volumes/{id}/action");
        let body = json!({"os-reimage": {"image_id": image.id}});
        cloud.call_at("3.68", P1, Method::POST, &path, body).await.0
    };
    assert_eq!(reimage(&small).await, StatusCode::BAD_REQUEST);
    assert_eq!(reimage(&volume).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.status(P1, &volume).await, "downloading");
    cloud.agent().await;
    cloud.agent().await;
    assert_eq!(cloud.status(P1, &volume).await, "available");
    let spec: VolumeSpec = cloud.spec(&volume).await.unwrap();
    assert_eq!((spec.source.as_deref(), spec.deleted), (Some(IMAGE), false));
    let shown = cloud.get(P1, &format!("/volumes/{volume}")).await["volume"].clone();
    assert_eq!(
        (&shown["bootable"], &shown["volume_image_metadata"]["image_id"]),
        (&json!("true"), &json!(IMAGE))
    );
}
