//! Routers: interfaces, gateways, routes.

use cairn_network::model::Router;
use serde_json::{Value, json};

use crate::support::{Cloud, NODE, ips, text};

#[tokio::test]
async fn an_interface_is_added_and_removed_by_subnet() {
    let cloud = Cloud::with_node().await;
    let (network, subnet) = cloud.wired("member:p").await;
    let router = cloud.router("member:p", None).await;
    let port = cloud.join("member:p", &router, &subnet).await;
    let shown = cloud.get(&format!("ports/{port}"), "member:p").await.expect(200)["port"].take();
    assert_eq!(ips(&shown), ["10.0.0.1"]);
    assert_eq!(shown["device_id"], router.as_str());
    assert_eq!(shown["device_owner"], "network:router_interface");
    assert_eq!(shown["status"], "BUILD");
    cloud.settle().await;
    assert_eq!(cloud.get(&format!("ports/{port}"), "member:p").await.expect(200)["port"]["status"], "ACTIVE");
    let add = format!("routers/{router}/add_router_interface");
    cloud.put(&add, "member:p", json!({"subnet_id": subnet})).await.expect(400);
    cloud.delete(&format!("ports/{port}"), "member:p").await.refused(409, "ServicePortInUse");
    cloud.delete(&format!("routers/{router}"), "member:p").await.refused(409, "RouterInUse");
    cloud.delete(&format!("subnets/{subnet}"), "member:p").await.refused(409, "SubnetInUse");
    cloud.delete(&format!("networks/{network}"), "member:p").await.refused(409, "NetworkInUse");
    let remove = format!("routers/{router}/remove_router_interface");
    let answer = cloud.put(&remove, "member:p", json!({"subnet_id": subnet})).await.expect(200);
    assert_eq!(answer["port_id"], port.as_str());
    cloud
        .put(&remove, "member:p", json!({"subnet_id": subnet}))
        .await
        .refused(404, "RouterInterfaceNotFoundForSubnet");
    cloud.get(&format!("ports/{port}"), "member:p").await.expect(404);
    cloud.delete(&format!("routers/{router}"), "member:p").await.expect(204);
}

#[tokio::test]
async fn an_interface_is_added_and_removed_by_port() {
    let cloud = Cloud::with_node().await;
    let (network, subnet) = cloud.wired("member:p").await;
    let router = cloud.router("member:p", None).await;
    let port = text(&cloud.port("member:p", &network, json!({})).await["id"]);
    let add = format!("routers/{router}/add_router_interface");
    let answer = cloud.put(&add, "member:p", json!({"port_id": port})).await.expect(200);
    assert_eq!(answer["subnet_id"], subnet.as_str());
    let other = cloud.router("member:p", None).await;
    let again = format!("routers/{other}/add_router_interface");
    cloud.put(&again, "member:p", json!({"port_id": port})).await.refused(409, "PortInUse");
    cloud.put(&add, "member:p", json!({})).await.expect(400);
    cloud.put(&add, "member:p", json!({"port_id": port, "subnet_id": subnet})).await.expect(400);
    let device = cloud.ids(&format!("ports?device_id={router}"), "member:p").await;
    assert_eq!(device, std::slice::from_ref(&port));
    let remove = format!("routers/{router}/remove_router_interface");
    cloud.put(&remove, "member:p", json!({"port_id": "none"})).await.refused(404, "RouterInterfaceNotFound");
    cloud.put(&remove, "member:p", json!({"port_id": port})).await.expect(200);
}

#[tokio::test]
async fn overlapping_networks_are_not_joined() {
    let cloud = Cloud::new();
    let router = cloud.router("member:p", None).await;
    let (_, one) = cloud.wired("member:p").await;
    let (_, same) = cloud.wired("member:p").await;
    cloud.join("member:p", &router, &one).await;
    let add = format!("routers/{router}/add_router_interface");
    cloud.put(&add, "member:p", json!({"subnet_id": same})).await.refused(400, "BadRequest");
    let network = cloud.network("member:p").await;
    let bare = cloud.subnet("member:p", &network, json!({"cidr": "10.9.0.0/24", "gateway_ip": null})).await;
    cloud.put(&add, "member:p", json!({"subnet_id": bare})).await.refused(400, "BadRequest");
    assert_eq!(
        cloud.ids(&format!("ports?device_id={router}"), "member:p").await.len(),
        1,
        "nothing was left behind"
    );
}

