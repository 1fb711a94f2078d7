//! Limits on volumes by their type.

use cairn_shards::throttle::Measure;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, P1};
use crate::servers;

impl Cloud {
    async fn qos(&self, specs: Value) -> String {
        let (status, made) = self.call(ADMIN, Method::POST, "/qos-specs", json!({"qos_specs": specs})).await;
        assert_eq!(status, StatusCode::OK, "{made}");
        made["qos_specs"]["id"].as_str().unwrap().to_owned()
    }

    async fn volume_type(&self, name: &str) -> String {
        let body = json!({"volume_type": {"name": name}});
        let made = self.call(ADMIN, Method::POST, "/types", body).await.1;
        made["volume_type"]["id"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, path: &str) -> StatusCode {
        self.call(ADMIN, Method::GET, path, Value::Null).await.0
    }

    async fn rate(&self, volume: &str) -> Option<u64> {
        let spec = self.spec(volume).await.unwrap();
        spec.limits.get(&Measure::ReadIops).map(|rate| rate.per_s)
    }
}

#[tokio::test]
async fn specs_are_made_changed_and_ended() {
    let cloud = Cloud::new().await;
    let id = cloud.qos(json!({"name": "q", "consumer": "front-end", "read_iops_sec": "2000"})).await;
    let path = format!("/qos-specs/{id}");
    let shown = cloud.get(ADMIN, &path).await;
    assert_eq!(shown["qos_specs"]["specs"], json!({"read_iops_sec": "2000"}));
    let more = json!({"qos_specs": {"iops_bytes": "500"}});
    let (status, answer) = cloud.call(ADMIN, Method::PUT, &path, more).await;
    assert_eq!((status, &answer["qos_specs"]), (StatusCode::OK, &json!({"iops_bytes": "500"})));
    let keys = format!("{path}/delete_keys");
    let gone = cloud.call(ADMIN, Method::PUT, &keys, json!({"keys": ["iops_bytes"]})).await.0;
    assert_eq!(gone, StatusCode::ACCEPTED);
    let again = cloud.call(ADMIN, Method::PUT, &keys, json!({"keys": ["iops_bytes"]})).await.0;
    assert_eq!(again, StatusCode::NOT_FOUND);

    for (wrong, status) in [
        (json!({"name": "q"}), StatusCode::CONFLICT),
        (json!({"name": "r", "consumer": "nobody"}), StatusCode::BAD_REQUEST),
        (json!({"name": "r", "read_iops_sec": "many"}), StatusCode::BAD_REQUEST),
        (json!({"consumer": "both"}), StatusCode::BAD_REQUEST),
    ] {
        let body = json!({"qos_specs": wrong});
        assert_eq!(cloud.call(ADMIN, Method::POST, "/qos-specs", body).await.0, status, "{wrong}");
    }
    assert_eq!(cloud.call(P1, Method::GET, "/qos-specs", Value::Null).await.0, StatusCode::FORBIDDEN);
    assert_eq!(cloud.call(ADMIN, Method::DELETE, &path, Value::Null).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.get(ADMIN, "/qos-specs").await["qos_specs"], json!([]));
}

#[tokio::test]
async fn a_type_has_one_and_keeps_it_from_ending() {
    let cloud = Cloud::new().await;
    let (first, second) = (cloud.qos(json!({"name": "a"})).await, cloud.qos(json!({"name": "b"})).await);
    let of = cloud.volume_type("slow").await;
    let ask = |id: &str, what: &str| format!("/qos-specs/{id}/{what}?vol_type_id={of}");
    assert_eq!(cloud.ask(&ask(&first, "associate")).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.ask(&ask(&second, "associate")).await, StatusCode::BAD_REQUEST);
    let found = cloud.get(ADMIN, &format!("/qos-specs/{first}/associations")).await;
    assert_eq!(found["qos_associations"][0]["id"], of);
    assert_eq!(cloud.get(ADMIN, &format!("/types/{of}")).await["volume_type"]["qos_specs_id"], first);
    let path = format!("/qos-specs/{first}");
    assert_eq!(cloud.call(ADMIN, Method::DELETE, &path, Value::Null).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(cloud.ask(&ask(&first, "disassociate")).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.ask(&ask(&second, "associate")).await, StatusCode::ACCEPTED);
    let forced = format!("/qos-specs/{second}?force=True");
    assert_eq!(cloud.call(ADMIN, Method::DELETE, &forced, Value::Null).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.get(ADMIN, &format!("/types/{of}")).await["volume_type"]["qos_specs_id"], Value::Null);
}

#[tokio::test]
async fn a_volume_has_the_limits_of_its_type_from_when_a_server_gets_it() {
    let cloud = Cloud::new().await;
    let of = cloud.volume_type("slow").await;
    let qos = cloud.qos(json!({"name": "q", "read_iops_sec_per_gb": "100"})).await;
    assert_eq!(
        cloud.ask(&format!("/qos-specs/{qos}/associate?vol_type_id={of}")).await,
        StatusCode::ACCEPTED
    );
    let id = cloud.volume(P1, json!({"size": 2, "volume_type": "slow"})).await;
    assert_eq!(cloud.rate(&id).await, None);
    let caller = super::caller(P1);
    cloud.tx(|tx| servers::reserve(tx, &caller, &id, "s", "node-1", None)).await.unwrap();
    assert_eq!(cloud.rate(&id).await, Some(200));

    let other = cloud.volume(P1, json!({"size": 1})).await;
    let retype = json!({"os-retype": {"new_type": "slow"}});
    assert_eq!(cloud.act(P1, &other, retype).await, StatusCode::ACCEPTED);
    assert_eq!(cloud.rate(&other).await, Some(100));
}
