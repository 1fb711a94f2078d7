//! Subnets: what their attributes may be together, and what must be gone before they go.

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use ipnet::IpNet;
use jiff::Timestamp;

use super::fixed_ips::{self, For};
use super::{addressing, dhcp, ipam, ports, quotas};
use crate::model::{Ipv6Mode, Network, Port, Subnet, owner};

/// The most name servers of a subnet.
pub const DNS_MAX: usize = 5;
/// The most allocation pools of a subnet.
pub const POOLS_MAX: usize = 64;
/// The most host routes of a subnet.
pub const ROUTES_MAX: usize = 20;

/// Refuses a prefix that shares addresses with another subnet of the network.
pub fn check_overlap(tx: &mut Tx, network_id: &str, cidr: IpNet) -> ApiResult<()> {
    let others = tx.by_index::<Subnet>("network", network_id)?;
    if others.iter().any(|s| addressing::overlap(s.cidr, cidr)) {
        return Err(ApiError::bad_request(format!(
            "Invalid input for operation: Requested subnet with cidr: {cidr} for network: {network_id} overlaps with \
             another subnet."
        ))
        .with_code("InvalidInput"));
    }
    Ok(())
}

/// Refuses a prefix that no hosts can be in.
pub fn check_cidr(cidr: IpNet) -> ApiResult<()> {
    let net = cidr.network();
    if cidr.prefix_len() == 0 || net.is_multicast() || net.is_loopback() {
        return Err(ApiError::bad_request(format!(
            "Invalid input for operation: '{cidr}' cannot be a subnet."
        )));
    }
    Ok(())
}

/// Refuses IPv6 modes that contradict each other or the prefix (or come without IPv6).
pub fn check_modes(
    cidr: IpNet,
    dhcp: bool,
    ra: Option<Ipv6Mode>,
    address: Option<Ipv6Mode>,
) -> ApiResult<()> {
    let refuse = |why: &str| Err(ApiError::bad_request(format!("Invalid input for operation: {why}")));
    if ra.is_none() && address.is_none() {
        return Ok(());
    }
    if cidr.addr().is_ipv4() {
        return refuse("ipv6_ra_mode and ipv6_address_mode are for IPv6 subnets.");
    }
    if !dhcp {
        return refuse("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False");
    }
    if let (Some(ra), Some(address)) = (ra, address)
        && ra != address
    {
        return refuse("ipv6_ra_mode and ipv6_address_mode must be the same if both are set.");
    }
    let auto = [ra, address].iter().flatten().any(|m| *m != Ipv6Mode::Dhcpv6Stateful);
    if auto && cidr.prefix_len() != 64 {
        return refuse(&format!(
            "Invalid CIDR {cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, \
                                which requires the prefix to be /64"
        ));
    }
    Ok(())
}

/// Puts a new subnet, counted, with DHCP if it has that, and its self-made addresses on the network's ports.
pub fn insert(tx: &mut Tx, network: &Network, subnet: &Subnet, now: Timestamp) -> ApiResult<()> {
    quotas::take(tx, &subnet.project_id, "subnet")?;
    tx.put(subnet)?;
    if subnet.enable_dhcp {
        dhcp::cover(tx, network, subnet, now)?;
    }
    if subnet.is_auto_address() {
        add_auto_addresses(tx, network, subnet, now)?;
    }
    Ok(())
}

fn add_auto_addresses(tx: &mut Tx, network: &Network, subnet: &Subnet, now: Timestamp) -> ApiResult<()> {
    for mut port in tx.by_index::<Port>("network", &network.id)? {
        let has = port.fixed_ips.iter().any(|f| f.subnet_id == subnet.id);
        if has || !fixed_ips::makes_own_addresses(&port.device_owner) {
            continue;
        }
        let who = For { id: &port.id, network, mac: &port.mac, owner: &port.device_owner };
        let fixed = fixed_ips::auto_address(tx, subnet, who)?;
        port.fixed_ips.push(fixed);
        port.stamp.touch(now);
        tx.put(&port)?;
    }
    Ok(())
}

/// Removes a subnet, with its addresses on the DHCP port and on ports that made theirs themselves; 409 if any
/// other port has one.
pub fn delete(tx: &mut Tx, subnet: &Subnet, now: Timestamp) -> ApiResult<()> {
    let users = tx.by_index::<Port>("subnet", &subnet.id)?;
    let lets_go =
        |p: &Port| p.device_owner == owner::DHCP || (subnet.is_auto_address() && !p.is_router_port());
    if !users.iter().all(lets_go) {
        let message = format!(
            "Unable to complete operation on subnet {}: One or more ports have an IP allocation from this subnet.",
            subnet.id
        );
        return Err(ApiError::conflict(message).with_code("SubnetInUse"));
    }
    for port in users.into_iter().filter(|p| p.device_owner != owner::DHCP) {
        ports::drop_subnet(tx, port, &subnet.id, now)?;
    }
    dhcp::uncover(tx, subnet, now)?;
    erase(tx, subnet)
}

/// Removes the records of a subnet that nothing uses any more.
pub fn erase(tx: &mut Tx, subnet: &Subnet) -> ApiResult<()> {
    ipam::forget(tx, subnet)?;
    quotas::give(tx, &subnet.project_id, "subnet")?;
    Ok(tx.delete::<Subnet>(&subnet.id).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ipv6Mode::{Dhcpv6Stateful, Dhcpv6Stateless, Slaac};

    #[test]
    fn modes_must_agree() {
        let cidr = "fd00::/64".parse().unwrap();
        for mode in [Slaac, Dhcpv6Stateful, Dhcpv6Stateless] {
            for pair in [(Some(mode), Some(mode)), (None, Some(mode)), (Some(mode), None)] {
                assert!(check_modes(cidr, true, pair.0, pair.1).is_ok());
                assert!(check_modes(cidr, false, pair.0, pair.1).is_err());
            }
        }
        assert!(check_modes(cidr, true, Some(Slaac), Some(Dhcpv6Stateful)).is_err());
        assert!(check_modes("fd00::/80".parse().unwrap(), true, Some(Slaac), None).is_err());
        assert!(check_modes("10.0.0.0/24".parse().unwrap(), true, Some(Slaac), None).is_err());
    }

    #[test]
    fn prefixes_no_host_can_be_in() {
        for bad in ["0.0.0.0/0", "224.0.0.0/24", "127.0.0.0/8", "ff02::/64", "::/0"] {
            assert!(check_cidr(bad.parse().unwrap()).is_err(), "{bad}");
        }
    }
}