#[tokio::test]
async fn a_gateway_is_set_changed_and_taken() {
    let cloud = Cloud::with_node().await;
    let external = cloud.external().await;
    let router = cloud.router("member:p", Some(&external)).await;
    let path = format!("routers/{router}");
    let info = cloud.get(&path, "member:p").await.expect(200)["router"]["external_gateway_info"].take();
    assert_eq!(info["network_id"], external.as_str());
    assert_eq!(info["enable_snat"], true);
    assert_eq!(info["external_fixed_ips"][0]["ip_address"], "203.0.113.2");
    assert!(
        cloud.ids(&format!("ports?device_id={router}"), "member:p").await.is_empty(),
        "the cloud's own port"
    );
    assert_eq!(cloud.ids(&format!("ports?device_id={router}"), "admin:a").await.len(), 1);
    let set = |info: Value| json!({"router": {"external_gateway_info": info}});
    let off = json!({"network_id": external, "enable_snat": false});
    cloud.put(&path, "member:p", set(off.clone())).await.expect(403);
    let changed = cloud.put(&path, "admin:a", set(off)).await.expect(200);
    assert_eq!(changed["router"]["external_gateway_info"]["enable_snat"], false);
    let fixed = json!({"network_id": external, "external_fixed_ips": [{"ip_address": "203.0.113.77"}]});
    let changed = cloud.put(&path, "admin:a", set(fixed)).await.expect(200);
    assert_eq!(
        changed["router"]["external_gateway_info"]["external_fixed_ips"][0]["ip_address"],
        "203.0.113.77"
    );
    let cleared = cloud.put(&path, "member:p", set(json!({}))).await.expect(200);
    assert_eq!(cleared["router"]["external_gateway_info"], Value::Null);
    assert!(cloud.ids(&format!("ports?device_id={router}"), "admin:a").await.is_empty());
    let inner = cloud.network("member:p").await;
    cloud.put(&path, "member:p", set(json!({"network_id": inner}))).await.refused(400, "BadRequest");
    cloud.put(&path, "member:p", set(json!({"network_id": router}))).await.refused(404, "NetworkNotFound");
}

#[tokio::test]
async fn routes_lead_through_neighbours() {
    let cloud = Cloud::new();
    let (_, subnet) = cloud.wired("member:p").await;
    let router = cloud.router("member:p", None).await;
    cloud.join("member:p", &router, &subnet).await;
    let path = format!("routers/{router}");
    let set = |routes: Value| json!({"router": {"routes": routes}});
    let good = json!([{"destination": "10.5.0.0/24", "nexthop": "10.0.0.9"}]);
    let changed = cloud.put(&path, "member:p", set(good.clone())).await.expect(200);
    assert_eq!(changed["router"]["routes"], good);
    for bad in [
        json!([{"destination": "10.5.0.0/24", "nexthop": "10.7.0.9"}]),
        json!([{"destination": "10.5.0.0/24", "nexthop": "10.0.0.1"}]),
    ] {
        cloud.put(&path, "member:p", set(bad)).await.refused(400, "InvalidRoutes");
    }
    let more = json!({"router": {"routes": [{"destination": "10.6.0.0/24", "nexthop": "10.0.0.9"}]}});
    let added = cloud.put(&format!("{path}/add_extraroutes"), "member:p", more.clone()).await.expect(200);
    assert_eq!(added["router"]["routes"].as_array().unwrap().len(), 2);
    let less = cloud.put(&format!("{path}/remove_extraroutes"), "member:p", more).await.expect(200);
    assert_eq!(less["router"]["routes"], good);
    let remove = format!("{path}/remove_router_interface");
    cloud
        .put(&remove, "member:p", json!({"subnet_id": subnet}))
        .await
        .refused(409, "RouterInterfaceInUseByRoute");
    let none = cloud.put(&path, "member:p", set(Value::Null)).await.expect(200);
    assert_eq!(none["router"]["routes"], json!([]));
}

#[tokio::test]
async fn a_router_waits_for_a_node() {
    let cloud = Cloud::new();
    let (_, subnet) = cloud.wired("member:p").await;
    let router = cloud.router("member:p", None).await;
    cloud.join("member:p", &router, &subnet).await;
    let path = format!("routers/{router}");
    assert_eq!(cloud.get(&path, "member:p").await.expect(200)["router"]["status"], "DOWN");
    cloud.node_speaks().await;
    cairn_network::conductor::pass(&cloud.svc.store).await;
    assert_eq!(cloud.record::<Router>(&router).unwrap().host.as_deref(), Some(NODE));
    assert_eq!(cloud.get(&path, "member:p").await.expect(200)["router"]["status"], "BUILD");
    cloud.settle().await;
    assert_eq!(cloud.get(&path, "member:p").await.expect(200)["router"]["status"], "ACTIVE");
}
