//! Which address of a subnet is given next. That none is given twice is up to the unique index `address` of ports;
//! this finds free ones without looking at the ports.
//!
//! Subnets of at most [`TRACKED_MAX`] addresses are tracked by bitmaps; in larger ones a random address is tried,
//! which is nearly always free. A freed address rests until the pools have been gone through once.

use std::net::IpAddr;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;

use super::{addressing, random};
use crate::model::alloc::{AddressBlock, AddressSearch, BLOCK_SIZE, Bits256, TRACKED_MAX};
use crate::model::port::address_value;
use crate::model::{Port, Subnet};

/// How many random addresses of a large subnet are tried, then how many in a row.
const RANDOM_TRIES: u32 = 32;
const ROW_TRIES: u128 = 1024;

/// The port that has this address.
pub fn holder(tx: &mut Tx, subnet_id: &str, ip: IpAddr) -> ApiResult<Option<Port>> {
    Ok(tx.by_unique::<Port>("address", &address_value(subnet_id, &ip))?)
}

/// Takes a certain address; 409 if a port but this one has it. The caller puts it into the port in the same
/// transaction.
pub fn take(tx: &mut Tx, subnet: &Subnet, ip: IpAddr, port_id: &str) -> ApiResult<()> {
    if holder(tx, &subnet.id, ip)?.is_some_and(|p| p.id != port_id) {
        return Err(in_use(subnet, ip));
    }
    mark(tx, subnet, ip, true)
}

/// 409: a port has the address.
pub fn in_use(subnet: &Subnet, ip: IpAddr) -> ApiError {
    let network = &subnet.network_id;
    ApiError::conflict(format!(
        "Unable to complete operation for network {network}. The IP address {ip} is in use. (IpAddressInUse)"
    ))
    .with_code("IpAddressInUse")
}

/// Takes any free address of the subnet's pools; `None` when there is none.
pub fn take_any(tx: &mut Tx, subnet: &Subnet) -> ApiResult<Option<IpAddr>> {
    let found = if is_tracked(subnet) { search_tracked(tx, subnet)? } else { search_random(tx, subnet)? };
    if let Some(ip) = found {
        mark(tx, subnet, ip, true)?;
    }
    Ok(found)
}

