//! Which node gets a router, and which nodes there are.

use cairn_gateway::ApiResult;
use cairn_state::{Record, Tx};
use jiff::Timestamp;

use crate::model::{HostStatus, Network, NetworkStatus, PortPrepared, PortStatus, RouterStatus};

/// The nodes whose network agent has spoken lately.
pub fn alive(tx: &mut Tx, now: Timestamp) -> ApiResult<Vec<HostStatus>> {
    let hosts = tx.list_unfenced::<HostStatus>()?;
    Ok(hosts.into_iter().filter(|h| h.is_alive(now)).collect())
}

/// What speaks for a node as the place of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// How many routers it has.
    pub routers: u64,
    /// Whether it has ports of the router's networks.
    pub near: bool,
}

/// The node for the router with this id: of those with the fewest routers, one that has ports of its networks.
pub fn choose(candidates: Vec<Candidate>, id: &str) -> Option<String> {
    let best =
        candidates.into_iter().min_by_key(|c| (c.routers, !c.near, std::cmp::Reverse(weight(&c.node, id))));
    best.map(|c| c.node)
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

/// Forgets a node that is no longer of the cloud, with all that it reported: nobody waits for it any more.
pub fn forget(tx: &mut Tx, node: &str) -> ApiResult<()> {
    tx.delete::<HostStatus>(node)?;
    for status in tx.list_unfenced::<PortStatus>()?.into_iter().filter(|s| s.host == node) {
        tx.delete::<PortStatus>(&status.id)?;
    }
    for status in tx.list_unfenced::<PortPrepared>()?.into_iter().filter(|s| s.host == node) {
        tx.delete::<PortPrepared>(&status.id)?;
    }
    for status in tx.list_unfenced::<RouterStatus>()?.into_iter().filter(|s| s.host == node) {
        tx.delete::<RouterStatus>(&status.id())?;
    }
    for status in tx.list_unfenced::<NetworkStatus>()?.into_iter().filter(|s| s.host == node) {
        tx.delete::<NetworkStatus>(&status.id())?;
    }
    Ok(())
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
    fn the_least_loaded_node_gets_it_and_of_those_one_that_is_near() {
        let of = |all: &[(&str, u64, bool)]| {
            let candidate = |(node, routers, near): &(&str, u64, bool)| Candidate {
                node: (*node).to_owned(),
                routers: *routers,
                near: *near,
            };
            choose(all.iter().map(candidate).collect(), "router")
        };
        assert_eq!(of(&[("a", 2, true), ("b", 1, false), ("c", 3, true)]).as_deref(), Some("b"));
        assert_eq!(of(&[("a", 1, false), ("b", 1, true), ("c", 1, false)]).as_deref(), Some("b"));
        assert_eq!(of(&[]), None);
    }

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
