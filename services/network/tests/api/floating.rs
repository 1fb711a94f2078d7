//! Floating IPs: where they lead, and what takes them away.

use serde_json::{Value, json};

use crate::support::{Cloud, ips, text};

/// A cloud with a port behind a router: (external network, router, port).
async fn reachable(cloud: &Cloud) -> (String, String, Value) {
    let external = cloud.external().await;
    let (network, subnet) = cloud.wired("member:p").await;
    let router = cloud.router("member:p", Some(&external)).await;
    cloud.join("member:p", &router, &subnet).await;
    let port = cloud.port("member:p", &network, json!({})).await;
    (external, router, port)
}

async fn make(cloud: &Cloud, external: &str, attrs: Value) -> crate::support::Answer {
    let mut body = json!({"floating_network_id": external});
    body.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
    cloud.post("floatingips", "member:p", json!({"floatingip": body})).await
}

#[tokio::test]
async fn one_leads_to_a_port_and_away_again() {
    let cloud = Cloud::with_node().await;
    let (external, router, port) = reachable(&cloud).await;
    let fip = make(&cloud, &external, json!({"port_id": port["id"]})).await.made("floatingip");
    assert_eq!(fip["fixed_ip_address"], ips(&port)[0].as_str());
    assert_eq!(fip["router_id"], router.as_str());
    assert!(fip.get("name").is_none());
    let path = format!("floatingips/{}", text(&fip["id"]));
    assert_eq!(fip["status"], "DOWN");
    cloud.settle().await;
    assert_eq!(cloud.get(&path, "member:p").await.expect(200)["floatingip"]["status"], "ACTIVE");
    cloud.get(&format!("floatingips/{}", text(&fip["floating_ip_address"])), "member:p").await.expect(404);
    let off = json!({"floatingip": {"port_id": null}});
    let off = cloud.put(&path, "member:p", off).await.expect(200)["floatingip"].take();
    assert_eq!(
        (&off["port_id"], &off["fixed_ip_address"], &off["router_id"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    cloud.delete(&path, "member:p").await.expect(204);
    assert!(cloud.ids("ports?device_owner=network:floatingip", "admin:a").await.is_empty());
}

#[tokio::test]
async fn what_holds_and_what_lets_go() {
    let cloud = Cloud::new();
    let (external, router, port) = reachable(&cloud).await;
    let fip = make(&cloud, &external, json!({"port_id": port["id"]})).await.made("floatingip");
    make(&cloud, &external, json!({"port_id": port["id"]}))
        .await
        .refused(409, "FloatingIPPortAlreadyAssociated");
    let clear = json!({"router": {"external_gateway_info": {}}});
    let path = format!("routers/{router}");
    cloud.put(&path, "member:p", clear.clone()).await.refused(409, "RouterExternalGatewayInUseByFloatingIp");
    let subnet = text(&port["fixed_ips"][0]["subnet_id"]);
    let remove = format!("{path}/remove_router_interface");
    let answer = cloud.put(&remove, "member:p", json!({"subnet_id": subnet})).await;
    answer.refused(409, "RouterInterfaceInUseByFloatingIP");
    cloud.delete(&format!("ports/{}", text(&port["id"])), "member:p").await.expect(204);
    let shown = cloud.get(&format!("floatingips/{}", text(&fip["id"])), "member:p").await.expect(200);
    assert_eq!(shown["floatingip"]["port_id"], Value::Null);
    cloud.put(&path, "member:p", clear).await.expect(200);
}

#[tokio::test]
async fn where_it_cannot_lead() {
    let cloud = Cloud::new();
    let (external, _, port) = reachable(&cloud).await;
    let (lonely, _) = cloud.wired("member:p").await;
    let unreachable = cloud.port("member:p", &lonely, json!({})).await;
    let answer = make(&cloud, &external, json!({"port_id": unreachable["id"]})).await;
    answer.refused(404, "ExternalGatewayForFloatingIPNotFound");
    make(&cloud, &lonely, json!({"port_id": port["id"]})).await.refused(400, "BadRequest");
    make(&cloud, &external, json!({"port_id": port["id"], "fixed_ip_address": "10.0.0.99"}))
        .await
        .expect(400);
    make(&cloud, &external, json!({"fixed_ip_address": "10.0.0.3"})).await.expect(400);
    make(&cloud, &external, json!({"floating_ip_address": "203.0.113.9"})).await.expect(403);
    make(&cloud, "none", json!({})).await.refused(404, "NetworkNotFound");
    assert!(cloud.ids("floatingips", "member:p").await.is_empty(), "nothing was left behind");
    let other = json!({"floatingip": {"floating_network_id": external, "port_id": port["id"]}});
    cloud.post("floatingips", "member:other", other).await.expect(404);
}

#[tokio::test]
async fn a_port_with_two_addresses_needs_a_choice() {
    let cloud = Cloud::new();
    let (external, _, port) = reachable(&cloud).await;
    let path = format!("ports/{}", text(&port["id"]));
    let two = json!({"port": {"fixed_ips": [{"ip_address": "10.0.0.50"}, {"ip_address": "10.0.0.51"}]}});
    cloud.put(&path, "member:p", two).await.expect(200);
    make(&cloud, &external, json!({"port_id": port["id"]})).await.expect(400);
    let attrs = json!({"port_id": port["id"], "fixed_ip_address": "10.0.0.50"});
    let fip = make(&cloud, &external, attrs).await.made("floatingip");
    let change = json!({"floatingip": {"port_id": port["id"], "fixed_ip_address": "10.0.0.51"}});
    let fip_path = format!("floatingips/{}", text(&fip["id"]));
    let changed = cloud.put(&fip_path, "member:p", change).await.expect(200);
    assert_eq!(changed["floatingip"]["fixed_ip_address"], "10.0.0.51");
    // The address goes, and with it what led to it.
    let one = json!({"port": {"fixed_ips": [{"ip_address": "10.0.0.50"}]}});
    cloud.put(&path, "member:p", one).await.expect(200);
    assert_eq!(cloud.get(&fip_path, "member:p").await.expect(200)["floatingip"]["port_id"], Value::Null);
}

#[tokio::test]
async fn its_address_is_no_other_ports() {
    let cloud = Cloud::new();
    let external = cloud.external().await;
    let fip = make(&cloud, &external, json!({})).await.made("floatingip");
    let body =
        json!({"port": {"network_id": external, "fixed_ips": [{"ip_address": fip["floating_ip_address"]}]}});
    cloud.post("ports", "admin:a", body).await.refused(409, "IpAddressInUse");
}
