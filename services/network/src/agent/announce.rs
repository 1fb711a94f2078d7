//! The frames that tell a link's neighbours where an address lives now. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::mac::Mac;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;

/// The frames that announce `ip` at `mac`: gratuitous ARP as request and as reply (some listen to only one), or
/// an unsolicited neighbour advertisement.
pub fn frames(mac: Mac, ip: IpAddr) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => vec![arp(mac, ip, 1), arp(mac, ip, 2)],
        IpAddr::V6(ip) => vec![advertisement(mac, ip)],
    }
}

fn ethernet(to: [u8; 6], from: Mac, ethertype: u16) -> Vec<u8> {
    [to.as_slice(), &from.0, &ethertype.to_be_bytes()].concat()
}

fn arp(mac: Mac, ip: Ipv4Addr, operation: u16) -> Vec<u8> {
    let mut frame = ethernet(Mac::BROADCAST.0, mac, ETHERTYPE_ARP);
    // Ethernet, IPv4, lengths 6 and 4.
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend([mac.0.as_slice(), &ip.octets(), &Mac::BROADCAST.0, &ip.octets()].concat());
    frame
}

fn advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    // Type, code, checksum, flags (override), target, target link-layer address.
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(ip.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac.0);
    let sum = icmpv6_checksum(ip, all_nodes, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6_frame(mac, ip, all_nodes, &icmp)
}

/// A whole frame around an ICMPv6 message to a multicast address.
pub fn ipv6_frame(mac: Mac, from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> Vec<u8> {
    let [.., a, b, c, d] = to.octets();
    let mut frame = ethernet([0x33, 0x33, a, b, c, d], mac, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((icmp.len() as u16).to_be_bytes());
    // Neighbour discovery must come with hop limit 255.
    frame.extend([ICMPV6, 255]);
    frame.extend([from.octets(), to.octets()].concat());
    frame.extend(icmp);
    frame
}

/// The checksum of an ICMPv6 message whose own checksum field is 0.
pub fn icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let mut pseudo = [from.octets(), to.octets()].concat();
    pseudo.extend((icmp.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, ICMPV6]);
    pseudo.extend(icmp);
    checksum(&pseudo)
}

/// The Internet checksum (RFC 1071) of bytes in which its own field is 0.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arp_says_sender_and_target_alike() {
        let frames = frames(Mac([2, 0, 0, 0, 0, 1]), "203.0.113.5".parse().unwrap());
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].len(), 42);
        assert_eq!(frames[0][28..32], [203, 0, 113, 5]);
        assert_eq!(frames[0][38..42], [203, 0, 113, 5]);
        assert_eq!((frames[0][21], frames[1][21]), (1, 2));
    }

    #[test]
    fn an_advertisement_sums_to_zero() {
        let ip: Ipv6Addr = "fd00::1".parse().unwrap();
        let frames = frames(Mac([2, 0, 0, 0, 0, 1]), ip.into());
        let icmp = &frames[0][54..];
        assert_eq!(icmpv6_checksum(ip, "ff02::1".parse().unwrap(), icmp), 0);
    }
}
