//! A node leaves the cloud for good: what stands against that, and what is forgotten of the node.
//!
//! It may touch the node's own records and its provider. It must never take a server from a node: who removes one moves
//! its servers first, or deletes them.

use cairn_gateway::ApiResult;
use cairn_placement::claims;
use cairn_state::{Record, Tx};

use crate::model::{
    Aggregate, HostPolicy, HostStatus, INDEX_WORK, InstanceStatus, MoveStatus, Server, WORK_OPEN,
    hypervisor_uuid,
};

/// The servers that are on a node, on their way to it, or hold a place there: it cannot be removed before they are
/// gone. What is read is a condition of the commit.
pub fn guests(tx: &mut Tx, node: &str) -> ApiResult<Vec<String>> {
    let mut found: Vec<String> = tx.by_index::<Server>("host", node)?.into_iter().map(|s| s.id).collect();
    for server in tx.by_index::<Server>(INDEX_WORK, WORK_OPEN)? {
        let there = server.moving.as_ref().is_some_and(|m| m.to == node || m.from == node);
        if there && !found.contains(&server.id) {
            found.push(server.id);
        }
    }
    for holder in claims::holders(tx, &hypervisor_uuid(node))? {
        if !found.contains(&holder) {
            found.push(holder);
        }
    }
    Ok(found)
}

/// Whether anything is known of this host.
pub fn knows_host(tx: &mut Tx, node: &str) -> ApiResult<bool> {
    Ok(tx.get::<HostStatus>(node)?.is_some() || claims::has_provider(tx, &hypervisor_uuid(node))?)
}

/// Forgets a node that was removed from the cloud: its host, its services, its place in aggregates, its provider.
pub fn forget_host(tx: &mut Tx, node: &str) -> ApiResult<()> {
    tx.delete::<HostStatus>(node)?;
    tx.delete::<HostPolicy>(node)?;
    for mut aggregate in tx.list::<Aggregate>()? {
        if aggregate.hosts.remove(node) {
            tx.put(&aggregate)?;
        }
    }
    for status in tx.list_unfenced::<InstanceStatus>()?.into_iter().filter(|s| s.node == node) {
        tx.delete::<InstanceStatus>(&status.id)?;
    }
    for status in tx.list_unfenced::<MoveStatus>()?.into_iter().filter(|s| s.node == node) {
        tx.delete::<MoveStatus>(&status.id())?;
    }
    Ok(claims::remove_provider(tx, &hypervisor_uuid(node))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NODE, seen, server};
    use cairn_placement::claims::{Inventory, Ratios, Resources};
    use cairn_state::LocalStore;
    use std::collections::BTreeSet;

    fn provider() -> Inventory {
        Inventory {
            provider: hypervisor_uuid(NODE),
            name: NODE.into(),
            vcpus: 4,
            memory_mb: 4096,
            disk_gb: 10,
            reserved: Resources::default(),
            ratios: Ratios::default(),
            traits: BTreeSet::new(),
        }
    }

    #[tokio::test]
    async fn a_node_with_servers_is_not_empty_and_one_that_is_forgotten_leaves_nothing() {
        let store = LocalStore::in_memory().unwrap();
        let there = server("s1");
        store
            .transact(|tx| {
                tx.put(&there)?;
                tx.put(&seen("s1", 1, crate::model::PowerState::Running))?;
                tx.put(&HostPolicy { node: NODE.into(), ..HostPolicy::default() })?;
                claims::upsert_provider(tx, &provider())
            })
            .await
            .unwrap();
        assert_eq!(store.read(|tx| guests(tx, NODE)).unwrap(), ["s1"]);
        assert_eq!(store.read(|tx| guests(tx, "other")).unwrap(), Vec::<String>::new());
        store.transact(|tx| tx.delete::<Server>("s1").map(drop)).await.unwrap();
        assert!(store.read(|tx| guests(tx, NODE)).unwrap().is_empty());
        let one = Resources { vcpus: 1, ..Resources::default() };
        let claimed = store.transact(|tx| claims::claim(tx, "c1", NODE, &one, "p", "u")).await;
        assert!(claimed.is_ok());
        assert_eq!(store.read(|tx| guests(tx, NODE)).unwrap(), ["c1"], "who holds a place there counts");
        store.transact(|tx| claims::release(tx, "c1")).await.unwrap();
        assert!(store.read(|tx| knows_host(tx, NODE)).unwrap());
        store.transact(|tx| forget_host(tx, NODE)).await.unwrap();
        assert!(!store.read(|tx| knows_host(tx, NODE)).unwrap());
        let left = store.read(|tx| tx.list::<InstanceStatus>()).unwrap();
        assert!(left.is_empty());
    }
}
