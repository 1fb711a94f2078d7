//! Ports: made, changed, bound to nodes and removed, for whoever needs one: users, routers, DHCP, compute.

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use jiff::Timestamp;

use super::fixed_ips::{self, For, Wanted};
use super::{addressing, floating, groups, hosts, ipam, quotas, random};
use crate::model::port::mac_value;
use crate::model::{FixedIp, Network, Port, PortStatus, Stamp, Subnet, owner};

/// How many MACs are tried.
const MAC_TRIES: u32 = 16;

/// A port with nothing special, to be filled and given to [`insert`].
pub fn blank(network: &Network, project_id: &str, device_owner: &str, now: Timestamp) -> Port {
    Port {
        id: uuid::Uuid::new_v4().to_string(),
        project_id: project_id.to_owned(),
        network_id: network.id.clone(),
        name: String::new(),
        description: String::new(),
        mac: String::new(),
        fixed_ips: Vec::new(),
        device_id: String::new(),
        device_owner: device_owner.to_owned(),
        admin_state_up: true,
        security_groups: Vec::new(),
        port_security: false,
        allowed_address_pairs: Vec::new(),
        dhcp_options: Vec::new(),
        dns_name: String::new(),
        host: None,
        prior_host: None,
        migrating_to: None,
        binding_profile: serde_json::Map::new(),
        made_for_server: false,
        deleted: false,
        tags: Default::default(),
        stamp: Stamp::new(now),
    }
}

/// Gives a new port its MAC (if it has none) and its addresses, counts it, and puts it.
pub fn insert(tx: &mut Tx, network: &Network, mut port: Port, wanted: Option<&[Wanted]>) -> ApiResult<Port> {
    port.mac = match port.mac.is_empty() {
        true => free_mac(tx, &network.id)?,
        false => claim_mac(tx, &network.id, &port.mac)?,
    };
    let who = For { id: &port.id, network, mac: &port.mac, owner: &port.device_owner };
    port.fixed_ips = fixed_ips::choose(tx, who, wanted, Vec::new())?;
    if is_counted(&port) {
        quotas::take(tx, &port.project_id, "port")?;
    }
    if let Some(host) = port.host.clone() {
        hosts::note(tx, &network.id, &host)?;
    }
    tx.put(&port)?;
    Ok(port)
}

/// Whether a port counts for its project's quota: what the cloud makes for itself doesn't.
fn is_counted(port: &Port) -> bool {
    ![owner::DHCP, owner::FLOATING_IP, owner::ROUTER_GATEWAY].contains(&port.device_owner.as_str())
}

fn free_mac(tx: &mut Tx, network_id: &str) -> ApiResult<String> {
    for _ in 0..MAC_TRIES {
        let [a, b, c, ..] = random().to_le_bytes();
        let mac = addressing::mac_text([0xfa, 0x16, 0x3e, a, b, c]);
        if tx.by_unique::<Port>("mac", &mac_value(network_id, &mac))?.is_none() {
            return Ok(mac);
        }
    }
    let message = format!("Unable to generate unique mac on network {network_id}.");
    Err(ApiError::unavailable(message).with_code("MacAddressGenerationFailure"))
}

/// A MAC that a user chose, as we write it: a unicast one that no other port of the network has.
pub fn claim_mac(tx: &mut Tx, network_id: &str, mac: &str) -> ApiResult<String> {
    let bytes = addressing::mac_bytes(mac).filter(|b| b[0] & 1 == 0 && *b != [0; 6]);
    let Some(bytes) = bytes else {
        return Err(crate::api::attrs::invalid(
            "mac_address",
            &format!("'{mac}' is not a valid MAC address"),
        ));
    };
    let mac = addressing::mac_text(bytes);
    if tx.by_unique::<Port>("mac", &mac_value(network_id, &mac))?.is_some() {
        let message = format!(
            "Unable to complete operation for network {network_id}. The mac address {mac} is in use."
        );
        return Err(ApiError::conflict(message).with_code("MacAddressInUse"));
    }
    Ok(mac)
}

