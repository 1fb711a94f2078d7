//! Subnets: gateways, pools, overlap, IPv6 modes, pools of prefixes.

use serde_json::{Value, json};

use crate::support::{Cloud, ips, text};

async fn post(cloud: &Cloud, network: &str, attrs: Value) -> crate::support::Answer {
    let mut body = json!({"network_id": network, "ip_version": 4});
    body.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
    cloud.post("subnets", "member:p", json!({"subnet": body})).await
}

#[tokio::test]
async fn gateway_and_pools_by_default_and_by_choice() {
    let cloud = Cloud::new();
    let network = cloud.network("member:p").await;
    let made = post(&cloud, &network, json!({"cidr": "10.0.0.0/24"})).await.made("subnet");
    assert_eq!(made["gateway_ip"], "10.0.0.1");
    assert_eq!(made["allocation_pools"], json!([{"start": "10.0.0.2", "end": "10.0.0.254"}]));
    assert_eq!(made["enable_dhcp"], true);
    let made =
        post(&cloud, &network, json!({"cidr": "10.0.1.0/24", "gateway_ip": null})).await.made("subnet");
    assert_eq!(made["gateway_ip"], Value::Null);
    let made = post(&cloud, &network, json!({"cidr": "fd00:1::/64", "ip_version": 6})).await.made("subnet");
    assert_eq!(made["gateway_ip"], "fd00:1::1");
    let shown = cloud.get(&format!("networks/{network}"), "member:p").await.expect(200);
    assert_eq!(shown["network"]["subnets"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let cloud = Cloud::new();
    let network = cloud.network("member:p").await;
    post(&cloud, &network, json!({"cidr": "10.0.0.0/24"})).await.expect(201);
    let overlap = post(&cloud, &network, json!({"cidr": "10.0.0.128/25"})).await;
    assert!(overlap.body.to_string().contains("overlaps with another subnet"));
    overlap.refused(400, "InvalidInput");
    for wrong in [
        json!({}),
        json!({"cidr": "10.1.0.0"}),
        json!({"cidr": "10.1.0.0/33"}),
        json!({"cidr": "10.1.0.0/24", "ip_version": 6}),
        json!({"cidr": "10.1.0.0/24", "gateway_ip": "10.1.0.255"}),
        json!({"cidr": "10.1.0.0/24", "gateway_ip": "fd00::1"}),
        json!({"cidr": "10.1.0.0/24", "dns_nameservers": ["1.1.1.1", "1.1.1.1"]}),
        json!({"cidr": "10.1.0.0/24", "host_routes": [{"destination": "10.9.0.0/16"}]}),
        json!({"cidr": "10.1.0.0/24", "ipv6_ra_mode": "slaac"}),
        json!({"cidr": "10.1.0.0/24", "allocation_pools": [{"start": "10.1.0.9", "end": "10.1.0.2"}]}),
        json!({"cidr": "fd00::/64", "ip_version": 6, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful"}),
        json!({"cidr": "224.0.0.0/24"}),
    ] {
        let answer = post(&cloud, &network, wrong.clone()).await;
        assert_eq!(answer.status, 400, "{wrong} {}", answer.body);
    }
    let pools = json!([{"start": "10.1.0.1", "end": "10.1.0.9"}]);
    let clash = post(&cloud, &network, json!({"cidr": "10.1.0.0/24", "allocation_pools": pools})).await;
    clash.refused(409, "GatewayConflictWithAllocationPools");
    post(&cloud, "nowhere", json!({"cidr": "10.1.0.0/24"})).await.refused(404, "NetworkNotFound");
    cloud
        .post(
            "subnets",
            "member:other",
            json!({"subnet": {"network_id": network, "cidr": "10.7.0.0/24", "ip_version": 4}}),
        )
        .await
        .expect(404);
}

#[tokio::test]
async fn a_subnet_is_changed() {
    let cloud = Cloud::new();
    let network = cloud.network("member:p").await;
    let pools = json!([{"start": "10.0.0.3", "end": "10.0.0.7"}]);
    let id =
        cloud.subnet("member:p", &network, json!({"cidr": "10.0.0.0/28", "allocation_pools": pools})).await;
    let path = format!("subnets/{id}");
    let change = json!({"subnet": {
        "name": "new", "gateway_ip": "10.0.0.2", "dns_nameservers": ["7.8.8.8"], "enable_dhcp": true,
        "host_routes": [{"destination": "10.20.0.0/32", "nexthop": "10.100.1.2"}],
    }});
    let changed = cloud.put(&path, "member:p", change).await.expect(200)["subnet"].take();
    assert_eq!(changed["gateway_ip"], "10.0.0.2");
    assert_eq!(changed["host_routes"], json!([{"destination": "10.20.0.0/32", "nexthop": "10.100.1.2"}]));
    let clash = json!({"subnet": {"gateway_ip": "10.0.0.4"}});
    cloud.put(&path, "member:p", clash).await.refused(409, "GatewayConflictWithAllocationPools");
    cloud.put(&path, "member:p", json!({"subnet": {"cidr": "10.0.0.0/24"}})).await.expect(400);
}

#[tokio::test]
async fn dhcp_has_one_port_with_an_address_in_each_subnet() {
    let cloud = Cloud::new();
    let (network, subnet) = cloud.wired("member:p").await;
    let dhcp = |network: &str| format!("ports?network_id={network}&device_owner=network:dhcp");
    let list = cloud.get(&dhcp(&network), "member:p").await.expect(200);
    assert_eq!(ips(&list["ports"][0]), ["10.0.0.2"]);
    let second = cloud.subnet("member:p", &network, json!({"cidr": "10.0.1.0/24"})).await;
    let list = cloud.get(&dhcp(&network), "member:p").await.expect(200);
    assert_eq!(ips(&list["ports"][0]), ["10.0.0.2", "10.0.1.2"]);
    let off = json!({"subnet": {"enable_dhcp": false}});
    cloud.put(&format!("subnets/{second}"), "member:p", off.clone()).await.expect(200);
    cloud.put(&format!("subnets/{subnet}"), "member:p", off).await.expect(200);
    assert!(cloud.ids(&dhcp(&network), "member:p").await.is_empty());
    let on = json!({"subnet": {"enable_dhcp": true}});
    cloud.put(&format!("subnets/{subnet}"), "member:p", on).await.expect(200);
    assert_eq!(cloud.ids(&dhcp(&network), "member:p").await.len(), 1);
}

#[tokio::test]
async fn slaac_subnets_give_and_take_their_addresses() {
    let cloud = Cloud::new();
    let network = cloud.network("member:p").await;
    let early = cloud.port("member:p", &network, json!({"mac_address": "fa:16:3e:00:00:01"})).await;
    assert!(ips(&early).is_empty());
    let slaac = json!({"cidr": "fd00::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    let subnet = cloud.subnet("member:p", &network, slaac).await;
    let path = format!("ports/{}", text(&early["id"]));
    let shown = cloud.get(&path, "member:p").await.expect(200);
    assert_eq!(ips(&shown["port"]), ["fd00::f816:3eff:fe00:1"]);
    let late = cloud.port("member:p", &network, json!({"mac_address": "fa:16:3e:00:00:02"})).await;
    assert_eq!(ips(&late), ["fd00::f816:3eff:fe00:2"]);
    let chosen = json!({"port": {"network_id": network, "fixed_ips": [{"subnet_id": subnet, "ip_address": "fd00::9"}]}});
    cloud.post("ports", "member:p", chosen).await.refused(400, "AllocationOnAutoAddressSubnet");
    cloud.delete(&format!("subnets/{subnet}"), "member:p").await.expect(204);
    let shown = cloud.get(&path, "member:p").await.expect(200);
    assert!(ips(&shown["port"]).is_empty());
    cloud.delete(&format!("networks/{network}"), "member:p").await.refused(409, "NetworkInUse");
}

#[tokio::test]
async fn a_subnet_in_use_stays() {
    let cloud = Cloud::new();
    let (network, subnet) = cloud.wired("member:p").await;
    let port = cloud.port("member:p", &network, json!({})).await;
    cloud.delete(&format!("subnets/{subnet}"), "member:p").await.refused(409, "SubnetInUse");
    cloud.delete(&format!("ports/{}", text(&port["id"])), "member:p").await.expect(204);
    cloud.delete(&format!("subnets/{subnet}"), "member:p").await.expect(204);
    // Nothing of it is left: the same prefix can be used again, from its first address on.
    let again = cloud.subnet("member:p", &network, json!({"cidr": "10.0.0.0/24"})).await;
    assert_ne!(again, subnet);
}

#[tokio::test]
async fn subnets_are_cut_from_pools() {
    let cloud = Cloud::new();
    let network = cloud.network("member:p").await;
    let body = json!({"subnetpool": {"name": "s", "prefixes": ["10.0.0.0/16"], "default_prefixlen": 24,
                                     "default_quota": 512}});
    let pool = cloud.post("subnetpools", "member:p", body).await.made("subnetpool");
    assert_eq!(pool["ip_version"], 4);
    let id = text(&pool["id"]);
    let cut = |attrs: Value| {
        let mut body = json!({"subnetpool_id": id});
        body.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
        body
    };
    let first = post(&cloud, &network, cut(json!({}))).await.made("subnet");
    assert_eq!(first["cidr"], "10.0.0.0/24");
    assert_eq!(first["subnetpool_id"], id.as_str());
    let second = post(&cloud, &network, cut(json!({"prefixlen": 26}))).await.made("subnet");
    assert_eq!(second["cidr"], "10.0.1.0/26");
    post(&cloud, &network, cut(json!({"cidr": "10.9.0.0/26"}))).await.refused(409, "SubnetAllocationError");
    post(&cloud, &network, cut(json!({"prefixlen": 23}))).await.refused(409, "SubnetPoolQuotaExceeded");
    post(&cloud, &network, cut(json!({"prefixlen": 7}))).await.expect(400);
    post(&cloud, &network, cut(json!({"ip_version": 6}))).await.expect(400);
    cloud.delete(&format!("subnetpools/{id}"), "member:p").await.refused(409, "SubnetPoolDeleteError");
    cloud.delete(&format!("networks/{network}"), "member:p").await.expect(204);
    cloud.delete(&format!("subnetpools/{id}"), "member:p").await.expect(204);
}
