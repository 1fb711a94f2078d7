//! Hosts as administrators see and arrange them, in a cloud of several simulated nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(dead_code, reason = "what the simulated cloud offers is for several tests")]

mod simulated;

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use simulated::user::{Ground, SERVERS, User, admin};
use simulated::{cloud_of, node};

async fn place(user: &User<'_>, ground: &Ground, more: Value) -> Option<String> {
    let (status, made) = user.post(SERVERS, with_hints(ground, more)).await;
    assert_eq!(status, 202, "{made}");
    let id = made["server"]["id"].as_str().unwrap();
    let settled = |b: &Value| ["ACTIVE", "ERROR"].contains(&b["server"]["status"].as_str().unwrap_or(""));
    let shown = user.until(&format!("{SERVERS}/{id}"), settled).await;
    shown["server"]["OS-EXT-SRV-ATTR:host"].as_str().map(str::to_owned)
}

/// An order for a server whose disk is empty, so that no image binds it to a node. Hints stand beside the server.
fn with_hints(ground: &Ground, mut more: Value) -> Value {
    let fields = more.as_object_mut().unwrap();
    let hints = fields.remove("hints");
    fields.insert("imageRef".into(), json!(""));
    let disk = json!({"boot_index": 0, "source_type": "blank", "destination_type": "volume", "volume_size": 1,
        "delete_on_termination": true});
    fields.insert("block_device_mapping_v2".into(), json!([disk]));
    let mut order = ground.order(more);
    if let Some(hints) = hints {
        order["os:scheduler_hints"] = hints;
    }
    order
}

#[tokio::test]
async fn services_and_hypervisors_of_all_nodes_are_listed_and_disabled() {
    let cloud = cloud_of(3).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let services = admin.get("/compute/v2.1/os-services").await;
    assert_eq!(services["services"].as_array().unwrap().len(), 3);
    let service = |at: usize| services["services"][at]["id"].as_str().unwrap().to_owned();
    for at in [0, 1] {
        let body = json!({"status": "disabled", "disabled_reason": "new memory"});
        let path = format!("/compute/v2.1/os-services/{}", service(at));
        let (status, shown) = admin.call(Method::PUT, &path, Some(body)).await;
        assert_eq!((status.as_u16(), &shown["service"]["disabled_reason"]), (200, &json!("new memory")));
    }
    for _ in 0..3 {
        assert_eq!(place(&admin, &ground, json!({})).await, Some(node(3)));
    }
    let hypervisors = admin.get("/compute/v2.1/os-hypervisors/detail").await;
    let all = hypervisors["hypervisors"].as_array().unwrap();
    let held: Vec<_> = all.iter().map(|h| h["servers"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(held, [0, 0, 3]);
    assert_eq!((&all[0]["status"], &all[2]["status"]), (&json!("disabled"), &json!("enabled")));
    let down = json!({"forced_down": true});
    let path = format!("/compute/v2.1/os-services/{}", service(2));
    let (_, shown) = admin.call(Method::PUT, &path, Some(down)).await;
    assert_eq!(shown["service"]["state"], "down");
    assert_eq!(place(&admin, &ground, json!({})).await, None, "no node takes servers");
}

#[tokio::test]
async fn zones_are_made_of_aggregates() {
    let cloud = cloud_of(3).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let body = json!({"aggregate": {"name": "east", "availability_zone": "east"}});
    let (_, made) = admin.post("/compute/v2.1/os-aggregates", body).await;
    let act = format!("/compute/v2.1/os-aggregates/{}/action", made["aggregate"]["id"]);
    for at in [2, 3] {
        let (status, _) = admin.post(&act, json!({"add_host": {"host": node(at)}})).await;
        assert_eq!(status, 200);
    }
    let zones = admin.get("/compute/v2.1/os-availability-zone/detail").await;
    let hosts = |name: &str| {
        let all = zones["availabilityZoneInfo"].as_array().unwrap();
        let zone = all.iter().find(|z| z["zoneName"] == name).unwrap();
        zone["hosts"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!((hosts("nova"), hosts("east")), (vec![node(1)], vec![node(2), node(3)]));
    for _ in 0..3 {
        let host = place(&admin, &ground, json!({"availability_zone": "east"})).await.unwrap();
        assert_ne!(host, node(1));
    }
    assert_eq!(place(&admin, &ground, json!({"availability_zone": "nova"})).await, Some(node(1)));
    let (status, _) = admin.post(SERVERS, with_hints(&ground, json!({"availability_zone": "west"}))).await;
    assert_eq!(status, 400);
    let (status, _) = admin.post(&act, json!({"remove_host": {"host": node(9)}})).await;
    assert_eq!(status, 404);
}

async fn group(user: &User<'_>, policy: &str) -> String {
    let body = json!({"server_group": {"name": policy, "policy": policy}});
    let (status, made) = user.post("/compute/v2.1/os-server-groups", body).await;
    assert_eq!(status, 200, "{made}");
    made["server_group"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn groups_bind_their_members_to_nodes() {
    let cloud = cloud_of(3).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let member = async |group: &str| place(&admin, &ground, json!({"hints": {"group": group}})).await;
    let apart = group(&admin, "anti-affinity").await;
    let mut hosts = BTreeSet::new();
    for _ in 0..3 {
        hosts.insert(member(&apart).await.unwrap());
    }
    assert_eq!(hosts.len(), 3);
    assert_eq!(member(&apart).await, None, "every node has one");
    let together = group(&admin, "affinity").await;
    let first = member(&together).await;
    assert!(first.is_some());
    for _ in 0..2 {
        assert_eq!(member(&together).await, first);
    }
}

#[tokio::test]
async fn a_hint_names_servers_to_be_with_or_away_from() {
    let cloud = cloud_of(3).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let (_, made) = admin.post(SERVERS, with_hints(&ground, json!({"host": node(2)}))).await;
    let id = made["server"]["id"].as_str().unwrap().to_owned();
    admin.status(&id, "ACTIVE").await;
    assert_eq!(place(&admin, &ground, json!({"hints": {"same_host": id}})).await, Some(node(2)));
    for _ in 0..3 {
        assert_ne!(place(&admin, &ground, json!({"hints": {"different_host": [id]}})).await, Some(node(2)));
    }
}

#[tokio::test]
async fn members_of_a_group_stay_apart_when_they_move() {
    let cloud = cloud_of(2).await;
    let admin = admin(&cloud).await;
    let ground = admin.ground().await;
    let apart = group(&admin, "anti-affinity").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (_, made) = admin.post(SERVERS, with_hints(&ground, json!({"hints": {"group": apart}}))).await;
        let id = made["server"]["id"].as_str().unwrap().to_owned();
        admin.status(&id, "ACTIVE").await;
        ids.push(id);
    }
    let action = format!("{SERVERS}/{}/action", ids[0]);
    let (status, body) = admin.post(&action, json!({"migrate": null})).await;
    assert_eq!(status, 400, "{body}");
    assert!(body["badRequest"]["message"].as_str().unwrap().starts_with("No valid host"));
    admin.status(&ids[0], "ACTIVE").await;
}
