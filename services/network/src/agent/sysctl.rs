//! The kernel switches that netlink does not reach. Each is written only where it differs.

use std::io;
use std::path::Path;

use super::netns;

/// For routers and services: answer ARP only for what a link itself has, forward as told, obey nobody's router
/// advertisements and redirects.
const SPACE: [(&str, &str); 8] = [
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
    ("net/ipv4/conf/all/promote_secondaries", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
];

/// Whether br_netfilter, without which nothing is filtered, is there.
pub fn can_filter() -> bool {
    Path::new("/proc/sys/net/bridge").is_dir()
}

/// Only the bridges that ask for it are filtered: not the LAN's, nor anybody else's.
pub fn filter_only_on_request() -> io::Result<()> {
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"] {
        write(&format!("net/bridge/{name}"), "0")?;
    }
    Ok(())
}

/// The node itself has no IPv6 address on a link of the guests.
pub fn quiet(link: &str) -> io::Result<()> {
    write(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1")
}

/// A bridge that answers for known IPv6 addresses must have IPv6, but the node still has no address there, and makes
/// none by itself.
pub fn silent_ipv6(bridge: &str) -> io::Result<()> {
    // Enabled last: the others say how.
    [("addr_gen_mode", "1"), ("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", "0")]
        .into_iter()
        .try_for_each(|(switch, value)| write(&format!("net/ipv6/conf/{bridge}/{switch}"), value))
}

/// Sets up a namespace before its links come.
pub async fn space(name: &str, forwarding: bool) -> io::Result<()> {
    netns::within(Some(name), move || {
        let on = if forwarding { "1" } else { "0" };
        // Forwarding first: it resets the others.
        write("net/ipv4/ip_forward", on)?;
        write("net/ipv6/conf/all/forwarding", on)?;
        SPACE.iter().try_for_each(|(switch, value)| write(switch, value))
    })
    .await
}

/// A switch that this kernel does not have (IPv6 left out) needs no setting.
fn write(switch: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys").join(switch);
    match std::fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => Ok(()),
        Ok(_) => std::fs::write(&path, value)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}
