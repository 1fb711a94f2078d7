//! The names that the agent gives to links and namespaces, and how it knows its own again. Pure.
//!
//! Taps, bridges and namespaces are named by the model; these are the ones that only the agent needs to know.

/// How many characters of an id are in a link's name.
const ID_PART: usize = 11;
/// What the names of our links in the node's namespace begin with.
const LINKS: [&str; 7] = ["tap", "br", TUNNEL, PLUG, PATCH_INNER, PATCH_OUTER, TAGGED];
/// What the names of our namespaces begin with.
const SPACES: [&str; 2] = ["net-", "rtr-"];

const PLUG: &str = "vp";
const TUNNEL: &str = "vx";
const PATCH_INNER: &str = "pa";
const PATCH_OUTER: &str = "pb";
const TAGGED: &str = "vl";

fn named(prefix: &str, id: &str) -> String {
    format!("{prefix}{}", id.chars().take(ID_PART).collect::<String>())
}

/// The node's end of the veth of a router's or service's port.
pub fn plug(port_id: &str) -> String {
    named(PLUG, port_id)
}

/// That veth's end in the namespace that answers DHCP.
pub fn service_link(port_id: &str) -> String {
    named("ns", port_id)
}

/// That veth's end in a router, towards a network of its project.
pub fn router_link(port_id: &str) -> String {
    named("qr", port_id)
}

/// That veth's end in a router, towards the outside.
pub fn gateway_link(port_id: &str) -> String {
    named("qg", port_id)
}

/// The veth between a network's bridge and the bridge of the physical network: (here, there).
pub fn patch(network_id: &str) -> (String, String) {
    (named(PATCH_INNER, network_id), named(PATCH_OUTER, network_id))
}

/// The VLAN interface of a tagged network.
pub fn tagged(network_id: &str) -> String {
    named(TAGGED, network_id)
}

/// Whether a link in the node's namespace is one that this agent makes.
pub fn is_our_link(name: &str) -> bool {
    LINKS.iter().filter_map(|prefix| name.strip_prefix(prefix)).any(is_id_part)
}

/// Whether a namespace is one that this agent makes.
pub fn is_our_space(name: &str) -> bool {
    SPACES
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix))
        .any(|id| id.len() == 36 && is_id_part(&id[..ID_PART]))
}

fn is_id_part(text: &str) -> bool {
    text.len() == ID_PART
        && text.bytes().enumerate().all(|(at, b)| if at == 8 { b == b'-' } else { b.is_ascii_hexdigit() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;

    #[test]
    fn ours_are_known_and_others_are_not() {
        let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
        for name in [
            model::tap_name(id),
            model::bridge_name(id),
            model::tunnel_name(id),
            plug(id),
            patch(id).0,
            tagged(id),
        ] {
            assert!(is_our_link(&name) && name.len() <= 15, "{name}");
        }
        for name in
            ["lan0", "lo", "br0", "br-0123456789ab", "virbr0", "tap0", "tapvm6", "eth0", "vnet3", "pan0"]
        {
            assert!(!is_our_link(name), "{name}");
        }
        assert!(is_our_space(&model::netns_name(id)) && is_our_space(&model::router_netns(id)));
        for name in ["net-1", "rtr-x", "pv-hv", "cairn"] {
            assert!(!is_our_space(name), "{name}");
        }
    }
}
