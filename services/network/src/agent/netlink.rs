//! The kernel's links, addresses and routes, of the node or of one namespace, over one rtnetlink socket each.
//!
//! Thin: each function is one request. It decides nothing. A socket keeps its namespace alive, so it is dropped
//! before the namespace is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVeth, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, RouteMessageBuilder,
};
use tokio::task::AbortHandle;

use super::desired::{StaticRoute, Veth};
use super::mac::Mac;
use super::netns;
use super::tunnel::Shape;

/// What a request comes to.
pub type Result<T> = std::result::Result<T, rtnetlink::Error>;

/// A link as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// The number of the bridge it is in.
    pub master: Option<u32>,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is set up (not whether it has a carrier).
    pub up: bool,
    /// Its address.
    pub mac: Mac,
    /// Whether it is a bridge.
    pub bridge: bool,
    /// Whether it is a bridge whose packets pass the IPv4 and IPv6 rules.
    pub filtered: bool,
    /// Of a VXLAN device: which one it is.
    pub shape: Option<Shape>,
    /// Of a bridge's port: whether the bridge learns from it, and whether it answers for known addresses rather
    /// than asking there.
    pub port: Port,
}

/// How a bridge treats a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Port {
    /// Whether it learns from it.
    pub learning: bool,
    /// Whether known addresses are not asked for there.
    pub suppress: bool,
}

/// An open socket.
pub struct Netlink {
    pub(super) handle: Handle,
    task: AbortHandle,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Opens a socket in a namespace, or in the node's own.
    pub async fn open(space: Option<&str>) -> io::Result<Netlink> {
        let (connection, handle, _) = netns::within(space, rtnetlink::new_connection).await?;
        let task = tokio::spawn(connection).abort_handle();
        Ok(Netlink { handle, task })
    }

    /// All links by name.
    pub async fn links(&self) -> Result<BTreeMap<String, Link>> {
        let messages: Vec<_> = self.handle.link().get().execute().try_collect().await?;
        Ok(messages.into_iter().filter_map(link_of).collect())
    }

    /// The link with this name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.and_then(link_of).map(|(_, link)| link)),
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All addresses, by the number of their link, but for those that IPv6 makes by itself.
    pub async fn addresses(&self) -> Result<BTreeSet<(u32, IpNet)>> {
        let messages: Vec<_> = self.handle.address().get().execute().try_collect().await?;
        Ok(messages.iter().filter_map(address_of).collect())
    }

    /// The static routes of the main table.
    pub async fn routes(&self) -> Result<BTreeSet<StaticRoute>> {
        let mut found = BTreeSet::new();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let messages: Vec<_> = self.handle.route().get(family).execute().try_collect().await?;
            found.extend(messages.iter().filter_map(route_of));
        }
        Ok(found)
    }

    /// Makes a bridge that learns and forwards, floods multicast, has no spanning tree. It is not up.
    pub async fn add_bridge(&self, name: &str, mtu: u32) -> Result<()> {
        let bridge =
            LinkMessageBuilder::<LinkBridge>::new(name).mtu(mtu).mcast_snooping(false).forward_delay(0);
        self.handle.link().add(bridge.build()).execute().await
    }

    /// Sets whether a bridge's packets pass the inet rules.
    pub async fn set_filtered(&self, name: &str, on: bool) -> Result<()> {
        let bridge = LinkMessageBuilder::<LinkBridge>::new(name)
            .append_info_data(InfoBridge::NfCallIpTables(on))
            .append_info_data(InfoBridge::NfCallIp6Tables(on));
        self.change(bridge.build()).await
    }

    /// Makes a veth: one end here, the other in a namespace. Neither is up.
    pub async fn add_veth(&self, veth: &Veth, inner: &str, space: &str) -> io::Result<()> {
        let file = netns::open(space)?;
        let peer = LinkUnspec::new_with_name(inner)
            .address(veth.mac.0.to_vec())
            .mtu(veth.mtu)
            .setns_by_fd(file.as_raw_fd());
        let here = LinkMessageBuilder::<LinkVeth>::new(&veth.outer, inner)
            .mtu(veth.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        self.handle.link().add(here.build()).execute().await.map_err(io::Error::other)
    }

    /// Makes a veth with both ends here.
    pub async fn add_patch(&self, here: &str, there: &str, mtu: u32) -> Result<()> {
        let peer = LinkUnspec::new_with_name(there).mtu(mtu);
        let veth = LinkMessageBuilder::<LinkVeth>::new(here, there)
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        self.handle.link().add(veth.build()).execute().await
    }

    /// Makes a VLAN interface on the link with this number.
    pub async fn add_vlan(&self, name: &str, parent: u32, vlan: u16) -> Result<()> {
        self.handle.link().add(LinkVlan::new(name, parent, vlan).build()).execute().await
    }

    /// Removes a link.
    pub async fn delete(&self, index: u32) -> Result<()> {
        self.handle.link().del(index).execute().await
    }

    /// Puts a link into a bridge.
    pub async fn set_master(&self, index: u32, bridge: u32) -> Result<()> {
        self.change(LinkUnspec::new_with_index(index).controller(bridge).build()).await
    }

    /// Sets a link up or down.
    pub async fn set_up(&self, index: u32, up: bool) -> Result<()> {
        let link = LinkUnspec::new_with_index(index);
        self.change(if up { link.up() } else { link.down() }.build()).await
    }

    /// Sets a link's MTU.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.change(LinkUnspec::new_with_index(index).mtu(mtu).build()).await
    }

    /// Gives a link an address.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<()> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            // Nobody else may have it, and waiting for an answer would make it unusable for a second.
            request.message_mut().header.flags = netlink_packet_route::address::AddressHeaderFlags::Nodad;
        }
        request.execute().await
    }

    /// Takes an address from a link.
    pub async fn delete_address(&self, index: u32, address: IpNet) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = address.prefix_len();
        message.header.family = family(address.addr());
        message.attributes.push(AddressAttribute::Local(address.addr()));
        self.handle.address().del(message).execute().await
    }

    /// Adds a static route, or replaces that to the same destination.
    pub async fn add_route(&self, route: &StaticRoute) -> Result<()> {
        self.handle.route().add(route_message(route)).replace().execute().await
    }

    /// Removes a static route.
    pub async fn delete_route(&self, route: &StaticRoute) -> Result<()> {
        self.handle.route().del(route_message(route)).execute().await
    }

    /// RTM_NEWLINK on what is there. (RTM_SETLINK would silently ignore what belongs to the kind of link.)
    async fn change(&self, message: LinkMessage) -> Result<()> {
        self.handle.link().change(message).execute().await
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn link_of(message: LinkMessage) -> Option<(String, Link)> {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    let mut name = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) if index > 0 => link.master = Some(index),
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().map(Mac).unwrap_or_default(),
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| kind_of(info, &mut link)),
            _ => {}
        }
    }
    Some((name?, link))
}

