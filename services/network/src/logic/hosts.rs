//! Which node gets a router, and which nodes there are.

use cairn_gateway::ApiResult;
use cairn_state::Tx;
use jiff::Timestamp;

use crate::model::{HostStatus, Network};

/// The nodes whose network agent has spoken lately.
pub fn alive(tx: &mut Tx, now: Timestamp) -> ApiResult<Vec<HostStatus>> {
    let hosts = tx.list_unfenced::<HostStatus>()?;
    Ok(hosts.into_iter().filter(|h| h.is_alive(now)).collect())
}

/// The node for a thing with this id; `None` when there is none alive.
pub fn pick(tx: &mut Tx, now: Timestamp, id: &str) -> ApiResult<Option<String>> {
    let hosts = alive(tx, now)?;
    Ok(hosts.into_iter().map(|h| h.node).max_by_key(|node| weight(node, id)))
}

/// Rendezvous hashing: things spread over the nodes with no counting, and a new node takes only its share.
fn weight(node: &str, id: &str) -> u64 {
    let hash = fnv1a(node.bytes().chain([0]).chain(id.bytes()));
    mix((hash >> 64) as u64 ^ hash as u64)
}

/// Spreads a hash's differences over all its bits (the finalizer of SplitMix64): FNV's high bits alone hardly vary.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The FNV-1a hash: the same on every node and in every release.
pub fn fnv1a(bytes: impl Iterator<Item = u8>) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// Whether a network agent has ever reported from this node: only then somebody will tell that a thing is gone.
pub fn is_known(tx: &mut Tx, node: &str) -> ApiResult<bool> {
    Ok(tx.get::<HostStatus>(node)?.is_some())
}

/// Notes that a network may have things on a node, so that the node must let go of it before it is removed.
pub fn note(tx: &mut Tx, network_id: &str, node: &str) -> ApiResult<()> {
    let Some(mut network) = tx.get::<Network>(network_id)? else { return Ok(()) };
    if network.hosts.insert(node.to_owned()) {
        tx.put(&network)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_takes_only_its_share() {
        let best = |nodes: &[&str], id: &str| nodes.iter().max_by_key(|n| weight(n, id)).unwrap().to_string();
        let (mut moved, mut to_new) = (0, 0);
        for n in 0..300 {
            let id = format!("router-{n}");
            let (before, after) = (best(&["a", "b"], &id), best(&["a", "b", "c"], &id));
            if before != after {
                moved += 1;
                to_new += usize::from(after == "c");
            }
        }
        assert_eq!(moved, to_new);
        assert!((50..150).contains(&moved), "{moved}");
    }
}
