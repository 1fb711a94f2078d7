//! Anti-spoofing and security groups: the whole rule set of a node, as nftables text. Pure.
//!
//! Two tables. `cairn_guard` (bridge) sees every frame first: it drops what a port may not send, and puts the
//! port's mark on what it may ([`spoof`]). `cairn_sg` (inet) sees the same packets through br_netfilter, with
//! connection tracking in one zone per bridge, and lets pass what the port's groups allow ([`groups`]).
//! Connection tracking matches in the bridge family itself are not used: not every kernel has them. [`edge`] keeps
//! in what each node has for itself, and with tunnels a third table (`cairn_tunnel`) lets only nodes into them.
//!
//! What must never be: a port that sends before its rules are there, or one whose missing group means "all".

mod edge;
mod groups;
mod spoof;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::mac::Mac;
use crate::model::SecurityGroupRule;

/// The bridge-family table.
pub const GUARD_TABLE: &str = "cairn_guard";
/// The inet-family table.
pub const GROUP_TABLE: &str = "cairn_sg";
/// The inet-family table that says who may reach this node's tunnels.
pub const TUNNEL_TABLE: &str = "cairn_tunnel";

/// Addresses of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Vec<Ipv4Net>,
    /// IPv6.
    pub v6: Vec<Ipv6Net>,
}

impl Addresses {
    /// Adds a network or (as a network of one) an address.
    pub fn add(&mut self, net: ipnet::IpNet) {
        match net {
            ipnet::IpNet::V4(net) => self.v4.push(net.trunc()),
            ipnet::IpNet::V6(net) => self.v6.push(net.trunc()),
        }
    }

    /// The same addresses in order, none twice, none inside another: the form nftables takes.
    fn canonical(&self) -> Addresses {
        Addresses { v4: Ipv4Net::aggregate(&self.v4), v6: Ipv6Net::aggregate(&self.v6) }
    }
}

/// A port that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// Its device.
    pub tap: String,
    /// Its mark; no two ports of a node share one, none is 0.
    pub mark: u32,
    /// What it may send as: each MAC with its addresses.
    pub sources: BTreeMap<Mac, Addresses>,
    /// Its security groups; none means that nothing passes.
    pub groups: Vec<String>,
}

/// What does not leave by a tunnel or for the LAN: what each node with guests of the network has for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    /// Whether DHCP is answered on each node.
    pub dhcp: bool,
    /// The MACs that each node has.
    pub macs: BTreeSet<Mac>,
    /// Their addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// Everything that the rules of a node are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The conntrack zone of each bridge whose traffic is filtered.
    pub zones: BTreeMap<String, u16>,
    /// Every device in a bridge of a network: none of them reaches the node itself.
    pub members: BTreeSet<String>,
    /// The watched ports, by id.
    pub guarded: BTreeMap<String, Guarded>,
    /// The rules of each group that a watched port has.
    pub groups: BTreeMap<String, Vec<SecurityGroupRule>>,
    /// The addresses of each group that a rule names as the other side.
    pub remotes: BTreeMap<String, Addresses>,
    /// The ways out of the networks' bridges: tunnels, and links to the LAN.
    pub edges: BTreeMap<String, Edge>,
    /// The addresses that tunnels may come from.
    pub peers: BTreeSet<IpAddr>,
}

impl Policy {
    /// The text for `nft -f`: replaces all tables at one stroke. The same policy makes the same text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        if self.members.is_empty() {
            // Without a network here, nothing is left, not even empty tables.
            for (family, name) in [("bridge", GUARD_TABLE), ("inet", GROUP_TABLE), ("inet", TUNNEL_TABLE)] {
                no_table(family, name, &mut out);
            }
            return out;
        }
        spoof::render(self, &mut out);
        groups::render(self, &mut out);
        edge::render_table(self, &mut out);
        out
    }
}

/// Removes a table, whether it is there or not.
fn no_table(family: &str, name: &str, out: &mut String) {
    out.push_str(&format!("table {family} {name}\ndelete table {family} {name}\n"));
}

/// Opens a table anew: whatever it held goes in the same transaction.
fn open_table(family: &str, name: &str, out: &mut String) {
    no_table(family, name, out);
    out.push_str(&format!("table {family} {name} {{\n"));
}

/// A map or set with its elements; without any, nftables wants no `elements` at all.
fn named(kind: &str, name: &str, of: &str, elements: &[String], out: &mut String) {
    out.push_str(&format!("  {kind} {name} {{ type {of};"));
    if !elements.is_empty() {
        out.push_str(&format!(" elements = {{ {} }}", elements.join(", ")));
    }
    out.push_str(" }\n");
}

/// `{ a, b }`
fn braces<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|i| i.to_string()).collect();
    format!("{{ {} }}", items.join(", "))
}

/// The port's part of a chain's name.
fn chain(what: &str, port: &Guarded) -> String {
    format!("{what}_{}", port.tap)
}
