//! Networks: their place on the wire, and what must be gone before they go.

use std::net::IpAddr;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use jiff::Timestamp;

use super::{floating, ports, quotas, random, subnets};
use crate::model::network::provider_value;
use crate::model::{FloatingIp, HostStatus, LAN, Network, Port, Provider, ProviderKind, Subnet, owner};

/// The largest packet on the LAN, in bytes.
pub const MTU_LAN: u32 = 1500;
/// What VXLAN adds to a packet, in bytes: Ethernet, VXLAN, UDP and IPv4.
const OVERHEAD_V4: u32 = 50;
/// The same over IPv6.
const OVERHEAD_V6: u32 = 70;
/// The least MTU that IPv6 works with: a smaller one on a node's wire is not gone by.
const MTU_MIN: u32 = 1280;
/// The largest VXLAN network identifier.
pub const SEGMENT_MAX: u32 = (1 << 24) - 1;

/// The largest MTU a network on this wire can have: an overlay's packets must fit, with what tunnels add, on the wire
/// of every node.
pub fn mtu_max(tx: &mut Tx, provider: Option<&Provider>) -> ApiResult<u32> {
    if provider.is_some() {
        return Ok(MTU_LAN);
    }
    let hosts = tx.list_unfenced::<HostStatus>()?;
    let ends = hosts.iter().filter_map(|h| h.tunnel_ip.map(|ip| (ip, h.tunnel_mtu)));
    Ok(overlay_mtu(ends))
}

/// The same, from the tunnels' ends with their wires' MTUs. A wire that takes more than Ethernet's 1500 is not relied
/// on: a node that joins later may have none.
fn overlay_mtu(ends: impl Iterator<Item = (IpAddr, u32)>) -> u32 {
    let room = |(ip, mtu): (IpAddr, u32)| {
        mtu.min(MTU_LAN).saturating_sub(if ip.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 })
    };
    ends.map(room).filter(|mtu| *mtu >= MTU_MIN).min().unwrap_or(MTU_LAN - OVERHEAD_V4)
}

/// A VXLAN network identifier that no network has.
pub fn free_segment(tx: &mut Tx) -> ApiResult<u32> {
    for _ in 0..64 {
        let segment = 1 + (random() % u128::from(SEGMENT_MAX)) as u32;
        if tx.by_unique::<Network>("segment", &segment.to_string())?.is_none() {
            return Ok(segment);
        }
    }
    Err(ApiError::unavailable("Unable to create the network. No tenant network is available for allocation.")
        .with_code("NoNetworkAvailable"))
}

/// A VXLAN network identifier that an administrator chose.
pub fn claim_segment(tx: &mut Tx, segment: u32) -> ApiResult<u32> {
    if tx.by_unique::<Network>("segment", &segment.to_string())?.is_some() {
        return Err(ApiError::conflict(format!(
            "Unable to create the network. The tunnel ID {segment} is in use."
        ))
        .with_code("TunnelIdInUse"));
    }
    Ok(segment)
}

/// A place on the LAN that an administrator chose, if it is free: flat once, each VLAN once.
pub fn claim_provider(
    tx: &mut Tx,
    kind: ProviderKind,
    physical_network: Option<String>,
    vlan: Option<u16>,
) -> ApiResult<Provider> {
    let physical_network = physical_network
        .ok_or_else(|| ApiError::bad_request("Invalid input for operation: physical_network is required."))?;
    if physical_network != LAN {
        return Err(ApiError::bad_request(format!(
            "Invalid input for operation: physical_network '{physical_network}' unknown; the one there is, is '{LAN}'."
        )));
    }
    let vlan = match (kind, vlan) {
        (ProviderKind::Flat, None) => None,
        (ProviderKind::Vlan, Some(vlan)) => Some(vlan),
        (ProviderKind::Flat, Some(_)) => {
            return Err(ApiError::bad_request(
                "Invalid input for operation: a flat network has no segmentation_id.",
            ));
        }
        (ProviderKind::Vlan, None) => {
            return Err(ApiError::bad_request(
                "Invalid input for operation: a VLAN network needs a segmentation_id.",
            ));
        }
    };
    if tx.by_unique::<Network>("provider", &provider_value(&physical_network, vlan))?.is_some() {
        return Err(match vlan {
            None => ApiError::conflict(format!(
                "Unable to create the flat network. Physical network {physical_network} is in use."
            ))
            .with_code("FlatNetworkInUse"),
            Some(vlan) => ApiError::conflict(format!(
                "Unable to create the network. The VLAN {vlan} on physical network {physical_network} is in use."
            ))
            .with_code("VlanIdInUse"),
        });
    }
    Ok(Provider { kind, physical_network, vlan })
}