/// Gives a port these addresses instead of those it has. What it has and is still wanted stays as it is.
/// The caller puts the port.
pub fn set_addresses(tx: &mut Tx, network: &Network, port: &mut Port, wanted: &[Wanted]) -> ApiResult<()> {
    let kept = fixed_ips::keep(wanted, port);
    let gone: Vec<FixedIp> = port.fixed_ips.iter().filter(|f| !kept.contains(f)).cloned().collect();
    free_addresses(tx, &gone)?;
    let who = For { id: &port.id, network, mac: &port.mac, owner: &port.device_owner };
    port.fixed_ips = fixed_ips::choose(tx, who, Some(wanted), kept)?;
    let lost: Vec<FixedIp> = gone.into_iter().filter(|f| !port.fixed_ips.contains(f)).collect();
    floating::forsake(tx, &port.id, Some(&lost))
}

fn free_addresses(tx: &mut Tx, addresses: &[FixedIp]) -> ApiResult<()> {
    for fixed in addresses {
        if let Some(subnet) = tx.get::<Subnet>(&fixed.subnet_id)? {
            ipam::free(tx, &subnet, fixed.ip)?;
        }
    }
    Ok(())
}

/// Takes the addresses of a subnet from a port, because the subnet goes or no longer wants them. Puts the port.
pub fn drop_subnet(tx: &mut Tx, mut port: Port, subnet_id: &str, now: Timestamp) -> ApiResult<Port> {
    let (gone, kept): (Vec<_>, Vec<_>) = port.fixed_ips.drain(..).partition(|f| f.subnet_id == subnet_id);
    port.fixed_ips = kept;
    free_addresses(tx, &gone)?;
    floating::forsake(tx, &port.id, Some(&gone))?;
    port.stamp.touch(now);
    tx.put(&port)?;
    Ok(port)
}

/// Changes the node a port is plugged on. The caller puts the port.
pub fn bind(tx: &mut Tx, port: &mut Port, host: Option<&str>) -> ApiResult<()> {
    if port.host.as_deref() == host {
        port.migrating_to = None;
        return Ok(());
    }
    port.prior_host = port.host.take();
    port.migrating_to = None;
    port.host = host.map(str::to_owned);
    if let Some(host) = host {
        hosts::note(tx, &port.network_id, host)?;
    }
    Ok(())
}

/// Removes a port, with its addresses and what leads to them. While a node may still have it plugged, a tombstone
/// stays until that node has reported it gone.
pub fn delete(tx: &mut Tx, mut port: Port, now: Timestamp) -> ApiResult<()> {
    free_addresses(tx, &port.fixed_ips)?;
    floating::forsake(tx, &port.id, None)?;
    if is_counted(&port) {
        quotas::give(tx, &port.project_id, "port")?;
    }
    port.host = port.host.or(port.prior_host.take());
    let plugged = match &port.host {
        Some(host) => hosts::is_known(tx, host)?,
        None => false,
    };
    if plugged {
        port.deleted = true;
        port.stamp.touch(now);
        return Ok(tx.put(&port)?);
    }
    tx.delete::<PortStatus>(&port.id)?;
    Ok(tx.delete::<Port>(&port.id).map(drop)?)
}

/// Refuses to let a user remove a port that belongs to the cloud's own workings.
pub fn check_removable(port: &Port) -> ApiResult<()> {
    let held = match port.device_owner.as_str() {
        owner::ROUTER_INTERFACE | owner::ROUTER_GATEWAY => "a router",
        owner::FLOATING_IP => "a floating IP",
        owner::DHCP => "a network's DHCP",
        _ => return Ok(()),
    };
    let message = format!(
        "Port {} cannot be deleted directly via the port API: has device owner {}; it belongs to {held} {}.",
        port.id, port.device_owner, port.device_id
    );
    Err(ApiError::conflict(message).with_code("ServicePortInUse"))
}

/// The security groups of a new port that names none: its project's default one, if it is filtered at all.
pub fn default_groups(tx: &mut Tx, port: &Port, now: Timestamp) -> ApiResult<Vec<String>> {
    if !port.port_security || port.project_id.is_empty() || port.is_service_port() {
        return Ok(Vec::new());
    }
    Ok(vec![groups::default_of(tx, &port.project_id, now)?.id])
}
