//! Networks: who sees them, where they lie, and when they can go.

use serde_json::json;

use crate::support::{Cloud, text};

#[tokio::test]
async fn a_network_is_made_shown_changed_and_removed() {
    let cloud = Cloud::new();
    let made =
        cloud.post("networks", "member:p", json!({"network": {"name": "a", "description": "d"}})).await;
    let network = made.made("network");
    assert_eq!(network["status"], "ACTIVE");
    assert_eq!(network["mtu"], 1450);
    assert_eq!(network["project_id"], "p");
    assert_eq!(network["tenant_id"], "p");
    assert!(network.get("provider:network_type").is_none(), "only administrators see the wire");
    let path = format!("networks/{}", text(&network["id"]));
    let changed = cloud.put(&path, "member:p", json!({"network": {"name": "b"}})).await.expect(200);
    assert_eq!(changed["network"]["name"], "b");
    assert_eq!(changed["network"]["revision_number"], 2);
    cloud.delete(&path, "member:p").await.expect(204);
    cloud.get(&path, "member:p").await.refused(404, "NetworkNotFound");
}

#[tokio::test]
async fn strangers_see_nothing_readers_change_nothing() {
    let cloud = Cloud::new();
    let id = cloud.network("member:p").await;
    let path = format!("networks/{id}");
    cloud.get(&path, "member:other").await.expect(404);
    cloud.get(&path, "reader:p").await.expect(200);
    cloud.put(&path, "reader:p", json!({"network": {"name": "x"}})).await.expect(403);
    cloud.delete(&path, "reader:p").await.expect(403);
    cloud.post("networks", "reader:p", json!({"network": {}})).await.expect(403);
    cloud.get(&path, "").await.expect(401);
    assert!(cloud.ids("networks", "member:other").await.is_empty());
    assert_eq!(cloud.ids("networks", "admin:a").await, std::slice::from_ref(&id));
    assert_eq!(cloud.ids("networks?project_id=p", "admin:a").await, [id]);
    assert!(cloud.ids("networks?project_id=q", "admin:a").await.is_empty());
}

#[tokio::test]
async fn shared_and_external_networks_are_seen_but_not_changed() {
    let cloud = Cloud::new();
    for attribute in ["shared", "router:external"] {
        let body = json!({"network": {"name": "n", attribute: true}});
        cloud.post("networks", "member:p", body.clone()).await.expect(403);
        let id = text(&cloud.post("networks", "admin:a", body).await.made("network")["id"]);
        let path = format!("networks/{id}");
        cloud.get(&path, "member:p").await.expect(200);
        cloud.put(&path, "member:p", json!({"network": {"name": "x"}})).await.expect(403);
    }
    assert_eq!(cloud.ids("networks?router:external=True", "member:p").await.len(), 1);
    assert_eq!(cloud.ids("networks", "member:p").await.len(), 2);
}

#[tokio::test]
async fn only_administrators_choose_projects() {
    let cloud = Cloud::new();
    let body = json!({"network": {"name": "n", "project_id": "q"}});
    cloud.post("networks", "member:p", body.clone()).await.expect(403);
    assert_eq!(cloud.post("networks", "admin:a", body).await.made("network")["project_id"], "q");
}

#[tokio::test]
async fn the_lan_is_given_once() {
    let cloud = Cloud::new();
    let flat = |name: &str| {
        json!({"network": {"name": name, "router:external": true, "provider:network_type": "flat",
                           "provider:physical_network": "lan"}})
    };
    cloud.post("networks", "member:p", flat("x")).await.expect(403);
    let network = cloud.post("networks", "admin:a", flat("public")).await.made("network");
    assert_eq!(network["mtu"], 1500);
    assert_eq!(network["provider:network_type"], "flat");
    cloud.post("networks", "admin:a", flat("again")).await.refused(409, "FlatNetworkInUse");
    let vlan = |id: u32| {
        json!({"network": {"provider:network_type": "vlan", "provider:physical_network": "lan",
                           "provider:segmentation_id": id}})
    };
    cloud.post("networks", "admin:a", vlan(7)).await.expect(201);
    cloud.post("networks", "admin:a", vlan(7)).await.refused(409, "VlanIdInUse");
    cloud.post("networks", "admin:a", vlan(4095)).await.expect(400);
    for wrong in [
        json!({"provider:network_type": "flat", "provider:physical_network": "other"}),
        json!({"provider:network_type": "flat"}),
        json!({"provider:network_type": "geneve"}),
        json!({"provider:physical_network": "lan"}),
        json!({"mtu": 9000}),
        json!({"colour": "red"}),
        json!({"status": "DOWN"}),
        json!({"name": 5}),
    ] {
        cloud.post("networks", "admin:a", json!({"network": wrong})).await.expect(400);
    }
    // Gone, and free again.
    cloud.delete(&format!("networks/{}", text(&network["id"])), "admin:a").await.expect(204);
    cloud.post("networks", "admin:a", flat("again")).await.expect(201);
}

