//! What is on which node, and how it comes to another.

use std::sync::Arc;

use cairn_gateway::ApiResult;
use cairn_network::conductor::rescue;
use cairn_network::logic::residence::{Fallen, recount};
use cairn_network::model::{HostStatus, Network, Port, Router, RouterLoad};
use cairn_network::servers;
use cairn_state::Tx;
use serde_json::json;

use crate::support::{Cloud, NODE, text};

async fn with<T>(cloud: &Cloud, mut body: impl FnMut(&mut Tx) -> ApiResult<T>) -> ApiResult<T> {
    cloud.svc.store.transact(|tx| body(tx)).await
}

fn fallen(name: &'static str) -> Fallen {
    Arc::new(move |_, node| Ok(node == name))
}

async fn of_three() -> Cloud {
    let cloud = Cloud::with_node().await;
    cloud.speaks("node-2").await;
    cloud.speaks("node-3").await;
    cloud
}

fn loads(cloud: &Cloud) -> Vec<(String, u64)> {
    cloud.records::<RouterLoad>().into_iter().map(|l| (l.node, l.routers)).collect()
}

#[tokio::test]
async fn routers_spread_and_flee_from_a_node_that_has_fallen() {
    let cloud = of_three().await;
    let (_, subnet) = cloud.wired("member:p").await;
    let mut routers = Vec::new();
    for _ in 0..6 {
        routers.push(cloud.router("member:p", None).await);
    }
    let even: Vec<_> = [NODE, "node-2", "node-3"].iter().map(|n| ((*n).to_owned(), 2)).collect();
    assert_eq!(loads(&cloud), even);
    let on_2: Vec<String> = routers
        .iter()
        .filter(|r| cloud.record::<Router>(r).unwrap().host.as_deref() == Some("node-2"))
        .cloned()
        .collect();
    let interface = cloud.join("member:p", &on_2[0], &subnet).await;

    rescue(&cloud.svc.store, &fallen("nobody")).await;
    assert_eq!(loads(&cloud), even, "nothing moves for nothing");
    rescue(&cloud.svc.store, &fallen("node-2")).await;
    assert_eq!(loads(&cloud), [(NODE.to_owned(), 3), ("node-2".to_owned(), 0), ("node-3".to_owned(), 3)]);
    let moved = cloud.record::<Router>(&on_2[0]).unwrap();
    assert_ne!(moved.host.as_deref(), Some("node-2"));
    assert_eq!(cloud.record::<Port>(&interface).unwrap().host, moved.host, "its ports follow it");

    let agents = cloud.get(&format!("routers/{}/l3-agents", moved.id), "admin:a").await.expect(200);
    assert_eq!(agents["agents"][0]["host"].as_str(), moved.host.as_deref());
    let agent = text(&agents["agents"][0]["id"]);
    assert!(cloud.ids(&format!("agents/{agent}/l3-routers"), "admin:a").await.contains(&moved.id));
    cloud.get(&format!("routers/{}/l3-agents", moved.id), "member:p").await.expect(403);

    // A node that is gone for good leaves nothing behind to wait for.
    with(&cloud, |tx| servers::forget_host(tx, "node-3")).await.unwrap();
    rescue(&cloud.svc.store, &fallen("node-2")).await;
    assert_eq!(cloud.records::<Router>().iter().filter(|r| r.host.as_deref() == Some(NODE)).count(), 6);
}

#[tokio::test]
async fn with_no_other_node_a_router_stays() {
    let cloud = Cloud::with_node().await;
    let router = cloud.router("member:p", None).await;
    rescue(&cloud.svc.store, &fallen(NODE)).await;
    assert_eq!(cloud.record::<Router>(&router).unwrap().host.as_deref(), Some(NODE));
}

#[tokio::test]
async fn routers_are_counted_anew() {
    let cloud = of_three().await;
    let routers = [cloud.router("member:p", None).await, cloud.router("member:p", None).await];
    let right = loads(&cloud);
    with(&cloud, |tx| Ok(tx.put(&RouterLoad { node: "node-3".into(), routers: 77 })?)).await.unwrap();
    with(&cloud, recount).await.unwrap();
    assert_eq!(loads(&cloud).iter().map(|l| l.1).sum::<u64>(), 2);
    assert!(right.iter().all(|l| loads(&cloud).contains(l)));
    for router in routers {
        cloud.delete(&format!("routers/{router}"), "member:p").await.expect(204);
    }
    assert_eq!(loads(&cloud).iter().map(|l| l.1).sum::<u64>(), 0, "who goes is not counted");
}

#[tokio::test]
async fn a_port_is_prepared_moved_or_left() {
    let cloud = of_three().await;
    let (network, _) = cloud.wired("member:p").await;
    let attrs = json!({"binding:host_id": NODE, "project_id": "p"});
    let port = text(&cloud.port("admin:a", &network, attrs).await["id"]);
    let prepare = async |to: &str| with(&cloud, |tx| servers::prepare_move(tx, &port, to)).await;
    assert_eq!(prepare(NODE).await.unwrap_err().status.as_u16(), 409);
    let prepared = prepare("node-2").await.unwrap();
    assert_eq!((prepared.host.as_deref(), prepared.migrating_to.as_deref()), (Some(NODE), Some("node-2")));
    assert_eq!(prepare("node-2").await.unwrap().generation(), prepared.generation(), "twice is once");
    assert_eq!(prepare("node-3").await.unwrap_err().status.as_u16(), 409);
    assert!(cloud.record::<Network>(&network).unwrap().hosts.contains("node-2"));
    let shown = cloud.get(&format!("ports/{port}"), "admin:a").await.expect(200)["port"].take();
    assert_eq!(shown["binding:profile"]["migrating_to"], "node-2");

    with(&cloud, |tx| servers::abort_move(tx, &port, "node-3")).await.unwrap();
    assert!(cloud.record::<Port>(&port).unwrap().migrating_to.is_some(), "another's move is not called off");
    with(&cloud, |tx| servers::abort_move(tx, &port, "node-2")).await.unwrap();
    assert_eq!(cloud.record::<Port>(&port).unwrap().migrating_to, None);
    prepare("node-2").await.unwrap();
    let moved = with(&cloud, |tx| servers::finish_move(tx, &port, "node-2")).await.unwrap();
    assert_eq!((moved.host.as_deref(), moved.migrating_to), (Some("node-2"), None));
    let again = with(&cloud, |tx| servers::finish_move(tx, &port, "node-2")).await.unwrap();
    assert_eq!(again.generation(), moved.stamp.revision, "twice is once");
    let unknown = with(&cloud, |tx| servers::prepare_move(tx, "nothing", "node-2")).await;
    assert_eq!(unknown.unwrap_err().status.as_u16(), 404);
}

#[tokio::test]
async fn an_overlays_packets_fit_on_the_nodes_wires() {
    let cloud = Cloud::with_node().await;
    let mut host = cloud.record::<HostStatus>(NODE).unwrap();
    (host.tunnel_ip, host.tunnel_mtu) = (Some("192.0.2.1".parse().unwrap()), 1400);
    with(&cloud, |tx| Ok(tx.put(&host)?)).await.unwrap();
    let network = cloud.network("member:p").await;
    let shown = cloud.get(&format!("networks/{network}"), "admin:a").await.expect(200)["network"].take();
    assert_eq!(shown["mtu"], 1350);
    assert_eq!(shown["provider:network_type"], "vxlan");
    assert!(shown["provider:segmentation_id"].as_u64().unwrap() >= 1);
}
