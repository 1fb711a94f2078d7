//! Ports: their addresses, MACs, filters and bindings. Never two with one address.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Cloud, NODE, ips, text};

#[tokio::test]
async fn a_port_gets_an_address_a_mac_and_the_default_group() {
    let cloud = Cloud::new();
    let (network, subnet) = cloud.wired("member:p").await;
    let port = cloud.port("member:p", &network, json!({"name": "x"})).await;
    assert_eq!(port["fixed_ips"], json!([{"subnet_id": subnet, "ip_address": "10.0.0.3"}]));
    assert!(text(&port["mac_address"]).starts_with("fa:16:3e:"));
    assert_eq!(port["status"], "DOWN");
    assert_eq!(port["port_security_enabled"], true);
    let groups = cloud.ids("security-groups?name=default", "member:p").await;
    assert_eq!(port["security_groups"], json!(groups));
    assert!(port.get("binding:host_id").is_none());
    let bare = cloud.port("member:p", &network, json!({"security_groups": []})).await;
    assert_eq!(bare["security_groups"], json!([]));
}

#[tokio::test]
async fn addresses_are_chosen_kept_and_given_back() {
    let cloud = Cloud::new();
    let (network, one) = cloud.wired("member:p").await;
    let two = cloud.subnet("member:p", &network, json!({"cidr": "10.0.1.0/24"})).await;
    let both = json!([{"subnet_id": one}, {"subnet_id": two}]);
    let port = cloud.port("member:p", &network, json!({"fixed_ips": both})).await;
    let had = ips(&port);
    assert_eq!(had.len(), 2);
    let path = format!("ports/{}", text(&port["id"]));
    let set = |fixed: Value| json!({"port": {"fixed_ips": fixed}});
    let less = cloud.put(&path, "member:p", set(json!([{"subnet_id": one}]))).await.expect(200);
    assert_eq!(ips(&less["port"]), had[..1], "what is still wanted stays");
    let more = cloud.put(&path, "member:p", set(both)).await.expect(200);
    assert_eq!(ips(&more["port"])[0], had[0]);
    assert_eq!(ips(&more["port"]).len(), 2);
    let exact = cloud.put(&path, "member:p", set(json!([{"ip_address": "10.0.1.200"}]))).await.expect(200);
    assert_eq!(ips(&exact["port"]), ["10.0.1.200"]);
    let taken = json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": "10.0.1.200"}]}});
    let refused = cloud.post("ports", "member:p", taken.clone()).await;
    assert!(refused.body.to_string().contains("IpAddressInUse"));
    refused.refused(409, "IpAddressInUse");
    cloud.delete(&path, "member:p").await.expect(204);
    cloud.post("ports", "member:p", taken).await.expect(201);
}

#[tokio::test]
async fn wrong_addresses_and_macs_are_refused() {
    let cloud = Cloud::new();
    let (network, subnet) = cloud.wired("member:p").await;
    let post = async |attrs: Value| {
        let mut body = json!({"network_id": network});
        body.as_object_mut().unwrap().extend(attrs.as_object().unwrap().clone());
        cloud.post("ports", "member:p", json!({"port": body})).await
    };
    for (attrs, code) in [
        (json!({"fixed_ips": [{"ip_address": "10.9.0.3"}]}), "InvalidIpForNetwork"),
        (json!({"fixed_ips": [{"subnet_id": subnet, "ip_address": "10.9.0.3"}]}), "InvalidIpForSubnet"),
        (json!({"fixed_ips": [{"subnet_id": subnet, "ip_address": "10.0.0.255"}]}), "InvalidIpForSubnet"),
        (json!({"fixed_ips": [{"subnet_id": "other"}]}), "InvalidInput"),
        (json!({"fixed_ips": [{}]}), "BadRequest"),
        (json!({"mac_address": "zz:16:3e:00:00:01"}), "BadRequest"),
        (json!({"mac_address": "01:00:5e:00:00:01"}), "BadRequest"),
        (json!({"device_owner": "network:dhcp"}), "PolicyNotAuthorized"),
        (json!({"binding:host_id": "x"}), "PolicyNotAuthorized"),
        (json!({"allowed_address_pairs": [{"mac_address": "fa:16:3e:00:00:01"}]}), "BadRequest"),
    ] {
        let answer = post(attrs.clone()).await;
        let status = if code == "PolicyNotAuthorized" { 403 } else { 400 };
        assert_eq!(
            (answer.status, answer.body["NeutronError"]["type"].as_str()),
            (status, Some(code)),
            "{attrs}"
        );
    }
    post(json!({"mac_address": "FA:16:3E:00:00:01"})).await.expect(201);
    post(json!({"mac_address": "fa:16:3e:00:00:01"})).await.refused(409, "MacAddressInUse");
    cloud
        .post("ports", "member:p", json!({"port": {"network_id": "none"}}))
        .await
        .refused(404, "NetworkNotFound");
}

