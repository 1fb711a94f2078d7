//! Subnet pools: which prefix of one is free. Pure but for reading the subnets that were cut from it.

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use ipnet::IpNet;

use super::addressing;
use crate::model::{Subnet, SubnetPool};

/// The prefixes, merged, of one version, in order.
pub fn normalize(prefixes: Vec<IpNet>) -> ApiResult<Vec<IpNet>> {
    let prefixes = IpNet::aggregate(&prefixes);
    if prefixes.is_empty() {
        return Err(bad("a subnet pool needs at least one prefix".into()));
    }
    if prefixes.iter().any(|p| p.addr().is_ipv4() != prefixes[0].addr().is_ipv4()) {
        return Err(bad("Cannot mix IPv4 and IPv6 prefixes in a subnet pool.".into()));
    }
    Ok(prefixes)
}

fn bad(why: String) -> ApiError {
    ApiError::bad_request(format!("Illegal subnetpool: {why}")).with_code("IllegalSubnetPoolUpdate")
}

/// Refuses prefix lengths that are not in order.
pub fn check_lengths(pool: &SubnetPool) -> ApiResult<()> {
    let longest = if pool.ip_version() == 4 { 32 } else { 128 };
    let (min, default, max) = (pool.min_prefixlen, pool.default_prefixlen, pool.max_prefixlen);
    if min <= default && default <= max && max <= longest {
        return Ok(());
    }
    Err(bad(format!(
        "prefix lengths must be in order: min {min}, default {default}, max {max}, at most {longest}."
    )))
}

/// What a prefix counts for a pool's quota: addresses (IPv4) or /64s (IPv6).
fn weight(prefix: IpNet) -> u64 {
    let unit = if prefix.addr().is_ipv4() { 1 } else { 1u128 << 64 };
    u64::try_from((addressing::size(prefix) / unit).max(1)).unwrap_or(u64::MAX)
}

/// Takes a prefix of a pool for a project's subnet: the one that is asked for, or the first free one of this length.
/// The caller puts the subnet in the same transaction.
pub fn allocate(
    tx: &mut Tx,
    pool: &SubnetPool,
    project: &str,
    cidr: Option<IpNet>,
    length: Option<u8>,
) -> ApiResult<IpNet> {
    let taken = tx.by_index::<Subnet>("pool", &pool.id)?;
    let length = cidr.map(|c| c.prefix_len()).or(length).unwrap_or(pool.default_prefixlen);
    if length < pool.min_prefixlen || length > pool.max_prefixlen {
        let message = format!(
            "Unable to allocate subnet with prefix length {length}, it must be {} to {}.",
            pool.min_prefixlen, pool.max_prefixlen
        );
        return Err(ApiError::bad_request(message).with_code("MinPrefixSubnetAllocationError"));
    }
    let used: Vec<IpNet> = taken.iter().map(|s| s.cidr).collect();
    let found = match cidr {
        Some(cidr) if !pool.prefixes.iter().any(|p| p.contains(&cidr)) => None,
        Some(cidr) => (!used.iter().any(|u| addressing::overlap(*u, cidr))).then_some(cidr),
        None => first_free(&pool.prefixes, &used, length),
    };
    let found = found.ok_or_else(|| {
        let what = cidr.map_or(format!("a /{length}"), |c| c.to_string());
        ApiError::conflict(format!(
            "Failed to allocate subnet: Insufficient prefix space to allocate {what}."
        ))
        .with_code("SubnetAllocationError")
    })?;
    check_quota(pool, project, &taken, found)?;
    Ok(found)
}

fn check_quota(pool: &SubnetPool, project: &str, taken: &[Subnet], new: IpNet) -> ApiResult<()> {
    let own = taken.iter().filter(|s| s.project_id == project).map(|s| weight(s.cidr));
    let total = own.fold(weight(new), u64::saturating_add);
    if pool.default_quota.is_some_and(|quota| total > quota) {
        return Err(ApiError::conflict("Per-tenant subnet pool prefix quota exceeded.")
            .with_code("SubnetPoolQuotaExceeded"));
    }
    Ok(())
}

/// The lowest prefix of this length in the pool's that overlaps none of the used ones.
fn first_free(prefixes: &[IpNet], used: &[IpNet], length: u8) -> Option<IpNet> {
    let mut used: Vec<IpNet> = used.to_vec();
    used.sort_by_key(|u| addressing::number(u.network()));
    prefixes.iter().filter(|p| p.prefix_len() <= length).find_map(|prefix| {
        let mut candidate = IpNet::new(prefix.network(), length).ok()?;
        for taken in &used {
            if addressing::overlap(candidate, *taken) {
                candidate = after(*taken, length)?;
            }
        }
        prefix.contains(&candidate).then_some(candidate)
    })
}

/// The first prefix of this length behind another.
fn after(taken: IpNet, length: u8) -> Option<IpNet> {
    let bits = taken.max_prefix_len() - length;
    let end = addressing::number(taken.broadcast());
    let next = (end >> bits).checked_add(1)?.checked_shl(u32::from(bits))?;
    if taken.addr().is_ipv4() && next > u128::from(u32::MAX) {
        return None;
    }
    IpNet::new(addressing::at(taken, next.wrapping_sub(addressing::number(taken.network()))), length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn the_lowest_free_prefix_is_found() {
        let pool = nets(&["10.0.0.0/22", "10.9.0.0/24"]);
        let free = |used: &[&str], length| first_free(&pool, &nets(used), length).map(|n| n.to_string());
        assert_eq!(free(&[], 24).as_deref(), Some("10.0.0.0/24"));
        assert_eq!(free(&["10.0.0.0/26"], 24).as_deref(), Some("10.0.1.0/24"));
        assert_eq!(free(&["10.0.0.0/26", "10.0.0.128/26"], 26).as_deref(), Some("10.0.0.64/26"));
        assert_eq!(free(&["10.0.0.0/22"], 24).as_deref(), Some("10.9.0.0/24"));
        assert_eq!(free(&["10.0.0.0/22", "10.9.0.0/25"], 24), None);
        assert_eq!(free(&[], 21), None);
    }

    #[test]
    fn prefixes_are_merged() {
        assert_eq!(normalize(nets(&["10.0.1.0/24", "10.0.0.0/24"])).unwrap(), nets(&["10.0.0.0/23"]));
        assert!(normalize(nets(&["10.0.1.0/24", "fd00::/48"])).is_err());
        assert!(normalize(vec![]).is_err());
    }
}
