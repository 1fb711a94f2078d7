//! Servers that move between simulated nodes: by a request, for maintenance, and from a node that is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(dead_code, reason = "what the simulated cloud offers is for several tests")]

mod simulated;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use cairn_compute::drain;
use cairn_compute::model::{Migration, MoveStatus, Server, hypervisor_uuid};
use cairn_network::model::Port;
use cairn_placement::model::{Allocation, MEMORY_MB, ResourceProvider};
use cairn_shards::model::VolumeSpec;
use cairn_state::StoreExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use simulated::user::{Ground, SERVERS, User, admin, count};
use simulated::{Cloud, cloud_of, node};

const ACCEPTED: StatusCode = StatusCode::ACCEPTED;

/// Makes a server on a node and waits for it.
async fn server_on(user: &User<'_>, ground: &Ground, host: &str) -> String {
    let (status, made) = user.post(SERVERS, ground.order(json!({"host": host}))).await;
    assert_eq!(status, ACCEPTED, "{made}");
    let id = made["server"]["id"].as_str().unwrap().to_owned();
    user.status(&id, "ACTIVE").await;
    id
}

async fn act(user: &User<'_>, id: &str, action: Value) -> (StatusCode, Value) {
    user.post(&format!("{SERVERS}/{id}/action"), action).await
}

async fn host(user: &User<'_>, id: &str) -> String {
    let shown = user.get(&format!("{SERVERS}/{id}")).await;
    shown["server"]["OS-EXT-SRV-ATTR:host"].as_str().unwrap().to_owned()
}

/// Waits until a server rests on a node.
async fn rests_on(user: &User<'_>, id: &str, status: &str, host: &str) {
    user.until(&format!("{SERVERS}/{id}"), |b| {
        let s = &b["server"];
        s["status"] == status && s["OS-EXT-STS:task_state"].is_null() && s["OS-EXT-SRV-ATTR:host"] == host
    })
    .await;
}

/// The memory that is claimed on a node.
async fn claimed(cloud: &Cloud, host: &str) -> u64 {
    let provider = cloud.store.get_record::<ResourceProvider>(&hypervisor_uuid(host)).await.unwrap().unwrap();
    provider.used.get(MEMORY_MB).copied().unwrap_or(0)
}

/// Everything of a server is on this node and nothing is held elsewhere.
async fn whole_on(cloud: &Cloud, id: &str, host: &str) {
    for port in cloud.store.list_records::<Port>().await.unwrap() {
        assert!(port.device_id != id || port.host.as_deref() == Some(host), "{port:?}");
    }
    for spec in cloud.store.list_records::<VolumeSpec>().await.unwrap() {
        assert!(spec.export.as_ref().is_none_or(|e| e.owner != id || e.node == host), "{spec:?}");
    }
    assert_eq!(count::<Allocation>(&cloud.store).await, count::<Server>(&cloud.store).await);
    // A node may still have said something in the last moment.
    let began = Instant::now();
    while count::<MoveStatus>(&cloud.store).await > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "what nodes said of a migration is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_cold_migration_is_confirmed_or_reverted() {
    let cloud = cloud_of(2).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let (a, b) = (node(1), node(2));
    let id = server_on(&admin, &ground, &a).await;
    assert_eq!(act(&admin, &id, json!({"confirmResize": null})).await.0, 409);
    assert_eq!(act(&admin, &id, json!({"migrate": {"host": a}})).await.0, 400, "it is there");
    assert_eq!(act(&admin, &id, json!({"migrate": {"host": "nowhere"}})).await.0, 400);
    assert_eq!(act(&admin, &id, json!({"migrate": null})).await.0, ACCEPTED);
    rests_on(&admin, &id, "VERIFY_RESIZE", &b).await;
    assert_eq!((claimed(&cloud, &a).await, claimed(&cloud, &b).await), (128, 128), "both sides are held");
    assert_eq!(act(&admin, &id, json!({"revertResize": null})).await.0, ACCEPTED);
    rests_on(&admin, &id, "ACTIVE", &a).await;
    assert_eq!((claimed(&cloud, &a).await, claimed(&cloud, &b).await), (128, 0));
    whole_on(&cloud, &id, &a).await;
    assert_eq!(act(&admin, &id, json!({"migrate": {"host": b}})).await.0, ACCEPTED);
    rests_on(&admin, &id, "VERIFY_RESIZE", &b).await;
    assert_eq!(act(&admin, &id, json!({"confirmResize": null})).await.0, 204);
    rests_on(&admin, &id, "ACTIVE", &b).await;
    assert_eq!((claimed(&cloud, &a).await, claimed(&cloud, &b).await), (0, 128));
    whole_on(&cloud, &id, &b).await;
    let listed = admin.get(&format!("/compute/v2.1/os-migrations?instance_uuid={id}")).await;
    let statuses: Vec<_> = listed["migrations"].as_array().unwrap().iter().map(|m| &m["status"]).collect();
    assert_eq!(statuses, ["confirmed", "reverted"]);
    assert_eq!(listed["migrations"][0]["migration_type"], "migration");
    let done = admin.get(&format!("{SERVERS}/{id}/os-instance-actions")).await;
    let done: Vec<_> = done["instanceActions"].as_array().unwrap().iter().map(|a| &a["action"]).collect();
    assert_eq!(done, ["confirmResize", "migrate", "revertResize", "migrate", "create"]);
}

