//! Volumes of encrypted types: which are, what is made of them, what their users see of it.

use cairn_state::StoreExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, IMAGE, P1, P2};

impl Cloud {
    async fn secret_type(&self) {
        let id = self.new_type("secret", json!({})).await;
        let body = json!({"encryption": {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256}});
        let path = format!("/types/{id}/encryption");
        assert_eq!(self.call(ADMIN, Method::POST, &path, body).await.0, StatusCode::OK);
    }

    async fn secret(&self) -> String {
        self.volume(P1, json!({"size": 1, "volume_type": "secret"})).await
    }

    async fn key(&self, id: &str) -> Option<String> {
        self.spec(id).await.unwrap().key.map(|key| key.id)
    }

    async fn asked(&self, body: Value) -> (StatusCode, Value) {
        self.call(P1, Method::POST, "/volumes", json!({"volume": body})).await
    }
}

#[tokio::test]
async fn a_volume_of_an_encrypted_type_has_a_key_and_shows_its_name_alone() {
    let cloud = Cloud::new().await;
    cloud.secret_type().await;
    let (secret, plain) = (cloud.secret().await, cloud.volume(P1, json!({"size": 1})).await);
    let key = cloud.key(&secret).await.unwrap();
    assert_eq!(cloud.key(&plain).await, None);
    assert_ne!(cloud.key(&cloud.secret().await).await.unwrap(), key, "each has its own");
    let show = async |minor: &str, id: &str| {
        let shown = cloud.call_at(minor, P1, Method::GET, &format!("/v3/volumes/{id}"), Value::Null).await.1;
        shown["volume"].clone()
    };
    let shown = show("3.64", &secret).await;
    assert_eq!((&shown["encrypted"], &shown["encryption_key_id"]), (&json!(true), &json!(key)));
    assert_eq!(show("3.63", &secret).await.get("encryption_key_id"), None);
    assert_eq!(show("3.64", &plain).await.get("encryption_key_id"), None);
    assert_eq!(show("3.64", &plain).await["encrypted"], json!(false));

    let listed = cloud.get(P1, "/volumes?encrypted=true").await["volumes"].clone();
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");

    let path = format!("/volumes/{secret}/encryption");
    let expected = json!({"encryption_key_id": key, "provider": "luks", "cipher": "aes-xts-plain64",
                          "key_size": 256, "control_location": "front-end"});
    assert_eq!(cloud.get(P1, &path).await, expected);
    assert_eq!(cloud.get(P1, &format!("{path}/cipher")).await, json!({"cipher": "aes-xts-plain64"}));
    let none = cloud.get(P1, &format!("/volumes/{plain}/encryption")).await;
    assert_eq!(none, json!({"encryption_key_id": null}));
    assert_eq!(cloud.call(P2, Method::GET, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_made_of_an_encrypted_volume_has_its_key_and_nothing_else_takes_it() {
    let cloud = Cloud::new().await;
    cloud.secret_type().await;
    let (secret, plain) = (cloud.secret().await, cloud.volume(P1, json!({"size": 1})).await);
    let key = cloud.key(&secret).await;
    let clone = cloud.volume(P1, json!({"source_volid": secret})).await;
    assert_eq!(cloud.key(&clone).await, key, "without a type it gets its source's");
    assert_eq!(cloud.spec(&clone).await.unwrap().recoded, None, "it shares its source's blocks");

    let body = json!({"snapshot": {"volume_id": secret}});
    let snapshot = cloud.call(P1, Method::POST, "/snapshots", body).await.1["snapshot"]["id"].clone();
    cloud.agent().await;
    assert_eq!(cloud.key(snapshot.as_str().unwrap()).await, key);
    for (source, other) in [
        (json!({"source_volid": secret}), "cairn"),
        (json!({"snapshot_id": snapshot}), "cairn"),
        (json!({"source_volid": plain}), "secret"),
    ] {
        let mut wanted = source.clone();
        wanted["volume_type"] = json!(other);
        assert_eq!(cloud.asked(wanted).await.0, StatusCode::BAD_REQUEST, "{source} as {other}");
    }
    let offer = json!({"transfer": {"volume_id": secret}});
    for (minor, expected) in [("3.69", StatusCode::BAD_REQUEST), ("3.70", StatusCode::ACCEPTED)] {
        let path = "/v3/volume-transfers";
        let status = cloud.call_at(minor, P1, Method::POST, path, offer.clone()).await.0;
        assert_eq!(status, expected, "at {minor}");
    }
    let path = format!("/volumes/{clone}/action");
    let (status, why) = cloud.call(ADMIN, Method::POST, &path, json!({"os-unmanage": {}})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{why}");
}

#[tokio::test]
async fn an_image_in_an_encrypted_volume_comes_under_a_key_of_its_own() {
    let cloud = Cloud::new().await;
    cloud.image().await;
    cloud.secret_type().await;
    let fields = json!({"size": 2, "imageRef": IMAGE, "volume_type": "secret"});
    let volume = cloud.volume(P1, fields).await;
    let spec = cloud.spec(&volume).await.unwrap();
    assert!(spec.key.is_some() && spec.recoded.is_some_and(|r| r.from.is_none()));

    // An image of an encrypted volume goes into no other.
    let plain = cloud.volume(P1, json!({"size": 2})).await;
    let mut image = cloud.spec(IMAGE).await.unwrap();
    image.key = spec.key;
    cloud.svc.store.put_record(&image).await.unwrap();
    assert_eq!(cloud.asked(json!({"size": 2, "imageRef": IMAGE})).await.0, StatusCode::BAD_REQUEST);
    for (id, expected) in [(&plain, StatusCode::BAD_REQUEST), (&volume, StatusCode::ACCEPTED)] {
        let body = json!({"os-reimage": {"image_id": IMAGE}});
        let path = format!("/v3/volumes/{id}/action");
        assert_eq!(cloud.call_at("3.68", P1, Method::POST, &path, body).await.0, expected);
    }
}

#[tokio::test]
async fn a_volume_comes_under_a_key_and_out_of_it_by_a_copy() {
    let cloud = Cloud::new().await;
    cloud.secret_type().await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let retype = |to: &str, policy: &str| json!({"os-retype": {"new_type": to, "migration_policy": policy}});
    assert_eq!(cloud.act(P1, &volume, retype("secret", "never")).await, StatusCode::BAD_REQUEST);
    for to in ["secret", "cairn"] {
        let before = cloud.key(&volume).await;
        assert_eq!(cloud.act(P1, &volume, retype(to, "on-demand")).await, StatusCode::ACCEPTED);
        assert_eq!(cloud.status(P1, &volume).await, "retyping");
        assert_eq!(cloud.key(&volume).await, before, "until there is a copy");
        for _ in 0..5 {
            cloud.agent().await;
        }
        let shown = cloud.get(ADMIN, &format!("/volumes/{volume}")).await["volume"].clone();
        assert_eq!(
            (&shown["status"], &shown["volume_type"], &shown["migration_status"]),
            (&json!("available"), &json!(to), &json!("success"))
        );
        let spec = cloud.spec(&volume).await.unwrap();
        assert_eq!((spec.key.is_some(), spec.recoded.is_some()), (to == "secret", true));
        assert!(cloud.spec(spec.source.as_deref().unwrap()).await.is_none(), "the copy is gone");
    }
}