/// Whether the pools have no free address (as far as that is known: a large subnet never says so).
pub fn is_full(tx: &mut Tx, subnet: &Subnet) -> ApiResult<bool> {
    if !is_tracked(subnet) {
        return Ok(subnet.allocation_pools.is_empty());
    }
    for (number, first, last) in pieces(&spans(subnet), 0) {
        if block(tx, subnet, number)?.used.first_free(first, last).is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives an address back.
pub fn free(tx: &mut Tx, subnet: &Subnet, ip: IpAddr) -> ApiResult<()> {
    mark(tx, subnet, ip, false)
}

/// Forgets what was found out about full blocks, after the pools have changed.
pub fn pools_changed(tx: &mut Tx, subnet: &Subnet) -> ApiResult<()> {
    Ok(tx.delete::<AddressSearch>(&subnet.id).map(drop)?)
}

/// Removes all records about a subnet that goes.
pub fn forget(tx: &mut Tx, subnet: &Subnet) -> ApiResult<()> {
    tx.delete::<AddressSearch>(&subnet.id)?;
    if is_tracked(subnet) {
        let last = (addressing::size(subnet.cidr) - 1) / u128::from(BLOCK_SIZE);
        for number in 0..=last as u8 {
            tx.delete::<AddressBlock>(&AddressBlock::id_of(&subnet.id, number))?;
        }
    }
    Ok(())
}

fn is_tracked(subnet: &Subnet) -> bool {
    addressing::size(subnet.cidr) <= TRACKED_MAX
}

fn block(tx: &mut Tx, subnet: &Subnet, number: u8) -> ApiResult<AddressBlock> {
    let found = tx.get::<AddressBlock>(&AddressBlock::id_of(&subnet.id, number))?;
    Ok(found.unwrap_or_else(|| AddressBlock {
        subnet_id: subnet.id.clone(),
        number,
        used: Bits256::default(),
    }))
}

fn search(tx: &mut Tx, subnet: &Subnet) -> ApiResult<AddressSearch> {
    let found = tx.get::<AddressSearch>(&subnet.id)?;
    Ok(found.unwrap_or_else(|| AddressSearch { subnet_id: subnet.id.clone(), ..AddressSearch::default() }))
}

/// Marks an address used or free in the bitmaps, if the subnet has them.
fn mark(tx: &mut Tx, subnet: &Subnet, ip: IpAddr, used: bool) -> ApiResult<()> {
    if !is_tracked(subnet) || !subnet.cidr.contains(&ip) {
        return Ok(());
    }
    let offset = addressing::offset(subnet.cidr, ip) as u32;
    let (number, bit) = ((offset / BLOCK_SIZE) as u8, (offset % BLOCK_SIZE) as u8);
    let mut block = block(tx, subnet, number)?;
    block.used.set(bit, used);
    if block.used.is_empty() {
        tx.delete::<AddressBlock>(&AddressBlock::id_of(&subnet.id, number))?;
    } else {
        tx.put(&block)?;
    }
    if !used {
        let mut search = search(tx, subnet)?;
        if search.full.has(number) {
            search.full.set(number, false);
            tx.put(&search)?;
        }
    }
    Ok(())
}

/// The pools as offsets.
fn spans(subnet: &Subnet) -> Vec<(u128, u128)> {
    let offset = |ip| addressing::offset(subnet.cidr, ip);
    subnet.allocation_pools.iter().map(|p| (offset(p.start), offset(p.end))).collect()
}

/// The pieces of the pools to go through, in order: from `next` to the end, then from the beginning to `next`.
/// Each lies within one block: (block, first bit, last bit).
fn pieces(spans: &[(u128, u128)], next: u32) -> Vec<(u8, u8, u8)> {
    let next = u128::from(next);
    let later = spans.iter().filter(|s| s.1 >= next).map(|s| (s.0.max(next), s.1));
    let earlier = spans.iter().filter(|s| s.0 < next).map(|s| (s.0, s.1.min(next - 1)));
    later.chain(earlier).flat_map(|(from, to)| blocks(from as u32, to as u32)).collect()
}

fn blocks(from: u32, to: u32) -> impl Iterator<Item = (u8, u8, u8)> {
    (from / BLOCK_SIZE..=to / BLOCK_SIZE).map(move |number| {
        let first = from.max(number * BLOCK_SIZE) % BLOCK_SIZE;
        let last = to.min(number * BLOCK_SIZE + (BLOCK_SIZE - 1)) % BLOCK_SIZE;
        (number as u8, first as u8, last as u8)
    })
}

fn search_tracked(tx: &mut Tx, subnet: &Subnet) -> ApiResult<Option<IpAddr>> {
    let mut search = search(tx, subnet)?;
    let pieces = pieces(&spans(subnet), search.next);
    for (number, first, last) in &pieces {
        if search.full.has(*number) {
            continue;
        }
        if let Some(bit) = block(tx, subnet, *number)?.used.first_free(*first, *last) {
            let offset = u32::from(*number) * BLOCK_SIZE + u32::from(bit);
            search.next = offset + 1;
            tx.put(&search)?;
            return Ok(Some(addressing::at(subnet.cidr, u128::from(offset))));
        }
    }
    // Every block was gone through whole, so all that the pools touch are full. Reading that again is spared.
    for (number, _, _) in pieces {
        search.full.set(number, true);
    }
    tx.put(&search)?;
    Ok(None)
}

fn search_random(tx: &mut Tx, subnet: &Subnet) -> ApiResult<Option<IpAddr>> {
    let spans = spans(subnet);
    let total = spans.iter().map(|(from, to)| to - from + 1).fold(0u128, u128::saturating_add);
    if total == 0 {
        return Ok(None);
    }
    for _ in 0..RANDOM_TRIES {
        if let Some(ip) = free_at(tx, subnet, &spans, random() % total)? {
            return Ok(Some(ip));
        }
    }
    let start = random() % total;
    for step in 0..ROW_TRIES.min(total) {
        if let Some(ip) = free_at(tx, subnet, &spans, (start % total + step) % total)? {
            return Ok(Some(ip));
        }
    }
    Ok(None)
}

/// The `nth` address of the pools, if it is free.
fn free_at(tx: &mut Tx, subnet: &Subnet, spans: &[(u128, u128)], mut nth: u128) -> ApiResult<Option<IpAddr>> {
    for (from, to) in spans {
        let length = to - from + 1;
        if nth < length {
            let ip = addressing::at(subnet.cidr, from + nth);
            return Ok(holder(tx, &subnet.id, ip)?.is_none().then_some(ip));
        }
        nth -= length;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_pools_once_and_begin_at_next() {
        assert_eq!(pieces(&[(2, 10)], 0), [(0, 2, 10)]);
        assert_eq!(pieces(&[(2, 10)], 5), [(0, 5, 10), (0, 2, 4)]);
        assert_eq!(pieces(&[(2, 10)], 11), [(0, 2, 10)]);
        assert_eq!(
            pieces(&[(250, 260), (300, 301)], 258),
            [(1, 2, 4), (1, 44, 45), (0, 250, 255), (1, 0, 1)]
        );
        assert_eq!(pieces(&[(1, 65534)], 0).len(), 256);
    }
}