#[tokio::test]
async fn a_full_pool_says_so_and_refills() {
    let cloud = Cloud::new();
    let network = cloud.network("member:p").await;
    cloud.subnet("member:p", &network, json!({"cidr": "10.0.0.0/29", "enable_dhcp": false})).await;
    let mut ports = Vec::new();
    for _ in 0..5 {
        ports.push(cloud.port("member:p", &network, json!({})).await);
    }
    let body = json!({"port": {"network_id": network}});
    cloud.post("ports", "member:p", body.clone()).await.refused(409, "IpAddressGenerationFailure");
    cloud.delete(&format!("ports/{}", text(&ports[2]["id"])), "member:p").await.expect(204);
    let again = cloud.post("ports", "member:p", body).await.made("port");
    assert_eq!(ips(&again), ips(&ports[2]));
}

#[tokio::test]
async fn ports_on_a_shared_network() {
    let cloud = Cloud::new();
    let body = json!({"network": {"shared": true}});
    let network = text(&cloud.post("networks", "admin:a", body).await.made("network")["id"]);
    cloud.subnet("admin:a", &network, json!({"cidr": "10.0.0.0/24"})).await;
    let port = cloud.port("member:p", &network, json!({})).await;
    let own = json!({"port": {"network_id": network, "mac_address": "fa:16:3e:00:00:01"}});
    cloud.post("ports", "member:p", own).await.expect(403);
    assert!(cloud.ids("ports", "admin:a").await.contains(&text(&port["id"])));
    assert_eq!(cloud.ids("ports", "member:p").await.len(), 1, "not the others', not DHCP's");
    assert_eq!(cloud.ids("subnets", "member:p").await.len(), 1);
    let external = cloud.external().await;
    cloud.post("ports", "member:p", json!({"port": {"network_id": external}})).await.expect(403);
}

#[tokio::test]
async fn security_is_all_or_nothing() {
    let cloud = Cloud::new();
    let (network, _) = cloud.wired("member:p").await;
    let open = cloud.port("member:p", &network, json!({"port_security_enabled": false})).await;
    assert_eq!(open["security_groups"], json!([]));
    let port = cloud.port("member:p", &network, json!({})).await;
    let path = format!("ports/{}", text(&port["id"]));
    let off = json!({"port": {"port_security_enabled": false}});
    cloud.put(&path, "member:p", off).await.refused(409, "PortSecurityPortHasSecurityGroup");
    let off = json!({"port": {"port_security_enabled": false, "security_groups": []}});
    cloud.put(&path, "member:p", off).await.expect(200);
    let pairs = json!({"port": {"allowed_address_pairs": [{"ip_address": "10.0.0.9"}]}});
    cloud.put(&path, "member:p", pairs).await.refused(409, "AddressPairAndPortSecurityRequired");
    let unknown = json!({"port": {"network_id": network, "security_groups": ["none"]}});
    cloud.post("ports", "member:p", unknown).await.refused(404, "SecurityGroupNotFound");
}

#[tokio::test]
async fn address_pairs_are_shown_as_given() {
    let cloud = Cloud::new();
    let (network, _) = cloud.wired("member:p").await;
    let pairs = json!([{"ip_address": "10.0.0.9", "mac_address": "fa:16:3e:00:00:09"}, {"ip_address": "10.1.0.0/16"}]);
    let port = cloud.port("member:p", &network, json!({"allowed_address_pairs": pairs})).await;
    assert_eq!(port["allowed_address_pairs"][0], pairs[0]);
    assert_eq!(port["allowed_address_pairs"][1]["ip_address"], "10.1.0.0/16");
    assert_eq!(port["allowed_address_pairs"][1]["mac_address"], port["mac_address"]);
}

