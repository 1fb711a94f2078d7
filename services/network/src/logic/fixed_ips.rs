//! Which addresses a port gets: those asked for, or one of each IP version, and those that its guest will make
//! itself.

use std::net::IpAddr;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use serde_json::Value;

use super::{addressing, ipam};
use crate::api::attrs;
use crate::model::{FixedIp, Network, Port, Subnet, owner};

/// The most addresses of a port.
const FIXED_IPS_MAX: usize = 32;

/// An address that is asked for: one of them, or both, are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// In this subnet.
    pub subnet_id: Option<String>,
    /// Just this one.
    pub ip: Option<IpAddr>,
}

/// Who the addresses are for.
#[derive(Debug, Clone, Copy)]
pub struct For<'a> {
    /// The port, made or yet to be.
    pub id: &'a str,
    /// The network.
    pub network: &'a Network,
    /// The port's MAC.
    pub mac: &'a str,
    /// The port's `device_owner`.
    pub owner: &'a str,
}

/// Reads `fixed_ips`.
pub fn parse(items: &[Value]) -> ApiResult<Vec<Wanted>> {
    if items.len() > FIXED_IPS_MAX {
        return Err(ApiError::bad_request(format!(
            "Exceeded maximum amount of fixed ips per port: {FIXED_IPS_MAX}"
        )));
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for item in items {
        let object = attrs::object(item, "fixed_ips", &["subnet_id", "ip_address"])?;
        let subnet_id = match object.get("subnet_id") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(other) => {
                return Err(attrs::invalid("fixed_ips", &format!("'{other}' is not a valid UUID")));
            }
        };
        let ip = match object.get("ip_address") {
            None | Some(Value::Null) => None,
            Some(_) => Some(attrs::address_in(object, "ip_address", "fixed_ips")?),
        };
        if subnet_id.is_none() && ip.is_none() {
            return Err(attrs::invalid("fixed_ips", "an entry names a subnet_id, an ip_address or both"));
        }
        if ip.is_some() && wanted.iter().any(|w| w.ip == ip) {
            return Err(attrs::invalid("fixed_ips", "the same address is given twice"));
        }
        wanted.push(Wanted { subnet_id, ip });
    }
    Ok(wanted)
}

/// Takes the addresses of a new port, or (with `kept`) those that a changed one has not yet.
/// `None` for `wanted` means one of each IP version.
pub fn choose(
    tx: &mut Tx,
    port: For<'_>,
    wanted: Option<&[Wanted]>,
    mut kept: Vec<FixedIp>,
) -> ApiResult<Vec<FixedIp>> {
    let subnets = subnets_for(tx, port)?;
    match wanted {
        Some(wanted) => {
            for one in missing(wanted, &kept) {
                let chosen = choose_one(tx, port, &subnets, one)?;
                kept.push(chosen);
            }
        }
        None => {
            for version in [4, 6] {
                kept.extend(choose_version(tx, port, &subnets, version)?);
            }
        }
    }
    if makes_own_addresses(port.owner) {
        for subnet in subnets.iter().filter(|s| s.is_auto_address()) {
            if !kept.iter().any(|f| f.subnet_id == subnet.id) {
                kept.push(auto_address(tx, subnet, port)?);
            }
        }
    }
    Ok(kept)
}

/// The addresses a changed port keeps: each entry keeps the one it names, or else any of its subnet.
pub fn keep(wanted: &[Wanted], port: &Port) -> Vec<FixedIp> {
    let mut kept: Vec<FixedIp> = Vec::new();
    for one in wanted.iter().filter(|w| w.ip.is_some()) {
        kept.extend(port.fixed_ips.iter().find(|f| fits(one, f)).cloned());
    }
    for one in wanted.iter().filter(|w| w.ip.is_none()) {
        let spare = port.fixed_ips.iter().find(|f| fits(one, f) && !kept.contains(f)).cloned();
        kept.extend(spare);
    }
    kept
}

fn fits(wanted: &Wanted, fixed: &FixedIp) -> bool {
    wanted.ip.is_none_or(|ip| ip == fixed.ip)
        && wanted.subnet_id.as_ref().is_none_or(|s| *s == fixed.subnet_id)
}

/// The entries that none of the kept addresses satisfies.
fn missing<'a>(wanted: &'a [Wanted], kept: &[FixedIp]) -> Vec<&'a Wanted> {
    let mut left: Vec<&FixedIp> = kept.iter().collect();
    let (exact, any): (Vec<&Wanted>, Vec<&Wanted>) = wanted.iter().partition(|w| w.ip.is_some());
    exact
        .into_iter()
        .chain(any)
        .filter(|one| match left.iter().position(|f| fits(one, f)) {
            Some(at) => {
                left.swap_remove(at);
                false
            }
            None => true,
        })
        .collect()
}

