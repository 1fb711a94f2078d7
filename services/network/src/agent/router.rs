//! A router's rules: source translation and floating IPs, as nftables text for its own namespace. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The table in a router's namespace.
pub const TABLE: &str = "cairn_router";

/// What a router translates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Translation {
    /// Its link to the outside, if it has one.
    pub gateway: Option<String>,
    /// Its outer address.
    pub address: Option<Ipv4Addr>,
    /// Whether inner networks share the outer address.
    pub snat: bool,
    /// Floating addresses, each with the inner one it stands for.
    pub floating: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

impl Translation {
    /// The text for `nft -f`: replaces the table at one stroke. The same translation makes the same text.
    pub fn render(&self) -> String {
        let mut out = format!("table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n");
        if let Some(gateway) = &self.gateway {
            self.maps(&mut out);
            self.nat(gateway, &mut out);
            self.filter(gateway, &mut out);
        }
        out.push_str("}\n");
        out
    }

    fn maps(&self, out: &mut String) {
        let mut map = |name: &str, of: &str, elements: Vec<String>| {
            let kind = if of.contains(':') { "map" } else { "set" };
            let elements = match elements.join(", ") {
                none if none.is_empty() => none,
                some => format!(" elements = {{ {some} }}"),
            };
            out.push_str(&format!("  {kind} {name} {{ type {of};{elements} }}\n"));
        };
        let each =
            |f: fn(&Ipv4Addr, &Ipv4Addr) -> String| self.floating.iter().map(|(o, i)| f(o, i)).collect();
        map("inner", "ipv4_addr : ipv4_addr", each(|outer, inner| format!("{outer} : {inner}")));
        map("outer", "ipv4_addr : ipv4_addr", each(|outer, inner| format!("{inner} : {outer}")));
        map("pairs", "ipv4_addr . ipv4_addr", each(|outer, inner| format!("{outer} . {inner}")));
    }

    fn nat(&self, gateway: &str, out: &mut String) {
        out.push_str("  chain prerouting { type nat hook prerouting priority dstnat; policy accept;\n");
        out.push_str("    dnat to ip daddr map @inner\n  }\n");
        out.push_str("  chain postrouting { type nat hook postrouting priority srcnat; policy accept;\n");
        out.push_str(&format!("    oifname \"{gateway}\" snat to ip saddr map @outer\n"));
        if let Some(address) = self.address.filter(|_| self.snat) {
            out.push_str(&format!("    oifname \"{gateway}\" snat to {address}\n"));
        }
        // From inside to a floating IP: the answer must come back this way, so the source is translated too.
        let hairpin = "    iifname \"qr*\" oifname \"qr*\" ct status dnat snat to";
        out.push_str(&format!("{hairpin} ip saddr map @outer\n"));
        if let Some(address) = self.address {
            out.push_str(&format!("{hairpin} {address}\n"));
        }
        out.push_str("  }\n");
    }

    fn filter(&self, gateway: &str, out: &mut String) {
        out.push_str("  chain forward { type filter hook forward priority filter; policy accept;\n");
        // Connections outlive the floating IP that made them: those of a pair that is no more end here.
        out.push_str("    ct status dnat ct original ip daddr . ct reply ip saddr != @pairs counter drop\n");
        let shared = self.address.map_or(String::new(), |a| format!("ct reply ip daddr != {a} "));
        out.push_str(&format!(
            "    ct status snat {shared}ct reply ip daddr . ct original ip saddr != @pairs counter drop\n"
        ));
        if self.snat {
            // Who shares the outer address cannot be reached by an inner one.
            out.push_str(&format!(
                "    iifname \"{gateway}\" ct state new ct status & dnat == 0 counter drop\n"
            ));
        }
        out.push_str("  }\n");
        out.push_str("  chain input { type filter hook input priority filter; policy accept;\n");
        out.push_str(&format!("    iifname \"{gateway}\" ip daddr 169.254.0.0/16 counter drop\n  }}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gateway_nothing_is_translated() {
        let text = Translation::default().render();
        assert_eq!(text, "table ip cairn_router\ndelete table ip cairn_router\ntable ip cairn_router {\n}\n");
    }
}
