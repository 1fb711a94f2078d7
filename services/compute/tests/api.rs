//! The compute API through the gateway, on a simulated node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(dead_code, reason = "what the simulated cloud offers is for several tests")]

mod simulated;

use std::time::Duration;

use cairn_compute::model::{HostStatus, InstanceStatus, Server, hypervisor_uuid};
use cairn_network::model::Port;
use cairn_placement::model::{Allocation, ResourceProvider};
use cairn_shards::model::VolumeSpec;
use cairn_state::StoreExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use simulated::NODE;
use simulated::user::{SERVERS, admin, count};

#[tokio::test]
async fn the_life_of_a_server() {
    let cloud = simulated::cloud().await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let (status, made) =
        admin.post(SERVERS, ground.order(json!({"metadata": {"a": "b"}, "tags": ["t"]}))).await;
    assert_eq!(status, 202, "{made}");
    let id = made["server"]["id"].as_str().unwrap().to_owned();
    assert!(made["server"]["adminPass"].as_str().is_some_and(|p| p.len() == 12));
    let shown = admin.status(&id, "ACTIVE").await;
    assert_eq!(shown["server"]["OS-EXT-SRV-ATTR:host"], NODE);
    assert_eq!(shown["server"]["addresses"]["n"][0]["OS-EXT-IPS:type"], "fixed");
    let action = format!("{SERVERS}/{id}/action");
    for (body, then) in [
        (json!({"os-stop": null}), "SHUTOFF"),
        (json!({"os-start": null}), "ACTIVE"),
        (json!({"pause": null}), "PAUSED"),
        (json!({"unpause": null}), "ACTIVE"),
        (json!({"reboot": {"type": "HARD"}}), "ACTIVE"),
    ] {
        assert_eq!(admin.post(&action, body.clone()).await.0, 202, "{body}");
        admin.status(&id, then).await;
    }
    assert_eq!(admin.post(&action, json!({"os-start": null})).await.0, 409);
    assert_eq!(admin.post(&action, json!({"rebuild": {"imageRef": "2"}})).await.0, 501);
    let (status, log) = admin.post(&action, json!({"os-getConsoleOutput": {"length": 2}})).await;
    assert_eq!((status, log), (StatusCode::OK, json!({"output": "one line\none line"})));
    let done = admin.get(&format!("{SERVERS}/{id}/os-instance-actions")).await;
    assert_eq!(done["instanceActions"].as_array().unwrap().len(), 6);
    assert_eq!(admin.call(Method::DELETE, &format!("{SERVERS}/{id}"), None).await.0, 204);
    admin.until(&format!("{SERVERS}/{id}"), |b| b["itemNotFound"]["code"] == 404).await;
    assert_eq!(count::<Server>(&cloud.store).await, 0);
    assert_eq!(count::<InstanceStatus>(&cloud.store).await, 0);
    assert_eq!(count::<Allocation>(&cloud.store).await, 0);
    let limits = admin.get("/compute/v2.1/limits").await;
    assert_eq!(limits["limits"]["absolute"]["totalInstancesUsed"], 0);
}

