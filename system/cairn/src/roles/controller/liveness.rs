//! What services are told of other nodes' lives, by the leases that nodes hold. Only the leader asks, and counts anew
//! when it comes to lead: ages on one clock are compared, never two nodes' clocks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cairn_cluster::alive::{ABSENT_FOR, Alive};
use cairn_cluster::membership::Member;
use cairn_shards::conductor::{Census, Nodes};
use cairn_state::{Abort, LocalStore, Tx};

/// Says whether a node has been without a lease for so long that it has stopped by itself what others may take over.
/// That it has none is a condition of the commit.
pub fn fallen() -> cairn_network::logic::residence::Fallen {
    let absent: Mutex<HashMap<String, Instant>> = Mutex::default();
    Arc::new(move |tx, node| {
        let alive = tx.get::<Alive>(node)?.is_some();
        let mut absent = absent.lock().unwrap_or_else(PoisonError::into_inner);
        if alive {
            absent.remove(node);
            return Ok(false);
        }
        Ok(absent.entry(node.to_owned()).or_insert_with(Instant::now).elapsed() >= ABSENT_FOR)
    })
}

/// Says which nodes are alive and which were removed; nothing while that cannot be read.
pub fn census(store: LocalStore) -> Census {
    Arc::new(move || {
        let read = |tx: &mut Tx| -> Result<Nodes, Abort> {
            let alive = tx.list_unfenced::<Alive>()?.into_iter().map(|alive| alive.node).collect();
            let members = tx.list_unfenced::<Member>()?;
            let removed = members.into_iter().filter(|m| !m.is_trusted()).map(|m| m.name).collect();
            Ok(Nodes { alive, removed })
        };
        store.read(read).ok()
    })
}