#[tokio::test]
async fn a_stopped_server_is_resized_and_counted_by_its_new_flavor() {
    let cloud = cloud_of(1).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let a = node(1);
    let id = server_on(&admin, &ground, &a).await;
    assert_eq!(act(&admin, &id, json!({"os-stop": null})).await.0, ACCEPTED);
    rests_on(&admin, &id, "SHUTOFF", &a).await;
    assert_eq!(act(&admin, &id, json!({"resize": {"flavorRef": "c1"}})).await.0, 400, "it has that one");
    assert_eq!(act(&admin, &id, json!({"resize": {"flavorRef": "none"}})).await.0, 400);
    assert_eq!(act(&admin, &id, json!({"resize": {"flavorRef": "2", "x": 1}})).await.0, 400);
    assert_eq!(act(&admin, &id, json!({"resize": {"flavorRef": "2"}})).await.0, ACCEPTED);
    rests_on(&admin, &id, "VERIFY_RESIZE", &a).await;
    let used = async || {
        let limits = admin.get("/compute/v2.1/limits").await;
        limits["limits"]["absolute"]["totalRAMUsed"].as_u64().unwrap()
    };
    let flavor = async || admin.get(&format!("{SERVERS}/{id}")).await["server"]["flavor"]["ram"].clone();
    assert_eq!((used().await, flavor().await), (2048, json!(2048)));
    assert_eq!(claimed(&cloud, &a).await, 2048 + 128);
    assert_eq!(act(&admin, &id, json!({"revertResize": null})).await.0, ACCEPTED);
    rests_on(&admin, &id, "SHUTOFF", &a).await;
    assert_eq!((used().await, flavor().await, claimed(&cloud, &a).await), (128, json!(128), 128));
    assert_eq!(act(&admin, &id, json!({"resize": {"flavorRef": "2"}})).await.0, ACCEPTED);
    rests_on(&admin, &id, "VERIFY_RESIZE", &a).await;
    assert_eq!(act(&admin, &id, json!({"confirmResize": null})).await.0, 204);
    rests_on(&admin, &id, "SHUTOFF", &a).await;
    assert_eq!((used().await, claimed(&cloud, &a).await), (2048, 2048));
    let quota = json!({"quota_set": {"ram": 3000}});
    let project = cloud.store.get_record::<Server>(&id).await.unwrap().unwrap().project_id;
    admin.call(Method::PUT, &format!("/compute/v2.1/os-quota-sets/{project}"), Some(quota)).await;
    assert_eq!(act(&admin, &id, json!({"resize": {"flavorRef": "3"}})).await.0, 403, "beyond the quota");
    assert_eq!(admin.call(Method::DELETE, &format!("{SERVERS}/{id}"), None).await.0, 204);
    admin.until(&format!("{SERVERS}/{id}"), |b| b["itemNotFound"]["code"] == 404).await;
    assert_eq!(used().await, 0);
}