#[tokio::test]
async fn an_order_that_fails_in_the_middle_leaves_nothing() {
    let cloud = simulated::cloud().await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let before = (count::<Port>(&cloud.store).await, count::<VolumeSpec>(&cloud.store).await);
    // The first port is made before the second is refused.
    let absent = "00000000-0000-4000-8000-000000000000";
    let networks = json!({"networks": [{"uuid": ground.network}, {"uuid": absent}]});
    let (status, body) = admin.post(SERVERS, ground.order(networks)).await;
    assert_eq!(status, 400, "{body}");
    let missing = json!({"block_device_mapping_v2": [
        {"boot_index": 0, "source_type": "image", "destination_type": "local", "uuid": ground.image},
        {"boot_index": 1, "source_type": "volume", "destination_type": "volume", "uuid": absent},
    ]});
    assert_eq!(admin.post(SERVERS, ground.order(missing)).await.0, 400);
    assert_eq!(count::<Server>(&cloud.store).await, 0);
    assert_eq!(count::<Allocation>(&cloud.store).await, 0);
    assert_eq!((count::<Port>(&cloud.store).await, count::<VolumeSpec>(&cloud.store).await), before);
    let limits = admin.get("/compute/v2.1/limits").await;
    assert_eq!(limits["limits"]["absolute"]["totalInstancesUsed"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_gets_the_last_room_and_the_other_is_told() {
    let cloud = simulated::cloud().await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    // Room for one such server: 600 MiB less a quarter for the node.
    let mut host = cloud.store.get_record::<HostStatus>(NODE).await.unwrap().unwrap();
    host.memory_mb = 600;
    cloud.store.put_record(&host).await.unwrap();
    let row = |p: &ResourceProvider| p.inventories["MEMORY_MB"].total;
    while row(&cloud.store.get_record(&hypervisor_uuid(NODE)).await.unwrap().unwrap()) != 600 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let flavor = json!({"flavor": {"name": "f", "id": "f", "ram": 400, "vcpus": 1, "disk": 1}});
    assert_eq!(admin.post("/compute/v2.1/flavors", flavor).await.0, 200);
    let order = || admin.post(SERVERS, ground.order(json!({"flavorRef": "f"})));
    let ((a, first), (b, second)) = tokio::join!(order(), order());
    assert_eq!((a, b), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    let mut statuses = Vec::new();
    for made in [first, second] {
        let path = format!("{SERVERS}/{}", made["server"]["id"].as_str().unwrap());
        let settled = |b: &Value| ["ACTIVE", "ERROR"].contains(&b["server"]["status"].as_str().unwrap_or(""));
        let shown = admin.until(&path, settled).await;
        if shown["server"]["status"] == "ERROR" {
            assert_eq!(shown["server"]["fault"]["code"], 500);
            assert!(
                shown["server"]["fault"]["message"].as_str().unwrap().starts_with("No valid host was found.")
            );
            assert_eq!(admin.call(Method::DELETE, &path, None).await.0, 204);
            assert_eq!(admin.call(Method::GET, &path, None).await.0, 404, "it was on no node");
        }
        statuses.push(shown["server"]["status"].as_str().unwrap().to_owned());
    }
    statuses.sort();
    assert_eq!(statuses, ["ACTIVE", "ERROR"]);
}

#[tokio::test]
async fn a_quota_is_kept() {
    let cloud = simulated::cloud().await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let (status, body) = admin.post(SERVERS, ground.order(json!({"min_count": 11, "max_count": 11}))).await;
    assert_eq!(status, 403);
    assert!(
        body["forbidden"]["message"].as_str().unwrap().starts_with("Quota exceeded for instances"),
        "{body}"
    );
    let (status, _) = admin.post(SERVERS, ground.order(json!({"min_count": 2, "max_count": 12}))).await;
    assert_eq!(status, 202);
    let listed = admin.get(&format!("{SERVERS}?limit=4")).await;
    assert_eq!(listed["servers"].as_array().unwrap().len(), 4);
    assert_eq!(listed["servers_links"][0]["rel"], "next");
    assert_eq!(count::<Server>(&cloud.store).await, 10);
}

#[tokio::test]
async fn a_volume_comes_and_goes() {
    let cloud = simulated::cloud().await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let (_, made) = admin.post(SERVERS, ground.order(json!({}))).await;
    let id = made["server"]["id"].as_str().unwrap().to_owned();
    admin.status(&id, "ACTIVE").await;
    let (_, volume) = admin.post("/volume/v3/volumes", json!({"volume": {"size": 1}})).await;
    let volume = volume["volume"]["id"].as_str().unwrap().to_owned();
    let path = format!("/volume/v3/volumes/{volume}");
    admin.until(&path, |b| b["volume"]["status"] == "available").await;
    let attachments = format!("{SERVERS}/{id}/os-volume_attachments");
    let attach = json!({"volumeAttachment": {"volumeId": volume}});
    let (status, body) = admin.post(&attachments, attach.clone()).await;
    assert_eq!((status, &body["volumeAttachment"]["device"]), (StatusCode::OK, &json!("/dev/vdb")), "{body}");
    admin.until(&path, |b| b["volume"]["status"] == "in-use").await;
    assert_eq!(admin.post(&attachments, attach).await.0, 400, "it is taken");
    let held = format!("{attachments}/{volume}");
    assert_eq!(admin.call(Method::DELETE, &held, None).await.0, 202);
    admin.until(&path, |b| b["volume"]["status"] == "available").await;
    assert_eq!(admin.call(Method::GET, &held, None).await.0, 404);
}

#[tokio::test]
async fn a_microversion_is_negotiated() {
    let cloud = simulated::cloud().await;
    let mut admin = admin(&cloud).await;
    admin.mv = "2.9999";
    let (status, body) = admin.call(Method::GET, SERVERS, None).await;
    assert_eq!((status, &body["computeFault"]["code"]), (StatusCode::NOT_ACCEPTABLE, &json!(406)));
    admin.mv = "2.60";
    let answer = admin.send(Method::GET, SERVERS, None).await;
    assert_eq!(answer.headers()["x-openstack-nova-api-version"], "2.60");
    assert_eq!(answer.headers()["openstack-api-version"], "compute 2.60");
    assert_eq!(answer.headers().get_all("vary").iter().count(), 2);
    let (status, _) = admin.call(Method::GET, "/compute/v2.1/os-security-groups", None).await;
    assert_eq!(status, 404, "gone since 2.36");
}