#[tokio::test]
async fn many_are_made_whole_or_not_at_all() {
    let cloud = Cloud::new();
    let bad = json!({"networks": [{"name": "a"}, {"name": "b", "colour": "red"}]});
    cloud.post("networks", "member:p", bad).await.expect(400);
    assert!(cloud.ids("networks", "member:p").await.is_empty());
    let good = json!({"networks": [{"name": "a"}, {"name": "b"}]});
    let made = cloud.post("networks", "member:p", good).await.expect(201);
    assert_eq!(made["networks"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_network_goes_with_its_subnets_but_not_with_ports() {
    let cloud = Cloud::new();
    let (network, subnet) = cloud.wired("member:p").await;
    let port = cloud.port("member:p", &network, json!({})).await;
    let path = format!("networks/{network}");
    let refused = cloud.delete(&path, "member:p").await;
    assert!(refused.body.to_string().contains("There are one or more ports still in use on the network"));
    refused.refused(409, "NetworkInUse");
    cloud.delete(&format!("ports/{}", text(&port["id"])), "member:p").await.expect(204);
    cloud.delete(&path, "member:p").await.expect(204);
    cloud.get(&format!("subnets/{subnet}"), "member:p").await.expect(404);
    assert!(cloud.ids("ports", "admin:a").await.is_empty(), "the DHCP port went too");
}

#[tokio::test]
async fn quotas_hold_and_are_given_back() {
    let cloud = Cloud::new();
    let quota = |n: i64| json!({"quota": {"network": n}});
    cloud.put("quotas/p", "member:p", quota(1)).await.expect(403);
    assert_eq!(cloud.put("quotas/p", "admin:a", quota(1)).await.expect(200)["quota"]["network"], 1);
    let id = cloud.network("member:p").await;
    cloud.post("networks", "member:p", json!({"network": {}})).await.refused(409, "OverQuota");
    let details = cloud.get("quotas/p/details.json", "member:p").await.expect(200);
    assert_eq!(details["quota"]["network"], json!({"limit": 1, "used": 1, "reserved": 0}));
    cloud.delete(&format!("networks/{id}"), "member:p").await.expect(204);
    cloud.network("member:p").await;
    cloud.delete("quotas/p", "admin:a").await.expect(204);
    assert_eq!(cloud.get("quotas/p", "member:p").await.expect(200)["quota"]["network"], 100);
    cloud.get("quotas/p", "member:other").await.expect(403);
    cloud.put("quotas/p", "admin:a", json!({"quota": {"pigs": 1}})).await.expect(400);
}

#[tokio::test]
async fn an_external_network_in_use_stays_external() {
    let cloud = Cloud::new();
    let external = cloud.external().await;
    let router = cloud.router("member:p", Some(&external)).await;
    let body = json!({"network": {"router:external": false}});
    cloud
        .put(&format!("networks/{external}"), "admin:a", body.clone())
        .await
        .refused(409, "ExternalNetworkInUse");
    cloud.delete(&format!("networks/{external}"), "admin:a").await.refused(409, "NetworkInUse");
    cloud.delete(&format!("routers/{router}"), "member:p").await.expect(204);
    cloud.put(&format!("networks/{external}"), "admin:a", body).await.expect(200);
}

#[tokio::test]
async fn an_external_network_goes_with_floating_ips_that_lead_nowhere() {
    let cloud = Cloud::new();
    let external = cloud.external().await;
    let body = json!({"floatingip": {"floating_network_id": external}});
    cloud.post("floatingips", "member:p", body).await.expect(201);
    cloud.delete(&format!("networks/{external}"), "admin:a").await.expect(204);
    assert!(cloud.ids("floatingips", "admin:a").await.is_empty());
    assert!(cloud.ids("subnets", "admin:a").await.is_empty());
}
