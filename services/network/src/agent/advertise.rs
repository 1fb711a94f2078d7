//! Router advertisements (RFC 4861, with the resolvers of RFC 8106): how guests of an IPv6 subnet learn their
//! prefix and their router.
//!
//! [`message`] is pure; [`open`] and [`serve`] are the socket on a router's link. It answers solicitations and
//! repeats itself now and then; it never listens to other routers.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ipnet::Ipv6Net;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::Instant;

use super::mac::Mac;
use super::{netns, sys};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// How often it repeats itself, and at first, when guests may be waiting.
const INTERVAL: Duration = Duration::from_secs(60);
const INTERVAL_AT_FIRST: Duration = Duration::from_secs(2);
const FIRST: u32 = 3;
/// The least time between two answers, however many ask (RFC 4861 has three seconds for multicast; guests that
/// boot together should not wait that long).
const PAUSE: Duration = Duration::from_millis(300);
/// How long guests rely on what they were told, in seconds.
const ROUTER_LIFETIME_S: u16 = 1800;
const VALID_S: u32 = 86_400;
const PREFERRED_S: u32 = 14_400;

/// What is advertised on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advert {
    /// The link's address.
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
    /// Addresses come from DHCPv6 (the M flag).
    pub managed: bool,
    /// Other things do (the O flag).
    pub other: bool,
    /// The prefixes on the link, each with whether guests make addresses of it by themselves.
    pub prefixes: Vec<(Ipv6Net, bool)>,
    /// The resolvers.
    pub resolvers: Vec<Ipv6Addr>,
}

/// The ICMPv6 message; the kernel puts in the checksum.
pub fn message(advert: &Advert) -> Vec<u8> {
    let flags = (u8::from(advert.managed) << 7) | (u8::from(advert.other) << 6);
    // Type, code, checksum, hop limit, flags, lifetime, reachable time, retransmission timer.
    let mut out = vec![ADVERTISEMENT, 0, 0, 0, 64, flags];
    out.extend(ROUTER_LIFETIME_S.to_be_bytes());
    out.extend([0; 8]);
    out.extend([1, 1]);
    out.extend(advert.mac.0);
    out.extend([5, 1, 0, 0]);
    out.extend(advert.mtu.to_be_bytes());
    for (prefix, autonomous) in &advert.prefixes {
        out.extend([3, 4, prefix.prefix_len(), 0x80 | (u8::from(*autonomous) << 6)]);
        out.extend(VALID_S.to_be_bytes());
        out.extend(PREFERRED_S.to_be_bytes());
        out.extend([0; 4]);
        out.extend(prefix.network().octets());
    }
    if !advert.resolvers.is_empty() {
        out.extend([25, 1 + 2 * advert.resolvers.len() as u8, 0, 0]);
        out.extend(u32::from(ROUTER_LIFETIME_S).to_be_bytes());
        advert.resolvers.iter().for_each(|ip| out.extend(ip.octets()));
    }
    out
}

/// Opens the socket on a link of a namespace.
pub async fn open(space: &str, device: &str) -> io::Result<UdpSocket> {
    let device = device.to_owned();
    netns::within(Some(space), move || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)?;
        setsockopt(&fd, sockopt::BindToDevice, &device.as_str().into())?;
        sys::set_hop_limit(fd.as_raw_fd(), 255)?;
        let index = nix::net::if_::if_nametoindex(device.as_str())?;
        // To the standard library any socket of datagrams is a UDP socket; only sending and receiving is used.
        let socket = std::net::UdpSocket::from(fd);
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        UdpSocket::from_std(socket)
    })
    .await
}

/// Advertises until it is dropped. A socket that fails ends it; the next pass opens a new one.
pub async fn serve(socket: UdpSocket, advert: watch::Receiver<Advert>) -> io::Error {
    let to = SocketAddr::V6(SocketAddrV6::new(ALL_NODES, 0, 0, 0));
    let mut buffer = [0; 1500];
    let mut sent = 0;
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {
                let bytes = message(&advert.borrow());
                match socket.send_to(&bytes, to).await {
                    Ok(_) => sent += 1,
                    // A link that has just come up has no address to send from yet.
                    Err(e) => tracing::debug!(error = %e, "an advertisement was not sent"),
                }
                due = Instant::now() + if sent < FIRST { INTERVAL_AT_FIRST } else { INTERVAL };
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, _)) if length >= 8 && buffer[0] == SOLICITATION => due = due.min(Instant::now() + PAUSE),
                Ok(_) => {}
                Err(e) => return e,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_whole_and_flags_in_place() {
        let advert = Advert {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1450,
            managed: false,
            other: true,
            prefixes: vec![("fd00:1::/64".parse().unwrap(), true)],
            resolvers: vec!["fd00:1::53".parse().unwrap()],
        };
        let bytes = message(&advert);
        assert_eq!((bytes[0], bytes[5]), (134, 0x40));
        let (mut at, mut kinds) = (16, vec![]);
        while at < bytes.len() {
            kinds.push(bytes[at]);
            at += 8 * usize::from(bytes[at + 1]);
        }
        assert_eq!((at, kinds), (bytes.len(), vec![1, 5, 3, 25]));
        assert_eq!(bytes[16 + 16 + 2..16 + 16 + 4], [64, 0xc0]);
    }
}