fn kind_of(info: &LinkInfo, link: &mut Link) {
    match info {
        LinkInfo::Kind(InfoKind::Bridge) => link.bridge = true,
        LinkInfo::Data(InfoData::Bridge(options)) => {
            let on = |option| options.contains(&option);
            link.filtered = on(InfoBridge::NfCallIpTables(true)) && on(InfoBridge::NfCallIp6Tables(true));
        }
        LinkInfo::Data(InfoData::Vxlan(options)) => link.shape = shape_of(options),
        LinkInfo::PortData(InfoPortData::BridgePort(options)) => {
            link.port.learning = options.contains(&InfoBridgePort::Learning(true));
            link.port.suppress = options.contains(&InfoBridgePort::NeighSupress(true));
        }
        _ => {}
    }
}

fn shape_of(options: &[InfoVxlan]) -> Option<Shape> {
    let (mut vni, mut local, mut port) = (None, None, None);
    for option in options {
        match option {
            InfoVxlan::Id(id) => vni = Some(*id),
            InfoVxlan::Local(ip) => local = Some(IpAddr::V4(*ip)),
            InfoVxlan::Local6(ip) => local = Some(IpAddr::V6(*ip)),
            InfoVxlan::Port(number) => port = Some(*number),
            _ => {}
        }
    }
    Some(Shape { vni: vni?, local: local?, port: port? })
}

fn address_of(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = || {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    };
    let ip = local.or_else(any)?;
    let automatic = match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    let net = IpNet::new(ip, message.header.prefix_len).ok()?;
    (!automatic).then_some((message.header.index, net))
}

fn route_of(message: &RouteMessage) -> Option<StaticRoute> {
    let header = &message.header;
    let ours = header.protocol == RouteProtocol::Static && header.kind == RouteType::Unicast;
    let mut destination = if header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let mut via = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip_of(to)?,
            RouteAttribute::Gateway(gateway) => via = ip_of(gateway),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    ours.then_some(StaticRoute { destination, via: via? })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn route_message(route: &StaticRoute) -> RouteMessage {
    // The model allows only routes whose two ends are of one family; another is refused by the kernel.
    match (route.destination, route.via) {
        (IpNet::V6(to), IpAddr::V6(via)) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(to.addr(), to.prefix_len())
            .gateway(via)
            .build(),
        (IpNet::V4(to), IpAddr::V4(via)) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.addr(), to.prefix_len())
            .gateway(via)
            .build(),
        (IpNet::V4(to), IpAddr::V6(via)) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.addr(), to.prefix_len())
            .via(via)
            .build(),
        (IpNet::V6(to), IpAddr::V4(_)) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to.addr(), to.prefix_len()).build()
        }
    }
}
