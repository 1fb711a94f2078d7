//! Where a network leaves its node, by a tunnel or for the LAN: what does not pass, and who may reach the node's
//! tunnels. Pure text.
//!
//! Each node answers its own guests' DHCP, DNS and metadata, under the same MAC and addresses. Neither the questions
//! nor the answers may cross to another node, which would answer too.

use std::net::IpAddr;

use super::spoof::exact;
use super::{Edge, Policy, TUNNEL_TABLE, braces, named, no_table, open_table};
use crate::agent::tunnel::UDP_PORT;

/// What asks for, and what answers with, an address by DHCP.
const DHCP: &str = "    udp dport { 67, 68 } drop\n";

/// The chains of each way out, within the bridge table.
pub(super) fn render_chains(policy: &Policy, out: &mut String) {
    for (exit, edge) in &policy.edges {
        out.push_str(&format!("  chain from_{exit} {{\n"));
        arriving(edge, out);
        out.push_str(&format!("  }}\n  chain to_{exit} {{\n"));
        leaving(edge, out);
        out.push_str("  }\n");
    }
}

/// Which chain a frame goes through that leaves.
pub(super) fn exits(policy: &Policy) -> Vec<String> {
    policy.edges.keys().map(|exit| format!("\"{exit}\" : jump to_{exit}")).collect()
}

fn arriving(edge: &Edge, out: &mut String) {
    if edge.dhcp {
        out.push_str(DHCP);
    }
    if !edge.macs.is_empty() {
        out.push_str(&format!("    ether saddr {} drop\n", braces(&edge.macs)));
    }
}

fn leaving(edge: &Edge, out: &mut String) {
    arriving(edge, out);
    if !edge.macs.is_empty() {
        out.push_str(&format!("    ether daddr {} drop\n", braces(&edge.macs)));
    }
    let v4: Vec<_> = edge.addresses.iter().filter(|ip| ip.is_ipv4()).collect();
    if !v4.is_empty() {
        out.push_str(&format!("    arp daddr ip {} drop\n", braces(v4)));
    }
    let v6 = edge.addresses.iter().filter_map(|ip| match ip {
        IpAddr::V6(ip) => Some(exact(*ip)),
        IpAddr::V4(_) => None,
    });
    let v6: Vec<_> = v6.collect();
    if !v6.is_empty() {
        // Who is asked for is at byte 8 of the ICMPv6 message.
        out.push_str(&format!("    icmpv6 type nd-neighbor-solicit @th,64,128 {} drop\n", braces(v6)));
    }
}

/// The table that lets only other nodes into the tunnels; without tunnels there is none.
pub(super) fn render_table(policy: &Policy, out: &mut String) {
    if policy.peers.is_empty() {
        return no_table("inet", TUNNEL_TABLE, out);
    }
    open_table("inet", TUNNEL_TABLE, out);
    let of = |v4: bool| -> Vec<String> {
        policy.peers.iter().filter(|ip| ip.is_ipv4() == v4).map(IpAddr::to_string).collect()
    };
    named("set", "peers4", "ipv4_addr", &of(true), out);
    named("set", "peers6", "ipv6_addr", &of(false), out);
    out.push_str("  chain input { type filter hook input priority filter; policy accept;\n");
    out.push_str(&format!("    udp dport {UDP_PORT} ip saddr @peers4 accept\n"));
    out.push_str(&format!("    udp dport {UDP_PORT} ip6 saddr @peers6 accept\n"));
    out.push_str(&format!("    udp dport {UDP_PORT} counter drop\n  }}\n}}\n"));
}