fn subnets_for(tx: &mut Tx, port: For<'_>) -> ApiResult<Vec<Subnet>> {
    let mut subnets = tx.by_index::<Subnet>("network", &port.network.id)?;
    subnets.retain(|s| {
        s.service_types.is_empty()
            || s.service_types.iter().any(|t| !t.is_empty() && port.owner.starts_with(t))
    });
    subnets.sort_by(|a, b| (a.stamp.created_at, &a.id).cmp(&(b.stamp.created_at, &b.id)));
    Ok(subnets)
}

/// Routers and floating IPs have just the addresses they are given.
pub fn makes_own_addresses(device_owner: &str) -> bool {
    device_owner != owner::ROUTER_INTERFACE && device_owner != owner::FLOATING_IP
}

fn choose_one(tx: &mut Tx, port: For<'_>, subnets: &[Subnet], wanted: &Wanted) -> ApiResult<FixedIp> {
    let subnet = match (&wanted.subnet_id, wanted.ip) {
        (Some(id), _) => subnets.iter().find(|s| s.id == *id).ok_or_else(|| {
            let network = &port.network.id;
            ApiError::bad_request(format!("The subnet {id} is not one of network {network} for this port."))
                .with_code("InvalidInput")
        })?,
        (None, Some(ip)) => subnets.iter().find(|s| s.cidr.contains(&ip)).ok_or_else(|| {
            ApiError::bad_request(format!(
                "IP address {ip} is not a valid IP for any of the subnets on the specified network."
            ))
            .with_code("InvalidIpForNetwork")
        })?,
        (None, None) => return Err(attrs::invalid("fixed_ips", "an entry names neither subnet nor address")),
    };
    let Some(ip) = wanted.ip else {
        return match subnet.is_auto_address() && makes_own_addresses(port.owner) {
            true => auto_address(tx, subnet, port),
            false => {
                ipam::take_any(tx, subnet)?.map(|ip| fixed(subnet, ip)).ok_or_else(|| exhausted(port.network))
            }
        };
    };
    if !addressing::is_host(subnet.cidr, ip) {
        let message = format!("IP address {ip} is not a valid IP for the specified subnet.");
        return Err(ApiError::bad_request(message).with_code("InvalidIpForSubnet"));
    }
    let own_choice = subnet.is_auto_address() && makes_own_addresses(port.owner);
    if own_choice && addressing::eui64(subnet.cidr, port.mac) != Some(ip) {
        return Err(ApiError::bad_request(format!(
            "IPv6 address {ip} can not be directly assigned to a port on subnet {} as the subnet is configured for \
             automatic addresses",
            subnet.id
        ))
        .with_code("AllocationOnAutoAddressSubnet"));
    }
    ipam::take(tx, subnet, ip, port.id)?;
    Ok(fixed(subnet, ip))
}

/// One address of this version, from the first subnet that has one left; none if there is no such subnet.
fn choose_version(tx: &mut Tx, port: For<'_>, subnets: &[Subnet], version: u8) -> ApiResult<Option<FixedIp>> {
    let mut any = false;
    for subnet in subnets.iter().filter(|s| s.ip_version() == version && !s.is_auto_address()) {
        any = true;
        if let Some(ip) = ipam::take_any(tx, subnet)? {
            return Ok(Some(fixed(subnet, ip)));
        }
    }
    if any { Err(exhausted(port.network)) } else { Ok(None) }
}

/// Takes the address that a guest with the port's MAC makes itself.
pub fn auto_address(tx: &mut Tx, subnet: &Subnet, port: For<'_>) -> ApiResult<FixedIp> {
    let ip = addressing::eui64(subnet.cidr, port.mac)
        .ok_or_else(|| attrs::invalid("mac_address", "it is not a MAC"))?;
    ipam::take(tx, subnet, ip, port.id)?;
    Ok(fixed(subnet, ip))
}

fn fixed(subnet: &Subnet, ip: IpAddr) -> FixedIp {
    FixedIp { subnet_id: subnet.id.clone(), ip }
}

/// 409: the pools are empty.
pub fn exhausted(network: &Network) -> ApiError {
    ApiError::conflict(format!("No more IP addresses available on network {}.", network.id))
        .with_code("IpAddressGenerationFailure")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed_ip(subnet: &str, ip: &str) -> FixedIp {
        FixedIp { subnet_id: subnet.into(), ip: ip.parse().unwrap() }
    }

    fn wanted(subnet: Option<&str>, ip: Option<&str>) -> Wanted {
        Wanted { subnet_id: subnet.map(Into::into), ip: ip.map(|i| i.parse().unwrap()) }
    }

    #[test]
    fn an_entry_is_missing_when_no_kept_address_satisfies_it() {
        let kept = [fixed_ip("a", "10.0.0.2")];
        let both = [wanted(Some("a"), None), wanted(Some("b"), None)];
        assert_eq!(missing(&both, &kept), [&both[1]]);
        // One address satisfies one entry, and an exact one first.
        let exact = [wanted(Some("a"), None), wanted(None, Some("10.0.0.2"))];
        assert_eq!(missing(&exact, &kept), [&exact[0]]);
    }
}
