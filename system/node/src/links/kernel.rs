//! The kernel's links and addresses, read over one rtnetlink socket. It reads and never changes anything.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::{Error, Handle};

use super::{LAN, Nic};

/// What the node looks at, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The physical wired NICs, by MAC.
    pub nics: Vec<Nic>,
    /// The node's own addresses on the LAN that others can reach it by, sorted.
    pub addresses: Vec<IpAddr>,
}

/// Looks at the links and the LAN's addresses.
pub async fn look() -> Result<Seen, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|_| Error::RequestFailed)?;
    let task = tokio::spawn(connection);
    let seen = read(&handle).await;
    task.abort();
    seen
}

async fn read(handle: &Handle) -> Result<Seen, Error> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let indexes: HashMap<&str, u32> = links.iter().filter_map(|l| Some((name(l)?, l.header.index))).collect();
    let addresses = match indexes.get(LAN) {
        Some(&lan) => handle.address().get().set_link_index_filter(lan).execute().try_collect().await?,
        None => Vec::new(),
    };
    let mut seen = Seen {
        nics: links.iter().filter_map(nic).collect(),
        addresses: addresses.iter().filter_map(global).collect(),
    };
    seen.nics.sort_by(|a, b| a.mac.cmp(&b.mac));
    seen.addresses.sort();
    Ok(seen)
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The link as a NIC, if it is one: Ethernet, with a device behind it.
fn nic(link: &LinkMessage) -> Option<Nic> {
    let name = name(link)?;
    let device = Path::new("/sys/class/net").join(name).join("device");
    if link.header.link_layer_type != LinkLayerType::Ether || !device.exists() {
        return None;
    }
    let carrier = link.header.flags.contains(LinkFlags::LowerUp);
    Some(Nic { name: name.to_owned(), mac: permanent_mac(link)?, carrier })
}

/// The MAC it left the factory with; a driver that knows none has the one it uses.
fn permanent_mac(link: &LinkMessage) -> Option<String> {
    let find = |pick: fn(&LinkAttribute) -> Option<&Vec<u8>>| link.attributes.iter().find_map(pick);
    let permanent = find(|a| match a {
        LinkAttribute::PermAddress(mac) => Some(mac),
        _ => None,
    });
    let used = find(|a| match a {
        LinkAttribute::Address(mac) => Some(mac),
        _ => None,
    });
    let octets: Vec<String> = permanent.or(used)?.iter().map(|b| format!("{b:02x}")).collect();
    Some(octets.join(":"))
}

fn global(address: &AddressMessage) -> Option<IpAddr> {
    if address.header.scope != AddressScope::Universe {
        return None;
    }
    // Where both are given, the local one is the node's own (the other is a peer's).
    let local = address.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        address.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(scope: AddressScope, attributes: &[AddressAttribute]) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.scope = scope;
        message.attributes = attributes.to_vec();
        message
    }

    #[test]
    fn only_addresses_that_others_can_reach_count() {
        let [own, peer]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let both = [AddressAttribute::Address(peer), AddressAttribute::Local(own)];
        assert_eq!(global(&address(AddressScope::Universe, &both)), Some(own));
        assert_eq!(global(&address(AddressScope::Universe, &both[..1])), Some(peer));
        assert_eq!(global(&address(AddressScope::Link, &both)), None);
    }

    #[test]
    fn a_nic_is_known_by_its_permanent_mac() {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]));
        assert_eq!(permanent_mac(&link).as_deref(), Some("02:00:00:00:00:09"));
        link.attributes.push(LinkAttribute::PermAddress(vec![2, 0, 0, 0, 0, 1]));
        assert_eq!(permanent_mac(&link).as_deref(), Some("02:00:00:00:00:01"));
    }

    #[tokio::test]
    async fn the_kernel_answers() {
        let seen = look().await.unwrap();
        assert!(seen.nics.iter().all(|n| n.mac.len() == 17), "{seen:?}");
    }
}
