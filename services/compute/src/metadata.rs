//! What a guest is told about itself: OpenStack's `meta_data.json` and `network_data.json`. Pure.

use cairn_network::model::{Network, Port, Subnet};
use serde_json::{Value, json};

use crate::model::{Server, ServerPort};

/// `meta_data.json`.
pub fn meta_data(server: &Server, zone: &str) -> Value {
    let mut data = json!({
        "uuid": server.id,
        "name": server.name,
        "hostname": server.hostname,
        "launch_index": server.launch_index,
        "availability_zone": zone,
        "project_id": server.project_id,
        "meta": server.metadata,
        "devices": devices(server),
        "dedicated_cpus": [],
    });
    if let Some(key) = &server.key {
        data["public_keys"] = json!({key.name.as_str(): key.public_key});
        data["keys"] = json!([{"name": key.name, "type": key.kind, "data": key.public_key}]);
    }
    data
}

/// The tagged devices, so that software in the guest finds them by tag.
fn devices(server: &Server) -> Value {
    let disks = server.volumes.iter().filter_map(|v| {
        let tag = v.tag.as_ref()?;
        Some(json!({"type": "disk", "bus": "virtio", "path": v.device, "serial": v.volume_id, "tags": [tag]}))
    });
    let nics = server.ports.iter().filter_map(|p| {
        let tag = p.tag.as_ref()?;
        Some(json!({"type": "nic", "bus": "virtio", "mac": p.mac, "tags": [tag]}))
    });
    disks.chain(nics).collect()
}

/// A port of the server with the network and subnets it lies in.
pub struct Place {
    /// The port.
    pub port: Port,
    /// Its network.
    pub network: Network,
    /// The subnets of its addresses.
    pub subnets: Vec<Subnet>,
}

/// `network_data.json`.
pub fn network_data(places: &[Place], ports: &[ServerPort]) -> Value {
    let mtu = |id: &str| ports.iter().find(|p| p.port_id == id).map(|p| p.mtu);
    let links: Vec<_> = places
        .iter()
        .map(|p| {
            json!({
                "id": link_id(&p.port), "vif_id": p.port.id, "type": "ovs", "mtu": mtu(&p.port.id),
                "ethernet_mac_address": p.port.mac,
            })
        })
        .collect();
    let networks: Vec<_> = places.iter().flat_map(network_entries).enumerate().map(numbered).collect();
    let mut services: Vec<Value> = Vec::new();
    for subnet in places.iter().flat_map(|p| &p.subnets) {
        for dns in &subnet.dns_nameservers {
            let service = json!({"type": "dns", "address": dns.to_string()});
            if !services.contains(&service) {
                services.push(service);
            }
        }
    }
    json!({"links": links, "networks": networks, "services": services})
}

fn link_id(port: &Port) -> String {
    cairn_network::model::tap_name(&port.id)
}

fn numbered((at, mut entry): (usize, Value)) -> Value {
    entry["id"] = json!(format!("network{at}"));
    entry
}

fn network_entries(place: &Place) -> Vec<Value> {
    let fixed = place.port.fixed_ips.iter();
    fixed
        .filter_map(|fixed| {
            let subnet = place.subnets.iter().find(|s| s.id == fixed.subnet_id)?;
            let mut routes = Vec::new();
            if let Some(gateway) = subnet.gateway_ip {
                let (net, mask) = if gateway.is_ipv4() { ("0.0.0.0", "0.0.0.0") } else { ("::", "::") };
                routes.push(json!({"network": net, "netmask": mask, "gateway": gateway.to_string()}));
            }
            // By DHCP, the address is not repeated: the lease says it.
            let family = if fixed.ip.is_ipv4() { "ipv4" } else { "ipv6" };
            let mut entry = json!({"link": link_id(&place.port), "network_id": place.network.id});
            if subnet.enable_dhcp && fixed.ip.is_ipv4() {
                entry["type"] = json!("ipv4_dhcp");
            } else {
                entry["type"] = json!(family);
                entry["ip_address"] = json!(fixed.ip.to_string());
                entry["netmask"] = json!(subnet.cidr.netmask().to_string());
                entry["routes"] = json!(routes);
            }
            Some(entry)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeySnapshot;
    use crate::testing::server;

    #[test]
    fn a_guest_is_told_its_names_and_keys() {
        let mut s = server("s1");
        s.key =
            Some(KeySnapshot { name: "k".into(), kind: "ssh".into(), public_key: "ssh-ed25519 A".into() });
        s.metadata.insert("role".into(), "web".into());
        s.volumes[0].tag = Some("root".into());
        let data = meta_data(&s, "nova");
        assert_eq!(data["public_keys"]["k"], "ssh-ed25519 A");
        assert_eq!(data["keys"][0]["type"], "ssh");
        assert_eq!(data["meta"]["role"], "web");
        assert_eq!(data["availability_zone"], "nova");
        assert_eq!(data["devices"][0]["tags"][0], "root");
        assert!(meta_data(&server("s2"), "nova").get("keys").is_none());
    }
}
