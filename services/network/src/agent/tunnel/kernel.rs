//! The kernel's side of tunnels: VXLAN devices, forwarding entries and neighbours, by rtnetlink. Thin: it decides
//! nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::{LinkBridgePort, LinkVxlan};

use super::{EVERYONE, Entries, Shape};
use crate::agent::mac::Mac;
use crate::agent::netlink::{Netlink, Result};

impl Netlink {
    /// All entries of the namespace's VXLAN devices and bridges.
    pub async fn entries(&self) -> Result<Entries> {
        let mut entries = Entries::default();
        for family in [AddressFamily::Bridge, AddressFamily::Inet, AddressFamily::Inet6] {
            let dump = self.handle.neighbours().get().set_address_family(family);
            let messages: Vec<_> = dump.execute().try_collect().await?;
            messages.iter().for_each(|message| sort_in(message, family, &mut entries));
        }
        Ok(entries)
    }

    /// Makes a VXLAN device that learns nothing. It is not up.
    pub async fn add_vxlan(&self, name: &str, shape: Shape) -> Result<()> {
        let link = LinkVxlan::new(name, shape.vni).port(shape.port).learning(false);
        let link = match shape.local {
            IpAddr::V4(ip) => link.local(ip),
            // The inner packets have checksums of their own.
            IpAddr::V6(ip) => link.local6(ip).udp_zero_csum6_tx(true).udp_zero_csum6_rx(true),
        };
        self.handle.link().add(link.build()).execute().await
    }

    /// Sets how a bridge treats a tunnel that is in it.
    pub async fn set_tunnel_port(&self, index: u32, suppress: bool) -> Result<()> {
        let port = LinkBridgePort::new(index).learning(false).neigh_suppress(suppress);
        self.handle.link().set_port(port.build()).execute().await
    }

    /// Says which node a MAC is at; for [`EVERYONE`], one more node.
    pub async fn add_remote(&self, index: u32, mac: Mac, to: IpAddr) -> Result<()> {
        // A device has one place for a MAC, but many for everyone.
        let how = if mac == EVERYONE { NLM_F_APPEND } else { NLM_F_REPLACE };
        let message = RouteNetlinkMessage::NewNeighbour(remote(index, mac, to));
        ignoring(libc::EEXIST, self.request(message, NLM_F_CREATE | how).await)
    }

    /// Takes that back.
    pub async fn delete_remote(&self, index: u32, mac: Mac, to: IpAddr) -> Result<()> {
        let done = self.handle.neighbours().del(remote(index, mac, to)).execute().await;
        ignoring(libc::ENOENT, done)
    }

    /// Says that a MAC is behind a port of a bridge.
    pub async fn hold(&self, index: u32, mac: Mac) -> Result<()> {
        let message = RouteNetlinkMessage::NewNeighbour(held(index, mac));
        self.request(message, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Takes that back.
    pub async fn release(&self, index: u32, mac: Mac) -> Result<()> {
        ignoring(libc::ENOENT, self.handle.neighbours().del(held(index, mac)).execute().await)
    }

    /// Says who has an address.
    pub async fn add_neighbour(&self, index: u32, ip: IpAddr, mac: Mac) -> Result<()> {
        let mut message = neighbour(index, ip);
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Takes that back.
    pub async fn delete_neighbour(&self, index: u32, ip: IpAddr) -> Result<()> {
        ignoring(libc::ENOENT, self.handle.neighbours().del(neighbour(index, ip)).execute().await)
    }

    /// A request whose flags the library cannot give otherwise.
    async fn request(&self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(e) = answer.payload {
                return Err(rtnetlink::Error::NetlinkError(e));
            }
        }
        Ok(())
    }
}

/// What is so already need not be made so.
fn ignoring(code: i32, done: Result<()>) -> Result<()> {
    match done {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -code => Ok(()),
        done => done,
    }
}

fn message(index: u32, family: AddressFamily, state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = index;
    message.header.state = state;
    message
}

fn remote(index: u32, mac: Mac, to: IpAddr) -> NeighbourMessage {
    let mut message = message(index, AddressFamily::Bridge, NeighbourState::Permanent);
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(to.into()));
    message
}

fn held(index: u32, mac: Mac) -> NeighbourMessage {
    // "No ARP" is how a bridge calls an entry that is fixed but not its own; a sticky one stays where it is, whoever
    // sends under that MAC.
    let mut message = message(index, AddressFamily::Bridge, NeighbourState::Noarp);
    message.header.flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

fn neighbour(index: u32, ip: IpAddr) -> NeighbourMessage {
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut message = message(index, family, NeighbourState::Permanent);
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    message
}

/// Puts what the kernel lists where it belongs, if it is of ours.
fn sort_in(message: &NeighbourMessage, family: AddressFamily, entries: &mut Entries) {
    let (index, state) = (message.header.ifindex, message.header.state);
    let (mut mac, mut to, mut of_bridge) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            NeighbourAttribute::Destination(address) => to = ip_of(address),
            NeighbourAttribute::Controller(_) => of_bridge = true,
            _ => {}
        }
    }
    let Some(mac) = mac else { return };
    match (family, to) {
        (AddressFamily::Bridge, Some(to)) => drop(entries.remote.insert((index, mac, to))),
        (AddressFamily::Bridge, None) if of_bridge && state == NeighbourState::Noarp => {
            entries.held.insert((index, mac));
        }
        (AddressFamily::Bridge, None) => {}
        (_, Some(ip)) if state == NeighbourState::Permanent => {
            entries.neighbours.insert((index, ip), mac);
        }
        _ => {}
    }
}

fn ip_of(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        NeighbourAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        // Within the bridge family, the length says which it is.
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
            16 => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
            _ => None,
        },
        _ => None,
    }
}