#[tokio::test]
async fn a_server_that_moves_can_be_deleted_and_leaves_nothing() {
    let cloud = cloud_of(2).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let id = server_on(&admin, &ground, &node(1)).await;
    let (status, body) = act(&admin, &id, json!({"resize": {"flavorRef": "2"}})).await;
    assert_eq!(status, ACCEPTED, "{body}");
    admin.status(&id, "VERIFY_RESIZE").await;
    assert_eq!(admin.call(Method::DELETE, &format!("{SERVERS}/{id}"), None).await.0, 204);
    admin.until(&format!("{SERVERS}/{id}"), |b| b["itemNotFound"]["code"] == 404).await;
    assert_eq!(count::<Allocation>(&cloud.store).await, 0);
    assert_eq!((claimed(&cloud, &node(1)).await, claimed(&cloud, &node(2)).await), (0, 0));
    let limits = admin.get("/compute/v2.1/limits").await;
    assert_eq!(limits["limits"]["absolute"]["totalRAMUsed"], 0);
}

fn live(host: Value) -> Value {
    json!({"os-migrateLive": {"host": host, "block_migration": "auto"}})
}

#[tokio::test]
async fn a_running_server_moves_and_runs_on() {
    let cloud = cloud_of(3).await;
    let mut admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let (a, b) = (node(1), node(2));
    let id = server_on(&admin, &ground, &a).await;
    for bad in [
        json!({"os-migrateLive": {"host": b}}),
        json!({"os-migrateLive": {"host": b, "block_migration": true}}),
        json!({"os-migrateLive": {"host": b, "block_migration": "auto", "force": true}}),
        live(json!("nowhere")),
        live(json!(a)),
    ] {
        assert_eq!(act(&admin, &id, bad.clone()).await.0, 400, "{bad}");
    }
    let boots = cloud.store.get_record::<Server>(&id).await.unwrap().unwrap().boot.seq;
    assert_eq!(act(&admin, &id, live(json!(b))).await.0, ACCEPTED);
    rests_on(&admin, &id, "ACTIVE", &b).await;
    whole_on(&cloud, &id, &b).await;
    assert_eq!((claimed(&cloud, &a).await, claimed(&cloud, &b).await), (0, 128));
    let after = cloud.store.get_record::<Server>(&id).await.unwrap().unwrap();
    assert_eq!(after.boot.seq, boots, "it was not booted");
    assert_eq!(act(&admin, &id, json!({"pause": null})).await.0, ACCEPTED);
    admin.status(&id, "PAUSED").await;
    admin.mv = "2.1";
    let old = json!({"host": null, "block_migration": false, "disk_over_commit": false});
    assert_eq!(act(&admin, &id, json!({"os-migrateLive": old})).await.0, ACCEPTED);
    admin.mv = "2.96";
    admin.status(&id, "PAUSED").await;
    assert_ne!(host(&admin, &id).await, b);
    let listed = admin.get("/compute/v2.1/os-migrations?migration_type=live-migration").await;
    let statuses: Vec<_> = listed["migrations"].as_array().unwrap().iter().map(|m| &m["status"]).collect();
    assert_eq!(statuses, ["completed", "completed"]);
}

#[tokio::test]
async fn a_live_migration_is_watched_aborted_and_hurried() {
    let cloud = cloud_of(2).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let (a, b) = (node(1), node(2));
    let id = server_on(&admin, &ground, &a).await;
    cloud.troubles.slow.store(true, Relaxed);
    assert_eq!(act(&admin, &id, live(Value::Null)).await.0, ACCEPTED);
    let running = format!("{SERVERS}/{id}/migrations");
    let shown = admin.until(&running, |b| b["migrations"][0]["memory_processed_bytes"] == 40).await;
    let number = shown["migrations"][0]["id"].as_u64().unwrap();
    assert_eq!(shown["migrations"][0]["status"], "running");
    assert_eq!(admin.get(&format!("{running}/{number}")).await["migration"]["dest_compute"], json!(b));
    let server = admin.get(&format!("{SERVERS}/{id}")).await;
    assert_eq!(
        (&server["server"]["status"], &server["server"]["OS-EXT-SRV-ATTR:host"]),
        (&json!("MIGRATING"), &json!(a))
    );
    assert_eq!(act(&admin, &id, json!({"os-stop": null})).await.0, 409, "it is under way");
    assert_eq!(admin.call(Method::DELETE, &format!("{running}/{}", number + 1), None).await.0, 404);
    assert_eq!(admin.call(Method::DELETE, &format!("{running}/{number}"), None).await.0, ACCEPTED);
    rests_on(&admin, &id, "ACTIVE", &a).await;
    whole_on(&cloud, &id, &a).await;
    assert_eq!((claimed(&cloud, &a).await, claimed(&cloud, &b).await), (128, 0));
    let listed = admin.get("/compute/v2.1/os-migrations").await;
    assert_eq!(listed["migrations"][0]["status"], "cancelled");
    assert_eq!(act(&admin, &id, live(Value::Null)).await.0, ACCEPTED);
    admin.until(&running, |b| b["migrations"][0]["status"] == "running").await;
    let force = format!("{running}/{}/action", number + 1);
    assert_eq!(admin.post(&force, json!({"force_complete": null})).await.0, ACCEPTED);
    rests_on(&admin, &id, "ACTIVE", &b).await;
    whole_on(&cloud, &id, &b).await;
}