/// Refuses to stop a network being external while something depends on it.
pub fn check_not_used_as_external(tx: &mut Tx, network: &Network) -> ApiResult<()> {
    let ports = tx.by_index::<Port>("network", &network.id)?;
    let used =
        ports.iter().any(|p| [owner::ROUTER_GATEWAY, owner::FLOATING_IP].contains(&p.device_owner.as_str()));
    if used {
        let message = format!(
            "External network {} cannot be updated to be made non-external, since it has existing \
                               gateway ports.",
            network.id
        );
        return Err(ApiError::conflict(message).with_code("ExternalNetworkInUse"));
    }
    Ok(())
}

/// Removes a network with its subnets, its DHCP port and its floating IPs that lead nowhere; 409 if anything else
/// has a port on it. A tombstone stays until every node has let go.
pub fn delete(tx: &mut Tx, network: Network, now: Timestamp) -> ApiResult<()> {
    let floating = tx.by_index::<FloatingIp>("network", &network.id)?;
    let all = tx.by_index::<Port>("network", &network.id)?;
    let in_the_way = |p: &Port| ![owner::DHCP, owner::FLOATING_IP].contains(&p.device_owner.as_str());
    if all.iter().any(in_the_way) || floating.iter().any(|f| f.port_id.is_some()) {
        let blocking: Vec<&str> =
            all.iter().filter(|p| in_the_way(p)).map(|p| p.id.as_str()).take(20).collect();
        let message = format!(
            "Unable to complete operation on network {}. There are one or more ports still in use on the network, \
             id for these ports is: {}.",
            network.id,
            blocking.join(",")
        );
        return Err(ApiError::conflict(message).with_code("NetworkInUse"));
    }
    for fip in &floating {
        floating::delete(tx, fip, now)?;
    }
    for port in all.into_iter().filter(|p| p.device_owner == owner::DHCP) {
        ports::delete(tx, port, now)?;
    }
    for subnet in tx.by_index::<Subnet>("network", &network.id)? {
        subnets::erase(tx, &subnet)?;
    }
    quotas::give(tx, &network.project_id, "network")?;
    // Read again: letting ports go may have changed it.
    let mut network = tx.get::<Network>(&network.id)?.unwrap_or(network);
    if network.hosts.is_empty() {
        return Ok(tx.delete::<Network>(&network.id).map(drop)?);
    }
    network.deleted = true;
    network.stamp.touch(now);
    Ok(tx.put(&network)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlays_packets_fit_on_every_wire() {
        let of = |ends: &[(&str, u32)]| overlay_mtu(ends.iter().map(|(ip, mtu)| (ip.parse().unwrap(), *mtu)));
        assert_eq!(of(&[]), 1450);
        assert_eq!(of(&[("192.0.2.1", 1500), ("192.0.2.2", 9000)]), 1450);
        assert_eq!(of(&[("192.0.2.1", 1500), ("192.0.2.2", 1400)]), 1350);
        assert_eq!(of(&[("fd00::1", 1500)]), 1430);
        assert_eq!(of(&[("192.0.2.1", 0)]), 1450, "what is not known yet says nothing");
    }
}
