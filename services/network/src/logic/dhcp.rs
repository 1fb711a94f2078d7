//! The port at which a network's DHCP, DNS and metadata are answered: one per network, the same on every node,
//! with an address in each subnet that has DHCP.

use cairn_gateway::ApiResult;
use cairn_state::Tx;
use jiff::Timestamp;

use super::fixed_ips::{self, For};
use super::{ipam, ports};
use crate::model::{FixedIp, Network, Port, Subnet, owner};

/// The `device_id` of a network's DHCP port, by which it is found.
fn device_id(network_id: &str) -> String {
    format!("dhcp-{network_id}")
}

/// The network's DHCP port, if it has one.
pub fn port_of(tx: &mut Tx, network_id: &str) -> ApiResult<Option<Port>> {
    let found = tx.by_index::<Port>("device", &device_id(network_id))?;
    Ok(found.into_iter().find(|p| p.device_owner == owner::DHCP))
}

/// Gives the network's DHCP port an address in this subnet, making the port if need be. A subnet whose pools are
/// empty is left without: its guests can only have fixed configuration then.
pub fn cover(tx: &mut Tx, network: &Network, subnet: &Subnet, now: Timestamp) -> ApiResult<()> {
    let mut port = match port_of(tx, &network.id)? {
        Some(port) => port,
        None => {
            let mut port = ports::blank(network, &network.project_id, owner::DHCP, now);
            port.device_id = device_id(&network.id);
            ports::insert(tx, network, port, Some(&[]))?
        }
    };
    if !port.fixed_ips.iter().any(|f| f.subnet_id == subnet.id) {
        port.fixed_ips.extend(address(tx, network, subnet, &port)?);
        port.stamp.touch(now);
        tx.put(&port)?;
    }
    Ok(())
}

fn address(tx: &mut Tx, network: &Network, subnet: &Subnet, port: &Port) -> ApiResult<Option<FixedIp>> {
    if subnet.is_auto_address() {
        let who = For { id: &port.id, network, mac: &port.mac, owner: &port.device_owner };
        return fixed_ips::auto_address(tx, subnet, who).map(Some);
    }
    let ip = ipam::take_any(tx, subnet)?;
    Ok(ip.map(|ip| FixedIp { subnet_id: subnet.id.clone(), ip }))
}

/// Takes the DHCP port's address in this subnet, and the port itself when that was its last.
pub fn uncover(tx: &mut Tx, subnet: &Subnet, now: Timestamp) -> ApiResult<()> {
    let Some(port) = port_of(tx, &subnet.network_id)? else { return Ok(()) };
    let port = ports::drop_subnet(tx, port, &subnet.id, now)?;
    if port.fixed_ips.is_empty() {
        ports::delete(tx, port, now)?;
    }
    Ok(())
}