#[tokio::test]
async fn a_live_migration_that_fails_leaves_the_server_where_it_is() {
    let cloud = cloud_of(2).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let a = node(1);
    let id = server_on(&admin, &ground, &a).await;
    cloud.troubles.failing.store(true, Relaxed);
    assert_eq!(act(&admin, &id, live(Value::Null)).await.0, ACCEPTED);
    rests_on(&admin, &id, "ACTIVE", &a).await;
    whole_on(&cloud, &id, &a).await;
    let done = admin.get(&format!("{SERVERS}/{id}/os-instance-actions")).await;
    assert_eq!(done["instanceActions"][0]["message"], "the link broke");
    // No node but its own is left: the client has had its answer, and the log says why.
    let off = json!({"status": "disabled"});
    let services = admin.get(&format!("/compute/v2.1/os-services?host={}", node(2))).await;
    let service = services["services"][0]["id"].as_str().unwrap().to_owned();
    admin.call(Method::PUT, &format!("/compute/v2.1/os-services/{service}"), Some(off)).await;
    assert_eq!(act(&admin, &id, live(Value::Null)).await.0, ACCEPTED);
    let log = format!("{SERVERS}/{id}/os-instance-actions");
    let done = admin.get(&log).await;
    assert!(done["instanceActions"][0]["message"].as_str().unwrap().starts_with("No valid host"), "{done}");
    admin.status(&id, "ACTIVE").await;
}

/// A node that dies: its guests run on elsewhere once it must have stopped them, and not before.
#[tokio::test]
async fn the_guests_of_a_lost_node_run_elsewhere() {
    let cloud = cloud_of(3).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let a = node(1);
    let (one, two) = (server_on(&admin, &ground, &a).await, server_on(&admin, &ground, &a).await);
    assert_eq!(act(&admin, &two, json!({"os-stop": null})).await.0, ACCEPTED);
    admin.status(&two, "SHUTOFF").await;
    let began = Instant::now();
    cloud.troubles.dead.lock().unwrap().insert(a.clone());
    let path = format!("{SERVERS}/{one}");
    let moved = |b: &Value| {
        let s = &b["server"];
        s["status"] == "ACTIVE" && s["OS-EXT-STS:task_state"].is_null() && s["OS-EXT-SRV-ATTR:host"] != *a
    };
    let shown = admin.until(&path, moved).await;
    assert!(began.elapsed() >= Duration::from_secs(20), "it might still have run there");
    let off = |b: &Value| b["server"]["status"] == "SHUTOFF" && b["server"]["OS-EXT-SRV-ATTR:host"] != *a;
    admin.until(&format!("{SERVERS}/{two}"), off).await;
    whole_on(&cloud, &one, shown["server"]["OS-EXT-SRV-ATTR:host"].as_str().unwrap()).await;
    let all = cloud.store.list_records::<Migration>().await.unwrap();
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|m| m.kind.name() == "evacuation" && m.source == a));
    assert_eq!(claimed(&cloud, &a).await, 0);
}

