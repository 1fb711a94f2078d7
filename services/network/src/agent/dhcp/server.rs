//! The DHCP socket of a network, in its namespace.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use dhcproto::v4::Message;
use dhcproto::{Decodable, Encodable};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::{Answer, Scope, answer};
use crate::agent::{netns, sys};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// No DHCP message on an Ethernet is longer.
const MESSAGE_MAX: usize = 1500;

/// Opens the socket in a namespace.
pub async fn open(space: &str, device: String) -> io::Result<UdpSocket> {
    netns::within(Some(space), move || {
        let fd = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::Broadcast, &true)?;
        sys::without_checksum(fd.as_raw_fd())?;
        setsockopt(&fd, sockopt::BindToDevice, &device.into())?;
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT)))?;
        UdpSocket::from_std(std::net::UdpSocket::from(fd))
    })
    .await
}

/// Answers until it is dropped. A socket that fails ends it; the next pass opens a new one.
pub async fn serve(socket: UdpSocket, scope: watch::Receiver<Scope>) -> io::Error {
    let mut buffer = [0; MESSAGE_MAX];
    loop {
        let length = match socket.recv_from(&mut buffer).await {
            Ok((length, _)) => length,
            Err(e) => return e,
        };
        // What is no DHCP message is nobody's fault here.
        let Ok(request) = Message::from_bytes(&buffer[..length]) else { continue };
        let reply = answer(&scope.borrow(), &request);
        if let Some(reply) = reply
            && let Err(e) = send(&socket, &reply).await
        {
            tracing::debug!(error = %e, to = %reply.to, "a DHCP answer was not sent");
        }
    }
}

async fn send(socket: &UdpSocket, reply: &Answer) -> io::Result<()> {
    let bytes = reply.message.to_vec().map_err(io::Error::other)?;
    socket.send_to(&bytes, (reply.to, CLIENT_PORT)).await.map(drop)
}
