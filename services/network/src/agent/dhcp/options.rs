//! The options of a DHCP answer: the usual ones, and those that a user gave a port (`extra_dhcp_opts`). Pure.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, DhcpOptions, OptionCode, UnknownOption};

use super::Client;
use crate::model::dhcp::{BOOT_FILE, ExtraOption};

/// The longest value of an option, in bytes.
const VALUE_MAX: usize = 255;

/// The parts of a custom option set that are not options but fields of the message.
#[derive(Default)]
pub struct Boot<'a> {
    /// Where the boot file is.
    pub next_server: Option<Ipv4Addr>,
    /// The boot file.
    pub file: Option<&'a str>,
}

/// What every client is told.
pub fn usual(client: &Client, opts: &mut DhcpOptions) {
    opts.insert(DhcpOption::SubnetMask(client.address.netmask()));
    opts.insert(DhcpOption::BroadcastAddr(client.address.broadcast()));
    opts.insert(DhcpOption::InterfaceMtu(client.mtu));
    opts.insert(DhcpOption::Hostname(client.hostname.clone()));
    if let Some(router) = client.router {
        opts.insert(DhcpOption::Router(vec![router]));
    }
    if !client.dns.is_empty() {
        opts.insert(DhcpOption::DomainNameServer(client.dns.clone()));
    }
    if !client.domain.is_empty() {
        opts.insert(DhcpOption::DomainName(client.domain.clone()));
    }
    if !client.routes.is_empty() {
        opts.insert(DhcpOption::ClasslessStaticRoute(client.routes.clone()));
    }
}

/// What this port's user asked for: by dnsmasq's names, or by number. What cannot be read is left out.
pub fn custom<'a>(client: &'a Client, opts: &mut DhcpOptions) -> Boot<'a> {
    let mut boot = Boot::default();
    for (name, value) in &client.options {
        let value = value.as_str();
        match ExtraOption::find(name) {
            Some(ExtraOption::NextServer) => boot.next_server = value.parse().ok(),
            Some(ExtraOption::Code(code)) => {
                if code == BOOT_FILE {
                    // The field holds 128 bytes with its final zero.
                    boot.file = Some(value).filter(|v| v.len() < 128);
                }
                insert(code, value, opts);
            }
            None => {}
        }
    }
    boot
}

fn insert(code: u8, value: &str, opts: &mut DhcpOptions) {
    let data = match code {
        3 | 6 | 42 | 150 => {
            let ips: Option<Vec<Ipv4Addr>> =
                value.split([',', ' ']).filter(|p| !p.is_empty()).map(|p| p.parse().ok()).collect();
            ips.map(|ips| ips.iter().flat_map(Ipv4Addr::octets).collect())
        }
        26 => value.parse().ok().map(|mtu: u16| mtu.to_be_bytes().to_vec()),
        119 => Some(value.split(',').flat_map(domain).collect()),
        _ => Some(value.as_bytes().to_vec()),
    };
    if let Some(data) = data.filter(|d: &Vec<u8>| !d.is_empty() && d.len() <= VALUE_MAX) {
        let code = OptionCode::from(code);
        opts.remove(code);
        opts.insert(DhcpOption::Unknown(UnknownOption::new(code, data)));
    }
}

/// A domain name in DNS's own form.
fn domain(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.trim().trim_end_matches('.').split('.').filter(|l| !l.is_empty() && l.len() < 64) {
        wire.push(label.len() as u8);
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}