#[tokio::test]
async fn an_evacuation_waits_until_the_old_node_has_stopped_the_guest() {
    let cloud = cloud_of(2).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let (a, b) = (node(1), node(2));
    let id = server_on(&admin, &ground, &a).await;
    let (status, body) = act(&admin, &id, json!({"evacuate": {}})).await;
    assert_eq!(status, 400, "its node is alive: {body}");
    let services = admin.get(&format!("/compute/v2.1/os-services?host={a}")).await;
    let service = format!("/compute/v2.1/os-services/{}", services["services"][0]["id"].as_str().unwrap());
    let down = json!({"forced_down": true});
    assert_eq!(admin.call(Method::PUT, &service, Some(down)).await.0, 200);
    assert_eq!(act(&admin, &id, json!({"evacuate": {"host": a}})).await.0, 400);
    assert_eq!(act(&admin, &id, json!({"evacuate": {"host": "nowhere"}})).await.0, 404);
    assert_eq!(act(&admin, &id, json!({"evacuate": {"host": b}})).await.0, 200);
    rests_on(&admin, &id, "ACTIVE", &b).await;
    whole_on(&cloud, &id, &b).await;
    let listed = admin.get("/compute/v2.1/os-migrations?migration_type=evacuation").await;
    assert_eq!(listed["migrations"][0]["status"], "done");
}

#[tokio::test]
async fn maintenance_empties_a_node() {
    let cloud = cloud_of(2).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let (a, b) = (node(1), node(2));
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(server_on(&admin, &ground, &a).await);
    }
    assert_eq!(act(&admin, &ids[3], json!({"os-stop": null})).await.0, ACCEPTED);
    admin.status(&ids[3], "SHUTOFF").await;
    let actor = cairn_compute::actions::Actor::cloud();
    assert!(drain::drain(&cloud.compute, "nowhere", &actor, None).await.is_err());
    drain::drain(&cloud.compute, &a, &actor, Some("new memory")).await.unwrap();
    let began = Instant::now();
    while !drain::progress(&cloud.compute, &a).unwrap().done() {
        let progress = drain::progress(&cloud.compute, &a).unwrap();
        assert!(began.elapsed() < Duration::from_secs(60), "{progress:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for id in &ids[..3] {
        rests_on(&admin, id, "ACTIVE", &b).await;
    }
    rests_on(&admin, &ids[3], "SHUTOFF", &b).await;
    let services = admin.get(&format!("/compute/v2.1/os-services?host={a}")).await;
    assert_eq!(services["services"][0]["disabled_reason"], "new memory");
    assert_eq!(claimed(&cloud, &a).await, 0);
    drain::undrain(&cloud.compute, &a).await.unwrap();
    assert!(!drain::progress(&cloud.compute, &a).unwrap().draining);
    assert_eq!(act(&admin, &ids[0], live(json!(a))).await.0, ACCEPTED, "it takes servers again");
    rests_on(&admin, &ids[0], "ACTIVE", &a).await;
}

#[tokio::test]
async fn a_node_that_cannot_start_a_guest_is_not_the_last_to_try() {
    let cloud = cloud_of(2).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    cloud.troubles.broken.lock().unwrap().insert(node(1));
    let (_, made) = admin.post(SERVERS, ground.order(json!({}))).await;
    let id = made["server"]["id"].as_str().unwrap().to_owned();
    rests_on(&admin, &id, "ACTIVE", &node(2)).await;
    whole_on(&cloud, &id, &node(2)).await;
    let server = cloud.store.get_record::<Server>(&id).await.unwrap().unwrap();
    assert_eq!(server.tried.into_iter().collect::<Vec<_>>(), [node(1)]);
    let done = admin.get(&format!("{SERVERS}/{id}/os-instance-actions")).await;
    let said = format!("{}: it has no accelerator", node(1));
    let all = done["instanceActions"].as_array().unwrap();
    assert!(all.iter().any(|a| a["action"] == "reschedule" && a["message"] == json!(said)), "{done}");
    cloud.troubles.broken.lock().unwrap().insert(node(2));
    let (_, made) = admin.post(SERVERS, ground.order(json!({}))).await;
    let failed = admin.status(made["server"]["id"].as_str().unwrap(), "ERROR").await;
    assert_eq!(failed["server"]["fault"]["message"], "it has no accelerator");
}
