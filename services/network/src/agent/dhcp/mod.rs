//! DHCP for IPv4 (RFC 2131, with classless routes of RFC 3442): each port gets its own address, always the same.
//!
//! [`answer`] decides and is pure; [`server`] is the socket in the network's namespace. There are no leases to
//! keep: the records are the truth. Only ports that are known here are answered; to all others it is silent, so
//! that on a real LAN it never speaks to machines that are not the cloud's.

mod options;
pub mod server;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use ipnet::Ipv4Net;

use super::mac::Mac;

/// How long a client may keep its address without asking again, in seconds.
const LEASE_S: u32 = 86_400;

/// What DHCP answers on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The link it listens on.
    pub device: String,
    /// Who is known.
    pub clients: BTreeMap<Mac, Client>,
}

/// What DHCP tells a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its address, and its subnet's prefix length.
    pub address: Ipv4Net,
    /// The server's own address in that subnet.
    pub server: Ipv4Addr,
    /// Its default router.
    pub router: Option<Ipv4Addr>,
    /// Its name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Its routes, the default one among them.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// In bytes.
    pub mtu: u16,
    /// Its name.
    pub hostname: String,
    /// Its domain; empty for none.
    pub domain: String,
    /// Further options, by name or number, as text.
    pub options: Vec<(String, String)>,
}

/// What to do with an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The message.
    pub message: Message,
    /// Where to: the client's own address if it has one, else to all.
    pub to: Ipv4Addr,
}

/// The answer to a client's message, if there is one.
pub fn answer(scope: &Scope, request: &Message) -> Option<Answer> {
    // Through a relay it would not be of this network's own wire.
    if request.opcode() != Opcode::BootRequest || !request.giaddr().is_unspecified() {
        return None;
    }
    let mac = Mac(request.chaddr().try_into().ok()?);
    let client = scope.clients.get(&mac)?;
    let kind = request.opts().msg_type()?;
    let answer = match kind {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request => request_answer(client, request)?,
        MessageType::Inform => MessageType::Ack,
        // A released address stays the port's.
        _ => return None,
    };
    Some(build(client, request, kind, answer))
}

/// RFC 2131, 4.3.2: selecting, rebooting, renewing and rebinding come down to: is it the right address?
fn request_answer(client: &Client, request: &Message) -> Option<MessageType> {
    if let Some(DhcpOption::ServerIdentifier(server)) = request.opts().get(OptionCode::ServerIdentifier)
        && *server != client.server
    {
        // The client chose another server's offer.
        return None;
    }
    let asked = match request.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(ip)) => *ip,
        _ => request.ciaddr(),
    };
    Some(if asked == client.address.addr() { MessageType::Ack } else { MessageType::Nak })
}

fn build(client: &Client, request: &Message, asked: MessageType, kind: MessageType) -> Answer {
    let unspecified = Ipv4Addr::UNSPECIFIED;
    let refused = kind == MessageType::Nak;
    let informed = asked == MessageType::Inform;
    let ciaddr = if refused { unspecified } else { request.ciaddr() };
    let yiaddr = if refused || informed { unspecified } else { client.address.addr() };
    let mut message =
        Message::new_with_id(request.xid(), ciaddr, yiaddr, unspecified, unspecified, request.chaddr());
    message.set_opcode(Opcode::BootReply).set_htype(request.htype()).set_flags(request.flags());
    let opts = message.opts_mut();
    opts.insert(DhcpOption::MessageType(kind));
    opts.insert(DhcpOption::ServerIdentifier(client.server));
    if refused {
        // The client may have no usable address, and must hear it.
        message.set_flags(Flags::default().set_broadcast());
        return Answer { message, to: Ipv4Addr::BROADCAST };
    }
    if !informed {
        opts.insert(DhcpOption::AddressLeaseTime(LEASE_S));
        opts.insert(DhcpOption::Renewal(LEASE_S / 2));
        opts.insert(DhcpOption::Rebinding(LEASE_S / 8 * 7));
    }
    options::usual(client, opts);
    let boot = options::custom(client, opts);
    if let Some(server) = boot.next_server {
        message.set_siaddr(server);
    }
    if let Some(file) = boot.file {
        message.set_fname_str(file);
    }
    let to = if ciaddr.is_unspecified() { Ipv4Addr::BROADCAST } else { ciaddr };
    Answer { message, to }
}

#[cfg(test)]
mod tests;
