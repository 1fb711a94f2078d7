//! The bridge table: what a port may send as, and which port a packet is of. Pure text.

use std::fmt::Display;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Addresses, GUARD_TABLE, Guarded, Policy, braces, chain, edge, named, open_table};
use crate::agent::mac::Mac;

/// The hooks run before br_netfilter hands the packet to the inet table (bridge priority 0), so that it finds
/// the mark set: of the sending port after `prerouting`, of the receiving one after `forward`.
const HOOKS: &str = "  chain prerouting { type filter hook prerouting priority -300; policy accept;
    meta mark set 0
    meta mark set iifname map @port_mark
    iifname vmap @guard
  }
  chain forward { type filter hook forward priority -300; policy accept;
    meta mark set 0
    meta mark set oifname map @port_mark
    oifname vmap @exit
  }
";

/// No guest talks to the node through a network's bridge: not by ARP, not by IP, not to any of its addresses.
const INPUT: &str = "  chain input { type filter hook input priority -300; policy accept;
    iifname @member drop
  }
";

/// What holds for every watched port: only ARP, IPv4 and IPv6, untagged; no serving of DHCP, no router
/// advertisements; and what a guest may send before it has an address.
const COMMON: &str = "  chain common {
    ether type != { arp, ip, ip6 } drop
    udp sport 67 udp dport 68 drop
    udp sport 547 udp dport 546 drop
    icmpv6 type { nd-router-advert, nd-redirect } drop
    ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
    ip6 saddr :: icmpv6 type { mld-listener-report, nd-router-solicit, nd-neighbor-solicit, mld2-listener-report } accept
  }
";

pub(super) fn render(policy: &Policy, out: &mut String) {
    open_table("bridge", GUARD_TABLE, out);
    let ports = || policy.guarded.values();
    let marks: Vec<_> = ports().map(|p| format!("\"{}\" : {:#010x}", p.tap, p.mark)).collect();
    named("map", "port_mark", "ifname : mark", &marks, out);
    let mut guards: Vec<_> = ports().map(|p| format!("\"{}\" : goto {}", p.tap, chain("from", p))).collect();
    guards.extend(policy.edges.keys().map(|exit| format!("\"{exit}\" : goto from_{exit}")));
    let members: Vec<_> = policy.members.iter().map(|m| format!("\"{m}\"")).collect();
    named("set", "member", "ifname", &members, out);
    out.push_str(COMMON);
    ports().for_each(|p| port(p, out));
    edge::render_chains(policy, out);
    // The map of verdicts comes after the chains it leads to.
    named("map", "guard", "ifname : verdict", &guards, out);
    named("map", "exit", "ifname : verdict", &edge::exits(policy), out);
    out.push_str(HOOKS);
    out.push_str(INPUT);
    out.push_str("}\n");
}

fn port(port: &Guarded, out: &mut String) {
    out.push_str(&format!("  chain {} {{\n", chain("from", port)));
    out.push_str(&format!("    ether saddr != {} drop\n    jump common\n", braces(port.sources.keys())));
    for (mac, addresses) in &port.sources {
        source(*mac, &addresses.canonical(), out);
    }
    out.push_str("    counter drop\n  }\n");
}

/// What may be sent as one MAC.
fn source(mac: Mac, addresses: &Addresses, out: &mut String) {
    let line = |text: String, out: &mut String| out.push_str(&format!("    ether saddr {mac} {text}\n"));
    if !addresses.v4.is_empty() {
        // 0.0.0.0 asks whether an address is free (RFC 5227); it claims nothing.
        let unspecified = Ipv4Net::from(std::net::Ipv4Addr::UNSPECIFIED);
        let arp = Ipv4Net::aggregate(&[addresses.v4.as_slice(), &[unspecified]].concat());
        line(format!("ether type arp arp saddr ether {mac}{} accept", within("arp saddr ip", &arp)), out);
        line(format!("ether type ip{} accept", within("ip saddr", &addresses.v4)), out);
    } else {
        line(format!("ether type arp arp saddr ether {mac} arp saddr ip 0.0.0.0 accept"), out);
    }
    if addresses.v6.iter().all(|net| net.prefix_len() > 0) && !addresses.v6.is_empty() {
        // A neighbour advertisement's target is at byte 8 of the ICMPv6 message.
        let targets = braces(addresses.v6.iter().map(range));
        line(format!("icmpv6 type nd-neighbor-advert @th,64,128 != {targets} drop"), out);
    }
    if !addresses.v6.is_empty() {
        line(format!("ether type ip6{} accept", within("ip6 saddr", &addresses.v6)), out);
    }
}

/// ` FIELD { … }`, or nothing when that is everything.
fn within<N: Display + Prefixed>(field: &str, nets: &[N]) -> String {
    if nets.iter().any(|net| net.length() == 0) {
        return String::new();
    }
    format!(" {field} {}", braces(nets.iter().map(Prefixed::shortest)))
}

/// A network as nftables reads it back: a single address has no prefix length.
pub(super) trait Prefixed {
    fn length(&self) -> u8;
    fn shortest(&self) -> String;
}

impl Prefixed for Ipv4Net {
    fn length(&self) -> u8 {
        self.prefix_len()
    }
    fn shortest(&self) -> String {
        if self.prefix_len() == 32 { self.addr().to_string() } else { self.to_string() }
    }
}

impl Prefixed for Ipv6Net {
    fn length(&self) -> u8 {
        self.prefix_len()
    }
    fn shortest(&self) -> String {
        if self.prefix_len() == 128 { self.addr().to_string() } else { self.to_string() }
    }
}

/// An address as raw payload.
pub(super) fn exact(ip: std::net::Ipv6Addr) -> String {
    format!("{:#034x}", u128::from(ip))
}

/// A network as raw payload: a number, or a range of them.
fn range(net: &Ipv6Net) -> String {
    let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
    if first == last { format!("{first:#034x}") } else { format!("{first:#034x}-{last:#034x}") }
}
