//! The inet table: what security groups allow, statefully. Pure text.
//!
//! Packets of a connection's answering side always pass; those of its opening side are held against the rules
//! each time. So a rule that is taken away ends what it allowed, and a change never breaks what still is.

use ipnet::IpNet;

use super::spoof::Prefixed;
use super::{GROUP_TABLE, Guarded, Policy, braces, chain, named, open_table};
use crate::model::{Direction, Ethertype, SecurityGroupRule};

/// What every watched port may send and get beside its groups' rules: DHCP, neighbour discovery, multicast
/// membership, router advertisements (to it), and the answers to what was allowed.
const COMMON: &str = "  chain answers {
    ct state established ct direction reply accept
    ct state related accept
    ct state invalid counter drop
  }
  chain common_out {
    meta nfproto ipv4 udp sport 68 udp dport 67 accept
    meta nfproto ipv6 udp sport 546 udp dport 547 accept
    icmpv6 type { mld-listener-report, mld-listener-done, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept
    jump answers
  }
  chain common_in {
    meta nfproto ipv4 udp sport 67 udp dport 68 accept
    meta nfproto ipv6 udp sport 547 udp dport 546 accept
    icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
    jump answers
  }
";

pub(super) fn render(policy: &Policy, out: &mut String) {
    open_table("inet", GROUP_TABLE, out);
    for (group, addresses) in &policy.remotes {
        let nets = addresses.canonical();
        let v4: Vec<_> = nets.v4.iter().map(Prefixed::shortest).collect();
        let v6: Vec<_> = nets.v6.iter().map(Prefixed::shortest).collect();
        named("set", &remote(Ethertype::V4, group), "ipv4_addr; flags interval", &v4, out);
        named("set", &remote(Ethertype::V6, group), "ipv6_addr; flags interval", &v6, out);
    }
    out.push_str(COMMON);
    for (group, rules) in &policy.groups {
        group_chain(Direction::Egress, group, rules, out);
        group_chain(Direction::Ingress, group, rules, out);
    }
    for port in policy.guarded.values() {
        port_chain(Direction::Egress, port, policy, out);
        port_chain(Direction::Ingress, port, policy, out);
    }
    verdicts("from_port", "out", policy, out);
    verdicts("to_port", "in", policy, out);
    hooks(policy, out);
    out.push_str("}\n");
}

fn hooks(policy: &Policy, out: &mut String) {
    if !policy.zones.is_empty() {
        let zones = braces(policy.zones.iter().map(|(bridge, zone)| format!("\"{bridge}\" : {zone}")));
        out.push_str(&format!(
            "  chain zone {{ type filter hook prerouting priority raw; policy accept;\n    ct zone set iifname map {zones}\n  }}\n"
        ));
    }
    out.push_str(
        "  chain prerouting { type filter hook prerouting priority filter; policy accept;\n    meta mark vmap @from_port\n  }\n",
    );
    out.push_str(
        "  chain forward { type filter hook forward priority filter; policy accept;\n    meta mark vmap @to_port\n  }\n",
    );
}

fn verdicts(map: &str, what: &str, policy: &Policy, out: &mut String) {
    let element = |p: &Guarded| format!("{:#010x} : goto {}", p.mark, chain(what, p));
    let elements: Vec<_> = policy.guarded.values().map(element).collect();
    named("map", map, "mark : verdict", &elements, out);
}

fn port_chain(direction: Direction, port: &Guarded, policy: &Policy, out: &mut String) {
    let what = short(direction);
    out.push_str(&format!("  chain {} {{\n    jump common_{what}\n", chain(what, port)));
    // A group that is not known (yet) allows nothing.
    for group in port.groups.iter().filter(|g| policy.groups.contains_key(*g)) {
        out.push_str(&format!("    jump group_{what}_{group}\n"));
    }
    out.push_str("    counter drop\n  }\n");
}

fn group_chain(direction: Direction, group: &str, rules: &[SecurityGroupRule], out: &mut String) {
    out.push_str(&format!("  chain group_{}_{group} {{\n", short(direction)));
    let mut lines: Vec<_> = rules.iter().filter(|r| r.direction == direction).filter_map(rule).collect();
    lines.sort();
    lines.dedup();
    lines.iter().for_each(|line| out.push_str(&format!("    {line} accept\n")));
    out.push_str("  }\n");
}

fn short(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "out",
        Direction::Ingress => "in",
    }
}

fn remote(ethertype: Ethertype, group: &str) -> String {
    match ethertype {
        Ethertype::V4 => format!("members4_{group}"),
        Ethertype::V6 => format!("members6_{group}"),
    }
}

/// What a rule matches; `None` if it can match nothing.
fn rule(rule: &SecurityGroupRule) -> Option<String> {
    let side = other_side(rule)?;
    // A protocol that this release cannot name allows nothing, not everything.
    let protocol = match (&rule.protocol, rule.protocol_number()) {
        (None, _) => None,
        (Some(_), None) => return None,
        (Some(_), Some(number)) => Some(protocol(number, rule)?),
    };
    Some(std::iter::once(side).chain(protocol).collect::<Vec<_>>().join(" "))
}

fn other_side(rule: &SecurityGroupRule) -> Option<String> {
    let (family, field) = match (rule.ethertype, rule.direction) {
        (Ethertype::V4, Direction::Ingress) => ("ipv4", "ip saddr"),
        (Ethertype::V4, Direction::Egress) => ("ipv4", "ip daddr"),
        (Ethertype::V6, Direction::Ingress) => ("ipv6", "ip6 saddr"),
        (Ethertype::V6, Direction::Egress) => ("ipv6", "ip6 daddr"),
    };
    if let Some(group) = &rule.remote_group_id {
        return Some(format!("{field} @{}", remote(rule.ethertype, group)));
    }
    match (rule.remote_ip_prefix, rule.ethertype) {
        (None, _) => Some(format!("meta nfproto {family}")),
        (Some(net), _) if net.prefix_len() == 0 => Some(format!("meta nfproto {family}")),
        (Some(IpNet::V4(net)), Ethertype::V4) => Some(format!("{field} {}", net.trunc().shortest())),
        (Some(IpNet::V6(net)), Ethertype::V6) => Some(format!("{field} {}", net.trunc().shortest())),
        (Some(_), _) => None,
    }
}

fn protocol(number: u8, rule: &SecurityGroupRule) -> Option<String> {
    let name = match number {
        1 | 58 => return Some(icmp(number, rule)),
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        132 => "sctp",
        136 => "udplite",
        other => return Some(format!("meta l4proto {other}")),
    };
    let Some(first) = rule.port_range_min.or(rule.port_range_max) else {
        return Some(format!("meta l4proto {number}"));
    };
    match rule.port_range_max.unwrap_or(first) {
        last if last < first => None,
        last if last == first => Some(format!("{name} dport {first}")),
        u16::MAX if first == 0 => Some(format!("meta l4proto {number}")),
        last => Some(format!("{name} dport {first}-{last}")),
    }
}

fn icmp(number: u8, rule: &SecurityGroupRule) -> String {
    let name = if number == 1 { "icmp" } else { "icmpv6" };
    match (rule.port_range_min, rule.port_range_max) {
        (None, _) => format!("meta l4proto {number}"),
        (Some(kind), None) => format!("{name} type {kind}"),
        (Some(kind), Some(code)) => format!("{name} type {kind} {name} code {code}"),
    }
}
