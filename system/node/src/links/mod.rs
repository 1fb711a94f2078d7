//! The node's links: which wired NIC is on the LAN (known by its permanent MAC), the bridge `lan0` it is put in, and
//! the addresses the node has there.
//!
//! systemd-networkd does the work (DHCP, or the address given on the kernel command line); this writes what it is
//! to do into `/run`. Where networkd does not run (a development node), `lan0` is made by who started the node.

mod kernel;

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::kernel::{Seen, look};
use crate::paths::{self, Paths};
use crate::program;

/// The bridge that carries the node's own address and every guest network on the real LAN.
pub const LAN: &str = "lan0";
const NETWORKD: &str = "/run/systemd/network";

/// A physical NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its name at this boot; it may be another at the next.
    pub name: String,
    /// Its permanent MAC address, which it is known by.
    pub mac: String,
    /// Whether a cable is plugged in and the other end is on.
    pub carrier: bool,
}

/// Which NIC is the LAN's: the one it was before, else the first with a carrier, else the first.
fn choose<'a>(nics: &'a [Nic], before: Option<&str>) -> Option<&'a Nic> {
    nics.iter()
        .find(|n| Some(n.mac.as_str()) == before)
        .or_else(|| nics.iter().find(|n| n.carrier))
        .or_else(|| nics.first())
}

/// Puts the LAN's NIC, one of these, into `lan0` by telling networkd; changes nothing that is right already. Gives it.
pub fn ensure(paths: &Paths, nics: &[Nic]) -> io::Result<Option<Nic>> {
    if !Path::new("/run/systemd/netif").exists() {
        return Ok(None);
    }
    let ledger = paths.node().join("lan");
    let before = fs::read_to_string(&ledger).ok();
    let Some(nic) = choose(nics, before.as_deref()) else { return Ok(None) };
    if before.as_deref() != Some(&nic.mac) {
        paths::write_file(&ledger, nic.mac.as_bytes(), 0o644)?;
    }
    let files = networkd_files(nic, &fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let changed = files
        .iter()
        .any(|(name, text)| fs::read_to_string(Path::new(NETWORKD).join(name)).ok().as_ref() != Some(text));
    if changed {
        paths::make_dir(Path::new(NETWORKD), 0o755)?;
        for (name, text) in &files {
            paths::write_file(&Path::new(NETWORKD).join(name), text.as_bytes(), 0o644)?;
        }
        program::run("networkctl", &["reload"]).map_err(io::Error::other)?;
    }
    Ok(Some(nic.clone()))
}

/// networkd's files for a LAN on this NIC. The bridge takes the NIC's MAC, so that the DHCP server knows it again.
fn networkd_files(nic: &Nic, cmdline: &str) -> [(&'static str, String); 3] {
    let mac = &nic.mac;
    let addressing = match kernel_parameter(cmdline, "cairn.address") {
        None => "DHCP=yes\nIPv6AcceptRA=yes\n".to_owned(),
        Some(address) => {
            let gateway = kernel_parameter(cmdline, "cairn.gateway").map(|g| format!("Gateway={g}\n"));
            format!("Address={address}\n{}", gateway.unwrap_or_default())
        }
    };
    [
        (
            "10-lan0.netdev",
            format!(
                "[NetDev]\nName={LAN}\nKind=bridge\nMACAddress={mac}\n\n\
                 [Bridge]\nSTP=no\nForwardDelaySec=0\nMulticastSnooping=no\n"
            ),
        ),
        (
            "11-lan0-nic.network",
            format!("[Match]\nPermanentMACAddress={mac}\nKind=!*\n\n[Network]\nBridge={LAN}\n"),
        ),
        (
            "12-lan0.network",
            format!(
                "[Match]\nName={LAN}\n\n[Network]\n{addressing}KeepConfiguration=yes\nIPv4Forwarding=no\n\n\
                 [DHCPv4]\nClientIdentifier=mac\n"
            ),
        ),
    ]
}

/// The value of `name=value` on a kernel command line.
pub fn kernel_parameter<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(name: &str, mac: &str, carrier: bool) -> Nic {
        Nic { name: name.into(), mac: mac.into(), carrier }
    }

    #[test]
    fn a_nic_is_known_by_its_mac_when_names_are_shuffled() {
        let nics = [nic("eth1", "02:00:00:00:00:01", false), nic("eth0", "02:00:00:00:00:02", true)];
        assert_eq!(choose(&nics, None).unwrap().name, "eth0", "the one with a cable");
        assert_eq!(choose(&nics, Some("02:00:00:00:00:01")).unwrap().name, "eth1", "the one it was");
        assert!(choose(&[], None).is_none());
    }

    #[test]
    fn a_fixed_address_replaces_dhcp() {
        let nic = nic("eth0", "02:00:00:00:00:02", true);
        let [_, _, (_, dhcp)] = networkd_files(&nic, "quiet");
        assert!(dhcp.contains("DHCP=yes"));
        let [_, _, (_, fixed)] =
            networkd_files(&nic, "quiet cairn.address=192.0.2.7/24 cairn.gateway=192.0.2.1");
        assert!(fixed.contains("Address=192.0.2.7/24\nGateway=192.0.2.1") && !fixed.contains("DHCP=yes"));
    }
}
