//! Tunnels: how a network's bridge on this node reaches its bridges on the others, by VXLAN (RFC 7348) with entries
//! that come from the store alone.
//!
//! [`Tunnel`] is what should be, [`Entries`] what is; [`plan`] compares them and is pure, [`kernel`] asks and acts.
//! Three tables say where frames go: the device's own (which node a MAC is at, and which nodes get what is for all),
//! the bridge's (that such a MAC is behind the tunnel), and the bridge's neighbours (who has an address), by which
//! the bridge itself answers ARP and neighbour discovery. Nothing is learned from what arrives.
//!
//! It may touch the devices that it names and their bridges' entries. It must never send a frame to a node that
//! has no port of the network.

pub mod kernel;
pub mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::mac::Mac;

/// The UDP port that tunnels end at (RFC 7348).
pub const UDP_PORT: u16 = 4789;

/// The MAC under which a VXLAN device looks up where frames go that are for all, or for a MAC it does not know.
pub const EVERYONE: Mac = Mac([0; 6]);

/// A tunnel as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The bridge it is in.
    pub bridge: String,
    /// What cannot be changed once it is made.
    pub shape: Shape,
    /// In bytes.
    pub mtu: u32,
    /// Whether the bridge answers for known addresses instead of asking the other nodes.
    pub suppress: bool,
    /// Which node (by the address its tunnels end at) a MAC is at.
    pub remote: BTreeMap<Mac, IpAddr>,
    /// The MACs of `remote` whose guest may begin to send from here at any moment: the bridge must be free to learn
    /// so.
    pub arriving: BTreeSet<Mac>,
    /// The nodes that get what is for all.
    pub everyone: BTreeSet<IpAddr>,
    /// Who has an address, on any node.
    pub neighbours: BTreeMap<IpAddr, Mac>,
}

/// What makes a VXLAN device the one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The VXLAN network identifier.
    pub vni: u32,
    /// The address of this node that it ends at.
    pub local: IpAddr,
    /// The UDP port.
    pub port: u16,
}

/// The entries of all tunnels and bridges of a node, by the number of the link they are of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Of VXLAN devices: where a MAC is.
    pub remote: BTreeSet<(u32, Mac, IpAddr)>,
    /// Of bridges: the MACs that are fixed to a port, by the number of the port.
    pub held: BTreeSet<(u32, Mac)>,
    /// Of bridges: the permanent neighbours.
    pub neighbours: BTreeMap<(u32, IpAddr), Mac>,
}

/// One change of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes the device.
    Add {
        /// Its name.
        link: String,
        /// The rest.
        shape: Shape,
    },
    /// Sets how its bridge treats it: nothing is learned from it, and whether known addresses are answered for.
    Port {
        /// The device.
        link: String,
        /// Whether they are.
        suppress: bool,
    },
    /// Says which node a MAC is at ([`EVERYONE`]: one more node that gets what is for all).
    Remote {
        /// The device.
        link: String,
        /// The MAC.
        mac: Mac,
        /// The node's address.
        to: IpAddr,
    },
    /// Takes that back.
    NoRemote {
        /// The device.
        link: String,
        /// The MAC.
        mac: Mac,
        /// The node's address.
        to: IpAddr,
    },
    /// Says that a MAC is behind the tunnel.
    Hold {
        /// The device.
        link: String,
        /// The MAC.
        mac: Mac,
    },
    /// Takes that back.
    Release {
        /// The device.
        link: String,
        /// The MAC.
        mac: Mac,
    },
    /// Says who has an address.
    Neighbour {
        /// The bridge.
        bridge: String,
        /// The address.
        ip: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
    /// Takes that back.
    NoNeighbour {
        /// The bridge.
        bridge: String,
        /// The address.
        ip: IpAddr,
    },
}

/// This node's side of all tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub ip: IpAddr,
    /// The largest packet, in bytes, on the wire there.
    pub mtu: u32,
}

/// Which of the LAN's addresses tunnels end at: the one they ended at before, as long as it is there, else an IPv4
/// one, else an IPv6 one. One that is alone in its subnet may be on its way through the cloud, and is taken last.
pub fn end(addresses: impl Iterator<Item = IpNet>, before: Option<IpAddr>) -> Option<IpAddr> {
    let rank = |net: &IpNet| {
        (
            Some(net.addr()) != before,
            net.prefix_len() == net.max_prefix_len(),
            net.addr().is_ipv6(),
            net.addr(),
        )
    };
    addresses.min_by_key(rank).map(|net| net.addr())
}

impl Step {
    /// The link that it is about, as failures are told.
    pub fn subject(&self) -> &str {
        match self {
            Step::Neighbour { bridge, .. } | Step::NoNeighbour { bridge, .. } => bridge,
            Step::Add { link, .. }
            | Step::Port { link, .. }
            | Step::Remote { link, .. }
            | Step::NoRemote { link, .. }
            | Step::Hold { link, .. }
            | Step::Release { link, .. } => link,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_end_where_they_did_or_at_a_lasting_address() {
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
        let end_of = |texts: &[&str], before: Option<&str>| {
            end(nets(texts).into_iter(), before.map(|b| b.parse().unwrap())).map(|ip| ip.to_string())
        };
        let lan = ["192.0.2.5/32", "192.0.2.9/24", "fd00::9/64"];
        assert_eq!(end_of(&lan, None).as_deref(), Some("192.0.2.9"));
        assert_eq!(end_of(&lan, Some("fd00::9")).as_deref(), Some("fd00::9"));
        assert_eq!(end_of(&lan[2..], Some("192.0.2.9")).as_deref(), Some("fd00::9"));
        assert_eq!(end_of(&lan[..1], None).as_deref(), Some("192.0.2.5"));
        assert_eq!(end_of(&[], Some("192.0.2.9")), None);
    }
}
