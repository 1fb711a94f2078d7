//! What is removed stays as a tombstone until its node has let go, and not longer.

use cairn_network::model::{Network, NetworkStatus, Port, PortStatus, Router, RouterStatus};
use serde_json::json;

use crate::support::{Cloud, NODE, text};

#[tokio::test]
async fn tombstones_stay_until_the_node_has_let_go() {
    let cloud = Cloud::with_node().await;
    let (network, subnet) = cloud.wired("member:p").await;
    let router = cloud.router("member:p", None).await;
    let interface = cloud.join("member:p", &router, &subnet).await;
    let attrs = json!({"binding:host_id": NODE, "project_id": "p"});
    let port = text(&cloud.port("admin:a", &network, attrs).await["id"]);
    cloud.settle().await;
    cloud.delete(&format!("ports/{port}"), "member:p").await.expect(204);
    let remove = format!("routers/{router}/remove_router_interface");
    cloud.put(&remove, "member:p", json!({"port_id": interface})).await.expect(200);
    cloud.delete(&format!("routers/{router}"), "member:p").await.expect(204);
    cloud.delete(&format!("networks/{network}"), "member:p").await.expect(204);
    for path in [format!("ports/{port}"), format!("routers/{router}"), format!("networks/{network}")] {
        cloud.get(&path, "admin:a").await.expect(404);
        cloud.put(&path, "admin:a", json!({})).await.expect(400);
        cloud.delete(&path, "admin:a").await.expect(404);
    }
    assert!(cloud.ids("ports", "admin:a").await.is_empty());
    // What the node said before doesn't count.
    cairn_network::conductor::pass(&cloud.svc.store).await;
    assert!(cloud.record::<Port>(&port).unwrap().deleted);
    assert!(cloud.record::<Router>(&router).unwrap().deleted);
    assert!(cloud.record::<Network>(&network).unwrap().deleted);
    cloud.settle().await;
    assert!(cloud.records::<Port>().is_empty());
    assert!(cloud.records::<Router>().is_empty());
    assert!(cloud.records::<Network>().is_empty());
    assert!(cloud.records::<PortStatus>().is_empty());
    assert!(cloud.records::<RouterStatus>().is_empty());
    assert!(cloud.records::<NetworkStatus>().is_empty());
}

#[tokio::test]
async fn an_address_is_free_before_its_tombstone_is_gone() {
    let cloud = Cloud::with_node().await;
    let (network, _) = cloud.wired("member:p").await;
    let attrs = json!({"binding:host_id": NODE, "fixed_ips": [{"ip_address": "10.0.0.50"}], "project_id": "p",
                       "mac_address": "fa:16:3e:00:00:01"});
    let port = cloud.port("admin:a", &network, attrs.clone()).await;
    cloud.delete(&format!("ports/{}", text(&port["id"])), "member:p").await.expect(204);
    cloud.port("admin:a", &network, attrs).await;
}

#[tokio::test]
async fn an_unbound_port_still_asks_its_old_node() {
    let cloud = Cloud::with_node().await;
    let (network, _) = cloud.wired("member:p").await;
    let attrs = json!({"binding:host_id": NODE, "project_id": "p"});
    let port = text(&cloud.port("admin:a", &network, attrs).await["id"]);
    let path = format!("ports/{port}");
    cloud.put(&path, "admin:a", json!({"port": {"binding:host_id": ""}})).await.expect(200);
    cloud.delete(&path, "member:p").await.expect(204);
    let tombstone = cloud.record::<Port>(&port).unwrap();
    assert_eq!((tombstone.deleted, tombstone.host.as_deref()), (true, Some(NODE)));
    cloud.settle().await;
    assert!(cloud.record::<Port>(&port).is_none());
}

#[tokio::test]
async fn a_node_that_never_spoke_is_not_waited_for() {
    let cloud = Cloud::new();
    let (network, _) = cloud.wired("member:p").await;
    let attrs = json!({"binding:host_id": "elsewhere", "project_id": "p"});
    let port = text(&cloud.port("admin:a", &network, attrs).await["id"]);
    cloud.delete(&format!("ports/{port}"), "member:p").await.expect(204);
    assert!(cloud.record::<Port>(&port).is_none());
}

#[tokio::test]
async fn the_task_follows_the_store() {
    let cloud = Cloud::with_node().await;
    let task = tokio::spawn(cairn_network::conductor(cloud.svc.clone()));
    let (network, _) = cloud.wired("member:p").await;
    let attrs = json!({"binding:host_id": NODE, "project_id": "p"});
    let port = text(&cloud.port("admin:a", &network, attrs).await["id"]);
    cloud.delete(&format!("ports/{port}"), "member:p").await.expect(204);
    let tombstone = cloud.record::<Port>(&port).unwrap();
    cloud.port_is(&tombstone, cairn_network::model::Phase::Gone).await;
    for _ in 0..3000 {
        if cloud.record::<Port>(&port).is_none() {
            return task.abort();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the conductor left the tombstone");
}