#[tokio::test]
async fn a_ports_status_is_its_nodes_word() {
    let cloud = Cloud::with_node().await;
    let (network, _) = cloud.wired("member:p").await;
    let attrs =
        json!({"binding:host_id": NODE, "device_owner": "compute:nova", "device_id": "s", "project_id": "p"});
    let port = cloud.port("admin:a", &network, attrs).await;
    assert_eq!(port["status"], "BUILD");
    assert_eq!(port["binding:host_id"], NODE);
    assert_eq!(port["binding:vif_type"], "bridge");
    let path = format!("ports/{}", text(&port["id"]));
    cloud.settle().await;
    assert_eq!(cloud.get(&path, "member:p").await.expect(200)["port"]["status"], "ACTIVE");
    let record: cairn_network::model::Port = cloud.record(&text(&port["id"])).unwrap();
    cloud.port_is(&record, cairn_network::model::Phase::Failed).await;
    assert_eq!(cloud.get(&path, "member:p").await.expect(200)["port"]["status"], "ERROR");
    cloud.put(&path, "admin:a", json!({"port": {"binding:host_id": ""}})).await.expect(200);
    assert_eq!(cloud.get(&path, "member:p").await.expect(200)["port"]["status"], "DOWN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_never_get_the_same_address() {
    let cloud = std::sync::Arc::new(Cloud::new());
    let network = cloud.network("member:p").await;
    cloud.subnet("member:p", &network, json!({"cidr": "10.0.0.0/27", "enable_dhcp": false})).await;
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let (cloud, network) = (cloud.clone(), network.clone());
            tokio::spawn(async move {
                cloud.post("ports", "member:p", json!({"port": {"network_id": network}})).await
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    let mut refused = 0;
    for task in tasks {
        let answer = task.await.unwrap();
        match answer.status {
            201 => assert!(seen.insert(ips(&answer.body["port"])[0].clone()), "given twice"),
            409 => refused += 1,
            other => panic!("{other} {}", answer.body),
        }
    }
    assert_eq!((seen.len(), refused), (29, 11), "every address of the pool, and no more");
}

/// What happens to a subnet.
#[derive(Debug, Clone)]
enum Step {
    Any,
    Exact(u8),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Any),
        1 => any::<u8>().prop_map(Step::Exact),
        2 => any::<usize>().prop_map(Step::Delete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done in whatever order: no address twice, those given unasked are in the pools, and the pools
    /// are only called empty when they are.
    #[test]
    fn addresses_are_given_once(steps in prop::collection::vec(step(), 1..40), v6 in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check_steps(steps, v6));
    }
}

async fn check_steps(steps: Vec<Step>, v6: bool) {
    let cloud = Cloud::new();
    let network = cloud.network("member:p").await;
    let (cidr, base) = if v6 { ("fd00::/120", "fd00::") } else { ("10.0.0.0/24", "10.0.0.") };
    let host = |n: u8| if v6 { format!("{base}{n:x}") } else { format!("{base}{n}") };
    let pools = json!([{"start": host(10), "end": host(15)}, {"start": host(200), "end": host(203)}]);
    let attrs = json!({"cidr": cidr, "allocation_pools": pools, "enable_dhcp": false});
    cloud.subnet("member:p", &network, attrs).await;
    let in_pools: BTreeSet<String> = (10..=15).chain(200..=203).map(host).collect();
    let mut held: Vec<(String, String)> = Vec::new();
    for step in steps {
        let mut body = json!({"network_id": network});
        match &step {
            Step::Any => {}
            Step::Exact(n) => body["fixed_ips"] = json!([{"ip_address": host(*n)}]),
            Step::Delete(_) if held.is_empty() => continue,
            Step::Delete(n) => {
                let (id, _) = held.swap_remove(n % held.len());
                cloud.delete(&format!("ports/{id}"), "member:p").await.expect(204);
                continue;
            }
        }
        let answer = cloud.post("ports", "member:p", json!({"port": body})).await;
        let used = |ip: &String| held.iter().any(|(_, h)| h == ip);
        match (answer.status, &step) {
            (201, _) => {
                let ip = ips(&answer.body["port"])[0].clone();
                assert!(!used(&ip), "{ip} given twice");
                assert!(matches!(step, Step::Exact(_)) || in_pools.contains(&ip), "{ip} is in no pool");
                held.push((text(&answer.body["port"]["id"]), ip));
            }
            (409, Step::Exact(n)) => assert!(used(&host(*n))),
            (400, Step::Exact(n)) => assert!(*n == 0 || (*n == 255 && !v6)),
            (409, Step::Any) => assert!(in_pools.iter().all(used), "called empty, and isn't"),
            (status, _) => panic!("{step:?}: {status} {}", answer.body),
        }
    }
}

#[tokio::test]
async fn dhcp_options_that_are_served() {
    let cloud = Cloud::new();
    let (network, _) = cloud.wired("member:p").await;
    let options = json!([{"opt_name": "bootfile-name", "opt_value": "pxelinux.0"}, {"opt_name": "mtu", "opt_value": null}]);
    let port = cloud.port("member:p", &network, json!({"extra_dhcp_opts": options})).await;
    let shown = json!([{"opt_name": "bootfile-name", "opt_value": "pxelinux.0", "ip_version": 4}]);
    assert_eq!(port["extra_dhcp_opts"], shown);
    for wrong in [
        json!([{"opt_name": "no-such-option", "opt_value": "x"}]),
        json!([{"opt_name": "53", "opt_value": "x"}]),
        json!([{"opt_name": "mtu", "opt_value": "1400", "ip_version": 6}]),
    ] {
        let body = json!({"port": {"network_id": network, "extra_dhcp_opts": wrong}});
        cloud.post("ports", "member:p", body).await.expect(400);
    }
}

#[tokio::test]
async fn the_clouds_own_ports_are_not_a_users_to_change() {
    let cloud = Cloud::new();
    let (network, subnet) = cloud.wired("member:p").await;
    let router = cloud.router("member:p", None).await;
    let interface = cloud.join("member:p", &router, &subnet).await;
    let dhcp = cloud.ids(&format!("ports?network_id={network}&device_owner=network:dhcp"), "member:p").await;
    for port in [&interface, &dhcp[0]] {
        let path = format!("ports/{port}");
        cloud.delete(&path, "member:p").await.refused(409, "ServicePortInUse");
        cloud.put(&path, "member:p", json!({"port": {"device_id": "x"}})).await.refused(409, "PortInUse");
        cloud.put(&path, "member:p", json!({"port": {"port_security_enabled": true}})).await.expect(400);
        cloud.put(&path, "member:p", json!({"port": {"name": "x"}})).await.expect(200);
    }
}
