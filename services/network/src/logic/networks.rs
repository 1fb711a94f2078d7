//! Networks: their place on the wire, and what must be gone before they go.

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use jiff::Timestamp;

use super::{floating, ports, quotas, random, subnets};
use crate::model::network::provider_value;
use crate::model::{FloatingIp, LAN, Network, Port, Provider, ProviderKind, Subnet, owner};

/// The largest packet of an overlay: Ethernet's 1500 less 50 bytes of VXLAN over IPv4.
pub const MTU_OVERLAY: u32 = 1450;
/// The largest packet on the LAN.
pub const MTU_LAN: u32 = 1500;
/// The largest VXLAN network identifier.
pub const SEGMENT_MAX: u32 = (1 << 24) - 1;
/// Identifiers below are left to administrators who choose their own.
const SEGMENT_MIN: u32 = 1000;

/// The largest MTU a network on this wire can have.
pub fn mtu_max(provider: Option<&Provider>) -> u32 {
    if provider.is_some() { MTU_LAN } else { MTU_OVERLAY }
}

/// A VXLAN network identifier that no network has.
pub fn free_segment(tx: &mut Tx) -> ApiResult<u32> {
    for _ in 0..64 {
        let segment = SEGMENT_MIN + (random() % u128::from(SEGMENT_MAX - SEGMENT_MIN)) as u32;
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
