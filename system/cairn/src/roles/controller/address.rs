//! The cloud's virtual address: given and taken back by an operator, and held by the node that leads, which is one that
//! is in touch with the majority. Its network agent puts it on the LAN.
//!
//! None is taken unasked: nobody but its owner knows which address of a LAN is free.

use std::net::IpAddr;
use std::time::Duration;

use cairn_cluster::membership::Member;
use cairn_gateway::{ApiError, ApiResult};
use cairn_network::model::VirtualAddress;
use cairn_state::{Abort, LocalStore, Revision, Store, Tx, record};
use futures_util::StreamExt;

/// How long it goes without a look.
const LOOK: Duration = Duration::from_secs(2);

/// Gives the cloud this address on its LAN, or takes it back. 400 if it cannot be one, 409 if a node has it.
pub async fn set(store: &LocalStore, address: Option<IpAddr>) -> ApiResult<()> {
    if let Some(address) = address.filter(|address| !is_usable(*address)) {
        return Err(ApiError::bad_request(format!("{address} is not an address that a machine can have.")));
    }
    store
        .transact(|tx| {
            let node = address.map(|address| owner(tx, address)).transpose()?.flatten();
            if let (Some(address), Some(node)) = (address, node) {
                return Err(ApiError::conflict(format!(
                    "{address} is {node}'s own; give the cloud one that no machine has."
                )));
            }
            let had = get(tx)?;
            Ok(tx.put(&VirtualAddress { address, ..had })?)
        })
        .await
}

/// The address, and who has it.
pub fn get(tx: &mut Tx) -> Result<VirtualAddress, Abort> {
    Ok(tx.get::<VirtualAddress>(VirtualAddress::ID)?.unwrap_or_default())
}

/// The member whose own address this is.
fn owner(tx: &mut Tx, address: IpAddr) -> ApiResult<Option<String>> {
    let members = tx.list_unfenced::<Member>()?;
    let has = |m: &Member| m.is_trusted() && m.addresses.iter().any(|a| a.ip() == address);
    Ok(members.into_iter().find(has).map(|m| m.name))
}

fn is_usable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// Has this node hold the address for as long as it leads: it runs where the leader is. Runs for ever.
pub async fn hold(store: LocalStore, node: String) {
    loop {
        let seen = store.snapshot().map_or(Revision(0), |s| s.revision());
        if let Err(error) = store.transact(|tx| take(tx, &node)).await {
            tracing::info!(%error, "the cloud's address stays where it was");
        }
        let change = async {
            match store.watch(&record::prefix::<VirtualAddress>(), seen).await {
                Ok(mut changes) => drop(changes.next().await),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        drop(tokio::time::timeout(LOOK, change).await);
    }
}

fn take(tx: &mut Tx, node: &str) -> Result<(), Abort> {
    let had = get(tx)?;
    match had.address.is_some() && had.on(node).is_none() {
        true => tx.put(&VirtualAddress { holder: Some(node.to_owned()), ..had }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_leads_holds_the_address_that_was_given() {
        let store = LocalStore::in_memory().unwrap();
        let now = || store.read(get).unwrap();
        store.transact(|tx| take(tx, "n1")).await.unwrap();
        assert_eq!(now(), VirtualAddress::default(), "none is taken unasked");
        let ip: IpAddr = "192.0.2.10".parse().unwrap();
        set(&store, Some(ip)).await.unwrap();
        store.transact(|tx| take(tx, "n1")).await.unwrap();
        assert_eq!((now().on("n1"), now().on("n2")), (Some(ip), None));
        store.transact(|tx| take(tx, "n2")).await.unwrap();
        assert_eq!(now().on("n2"), Some(ip));
        set(&store, None).await.unwrap();
        assert_eq!(now().on("n2"), None);
        for bad in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.0.1", "fe80::1", "255.255.255.255"] {
            assert_eq!(set(&store, bad.parse().ok()).await.unwrap_err().status, 400, "{bad}");
        }
    }
}
