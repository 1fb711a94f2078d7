//! Arithmetic of addresses: gateways, allocation pools, offsets, EUI-64. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cairn_gateway::{ApiError, ApiResult};
use ipnet::IpNet;

use crate::model::AddressRange;

/// An address as a number.
pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address at an offset in a prefix. Offsets beyond the prefix wrap within the address family.
pub fn at(cidr: IpNet, offset: u128) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from(u32::from(first).wrapping_add(offset as u32))),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from(u128::from(first).wrapping_add(offset))),
    }
}

/// How far an address is from its prefix's first one.
pub fn offset(cidr: IpNet, ip: IpAddr) -> u128 {
    number(ip).wrapping_sub(number(cidr.network()))
}

/// How many addresses a prefix has; the largest number there is for `::/0`.
pub fn size(cidr: IpNet) -> u128 {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

/// Whether two prefixes share an address.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// The first and last offset that a host may have: for IPv4 not the network's and the broadcast address (but in a
/// /31 and /32), for IPv6 not the routers' anycast address.
pub fn host_offsets(cidr: IpNet) -> (u128, u128) {
    let last = size(cidr) - 1;
    match cidr {
        IpNet::V4(net) if net.prefix_len() >= 31 => (0, last),
        IpNet::V4(_) => (1, last - 1),
        IpNet::V6(net) if net.prefix_len() >= 127 => (0, last),
        IpNet::V6(_) => (1, last),
    }
}

/// Whether a host may have this address in this prefix.
pub fn is_host(cidr: IpNet, ip: IpAddr) -> bool {
    let (first, last) = host_offsets(cidr);
    cidr.contains(&ip) && (first..=last).contains(&offset(cidr, ip))
}

/// The gateway of a subnet that names none: its first host address.
pub fn default_gateway(cidr: IpNet) -> Option<IpAddr> {
    let (first, last) = host_offsets(cidr);
    (first < last).then(|| at(cidr, first))
}

/// The pools of a subnet that names none: every host address but the gateway.
pub fn default_pools(cidr: IpNet, gateway: Option<IpAddr>) -> Vec<AddressRange> {
    let (first, last) = host_offsets(cidr);
    let hole = gateway.filter(|g| cidr.contains(g)).map(|g| offset(cidr, g));
    let mut pools = Vec::new();
    let mut push = |from: u128, to: u128| {
        if from <= to {
            pools.push(AddressRange { start: at(cidr, from), end: at(cidr, to) });
        }
    };
    match hole {
        Some(hole) if (first..=last).contains(&hole) => {
            if hole > first {
                push(first, hole - 1);
            }
            if hole < last {
                push(hole + 1, last);
            }
        }
        _ => push(first, last),
    }
    pools
}

/// Checks pools against their subnet, and brings them in order.
pub fn check_pools(
    cidr: IpNet,
    gateway: Option<IpAddr>,
    mut pools: Vec<AddressRange>,
) -> ApiResult<Vec<AddressRange>> {
    for pool in &pools {
        let text = pool_text(pool);
        if pool.start.is_ipv4() != pool.end.is_ipv4() || number(pool.start) > number(pool.end) {
            let message = format!("The allocation pool {text} is not valid.");
            return Err(ApiError::bad_request(message).with_code("InvalidAllocationPool"));
        }
        if !is_host(cidr, pool.start) || !is_host(cidr, pool.end) {
            let message = format!("The allocation pool {text} spans beyond the subnet cidr {cidr}.");
            return Err(ApiError::conflict(message).with_code("OutOfBoundsAllocationPool"));
        }
    }
    pools.sort();
    if let Some(pair) = pools.windows(2).find(|p| number(p[0].end) >= number(p[1].start)) {
        let (a, b) = (pool_text(&pair[0]), pool_text(&pair[1]));
        let message = format!("Found overlapping allocation pools: {a} {b} for subnet {cidr}.");
        return Err(ApiError::conflict(message).with_code("OverlappingAllocationPools"));
    }
    if let Some(gateway) = gateway
        && let Some(pool) = pools.iter().find(|p| in_range(p, gateway))
    {
        let text = pool_text(pool);
        let message = format!("Gateway ip {gateway} conflicts with allocation pool {text}.");
        return Err(ApiError::conflict(message).with_code("GatewayConflictWithAllocationPools"));
    }
    Ok(pools)
}

fn pool_text(pool: &AddressRange) -> String {
    format!("{}-{}", pool.start, pool.end)
}

/// Whether a range holds an address.
pub fn in_range(range: &AddressRange, ip: IpAddr) -> bool {
    range.start.is_ipv4() == ip.is_ipv4() && (number(range.start)..=number(range.end)).contains(&number(ip))
}

/// Refuses a gateway that no router could have there. One outside the prefix is allowed (it may be link-local).
pub fn check_gateway(cidr: IpNet, gateway: IpAddr) -> ApiResult<()> {
    let wrong_family = gateway.is_ipv4() != cidr.addr().is_ipv4();
    if wrong_family || (cidr.contains(&gateway) && !is_host(cidr, gateway)) {
        return Err(ApiError::bad_request(format!(
            "Invalid input for operation: Gateway {gateway} is not valid on subnet {cidr}."
        )));
    }
    Ok(())
}

/// The address a host with this MAC makes itself in a /64 (RFC 4291, appendix A).
pub fn eui64(cidr: IpNet, mac: &str) -> Option<IpAddr> {
    let IpNet::V6(net) = cidr else { return None };
    let bytes = mac_bytes(mac)?;
    let [a, b, c, d, e, f] = bytes;
    let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let prefix = u128::from(net.network()) >> 64 << 64;
    Some(IpAddr::V6(Ipv6Addr::from(prefix | u128::from(interface))))
}

/// The bytes of a MAC written with colons (or dashes), if it is one.
pub fn mac_bytes(mac: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = mac.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|p| p.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// A MAC as we write it: lower case, colons.
pub fn mac_text(b: [u8; 6]) -> String {
    format!("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4], b[5])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pools(cidr: &str, gateway: Option<&str>) -> Vec<String> {
        default_pools(net(cidr), gateway.map(ip)).iter().map(pool_text).collect()
    }

    #[test]
    fn default_pools_leave_the_gateway_out() {
        assert_eq!(pools("10.0.0.0/24", Some("10.0.0.1")), ["10.0.0.2-10.0.0.254"]);
        assert_eq!(pools("10.0.0.0/24", Some("10.0.0.9")), ["10.0.0.1-10.0.0.8", "10.0.0.10-10.0.0.254"]);
        assert_eq!(pools("10.0.0.0/24", Some("10.0.0.254")), ["10.0.0.1-10.0.0.253"]);
        assert_eq!(pools("10.0.0.0/24", None), ["10.0.0.1-10.0.0.254"]);
        assert_eq!(pools("10.0.0.0/31", Some("10.0.0.0")), ["10.0.0.1-10.0.0.1"]);
        assert_eq!(pools("fd00::/64", Some("fd00::1")), ["fd00::2-fd00::ffff:ffff:ffff:ffff"]);
        assert_eq!(pools("fd00::/64", Some("fe80::1")), ["fd00::1-fd00::ffff:ffff:ffff:ffff"]);
    }

    #[test]
    fn default_gateways() {
        assert_eq!(default_gateway(net("10.0.0.0/24")), Some(ip("10.0.0.1")));
        assert_eq!(default_gateway(net("fd00::/64")), Some(ip("fd00::1")));
        assert_eq!(default_gateway(net("10.0.0.4/32")), None);
    }

    #[test]
    fn eui64_as_the_rfc_has_it() {
        assert_eq!(eui64(net("fd00::/64"), "fa:16:3e:12:34:56"), Some(ip("fd00::f816:3eff:fe12:3456")));
        assert_eq!(eui64(net("10.0.0.0/24"), "fa:16:3e:12:34:56"), None);
    }

    #[test]
    fn macs() {
        assert_eq!(mac_bytes("FA-16-3E-00-00-01").map(mac_text).as_deref(), Some("fa:16:3e:00:00:01"));
        for bad in ["", "fa:16:3e:00:00", "fa:16:3e:00:00:01:02", "fa:16:3e:00:00:zz", "f:16:3e:00:00:011"] {
            assert_eq!(mac_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn pools_are_checked() {
        let range = |a: &str, b: &str| AddressRange { start: ip(a), end: ip(b) };
        let check = |p: Vec<AddressRange>| check_pools(net("10.0.0.0/24"), Some(ip("10.0.0.1")), p);
        assert!(check(vec![range("10.0.0.10", "10.0.0.20"), range("10.0.0.2", "10.0.0.9")]).is_ok());
        for (bad, code) in [
            (vec![range("10.0.0.20", "10.0.0.10")], "InvalidAllocationPool"),
            (vec![range("10.0.0.20", "10.0.1.10")], "OutOfBoundsAllocationPool"),
            (vec![range("10.0.0.2", "10.0.0.255")], "OutOfBoundsAllocationPool"),
            (
                vec![range("10.0.0.2", "10.0.0.9"), range("10.0.0.9", "10.0.0.12")],
                "OverlappingAllocationPools",
            ),
            (vec![range("10.0.0.1", "10.0.0.9")], "GatewayConflictWithAllocationPools"),
        ] {
            assert_eq!(check(bad).unwrap_err().code, code);
        }
    }
}
