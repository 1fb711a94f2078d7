//! Carrying out a plan, one request to the kernel per action. It decides nothing but the order of retries: what
//! fails is told, and the rest is done.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::netlink::{Link, Netlink};
use super::plan::{Action, Observed, SpaceState};
use super::sys::{self, TapOptions};
use super::tunnel::{self, End, Step};
use super::{announce, names, netns, sysctl};
use crate::model::LAN_BRIDGE;

/// The node's kernel: its own namespace and ours.
pub struct Kernel {
    node: Netlink,
    spaces: BTreeMap<String, (u64, Netlink)>,
    tap: TapOptions,
}

/// How long after an announcement it is made again.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// What failed: which device or namespace, and why.
pub type Failures = BTreeMap<String, String>;

/// A link at which an address has come to live, or (without one) all of its addresses again.
struct Arrival {
    space: String,
    link: String,
    ip: Option<IpAddr>,
}

impl Kernel {
    /// Opens the node's own socket.
    pub async fn open(tap: TapOptions) -> io::Result<Kernel> {
        Ok(Kernel { node: Netlink::open(None).await?, spaces: BTreeMap::new(), tap })
    }

    /// Looks at the node, and into the namespaces of `look_into`.
    pub async fn observe<'a>(&mut self, look_into: impl Iterator<Item = &'a String>) -> io::Result<Observed> {
        let mut observed =
            Observed { links: self.node.links().await.map_err(io::Error::other)?, ..Observed::default() };
        for name in netns::list()?.into_iter().filter(|n| names::is_our_space(n)) {
            observed.spaces.insert(name, SpaceState::default());
        }
        if observed.links.iter().any(|(name, link)| link.shape.is_some() && names::is_our_link(name)) {
            observed.entries = self.node.entries().await.map_err(io::Error::other)?;
        }
        self.spaces.retain(|name, _| observed.spaces.contains_key(name));
        for name in look_into {
            if let Some(state) = observed.spaces.get_mut(name) {
                *state = self.look_into(name).await?;
            }
        }
        Ok(observed)
    }

    async fn look_into(&mut self, space: &str) -> io::Result<SpaceState> {
        let netlink = self.space(space).await?;
        Ok(SpaceState {
            links: netlink.links().await.map_err(io::Error::other)?,
            addresses: netlink.addresses().await.map_err(io::Error::other)?,
            routes: netlink.routes().await.map_err(io::Error::other)?,
        })
    }

    /// The socket of a namespace: opened anew when another namespace has taken the name.
    async fn space(&mut self, name: &str) -> io::Result<&Netlink> {
        let inode = netns::inode(name)?;
        if self.spaces.get(name).is_none_or(|(known, _)| *known != inode) {
            let netlink = Netlink::open(Some(name)).await?;
            self.spaces.insert(name.to_owned(), (inode, netlink));
        }
        self.spaces.get(name).map(|(_, n)| n).ok_or_else(|| io::Error::other("lost"))
    }

    /// Makes a namespace.
    pub async fn add_space(&mut self, name: &str) -> io::Result<()> {
        netns::create(name).await
    }

    /// Does all actions in their order, and tells what failed.
    pub async fn act(&mut self, actions: &[Action]) -> Failures {
        let mut failures = Failures::new();
        let mut arrivals = Vec::new();
        for action in actions {
            tracing::debug!(?action, "act");
            if let Err(e) = self.step(action, &mut arrivals).await {
                // The first failure of a thing is the cause of its others.
                failures.entry(subject(action).to_owned()).or_insert_with(|| e.to_string());
            }
        }
        if let Err(e) = self.announce(arrivals).await {
            tracing::warn!(error = %e, "new addresses were not announced");
        }
        failures
    }

    async fn step(&mut self, action: &Action, arrivals: &mut Vec<Arrival>) -> io::Result<()> {
        match action {
            Action::DeleteLink(name) => self.delete_link(name).await,
            Action::DeleteSpace(name) => {
                self.spaces.remove(name);
                netns::delete(name)
            }
            Action::AddTap(name) => {
                let (device, options) = (name.clone(), self.tap);
                netns::within(None, move || sys::create_tap(&device, options)).await?;
                sysctl::quiet(name)
            }
            Action::SetMaster { link, bridge } => {
                let bridge_index = self.index(None, bridge).await.map_err(|_| absent_bridge(bridge))?;
                let index = self.index(None, link).await?;
                self.node.set_master(index, bridge_index).await.map_err(io::Error::other)
            }
            Action::SetMtu { space, link, mtu } => {
                let index = self.index(space.as_deref(), link).await?;
                self.of(space.as_deref()).await?.set_mtu(index, *mtu).await.map_err(io::Error::other)
            }
            Action::SetUp { space, link, up } => {
                let index = self.index(space.as_deref(), link).await?;
                self.of(space.as_deref()).await?.set_up(index, *up).await.map_err(io::Error::other)?;
                if let Some(space) = space.as_ref().filter(|_| *up && link != "lo") {
                    arrivals.push(Arrival { space: space.clone(), link: link.clone(), ip: None });
                }
                Ok(())
            }
            Action::AddBridge { .. }
            | Action::SetFiltered { .. }
            | Action::AddPatch { .. }
            | Action::AddTagged { .. }
            | Action::AddVeth { .. } => self.make(action).await,
            Action::Tunnel(step) => self.tunnel(step).await,
            Action::AddAddress { .. }
            | Action::DeleteAddress { .. }
            | Action::AddRoute { .. }
            | Action::DeleteRoute { .. } => self.inside(action, arrivals).await,
        }
    }

    async fn tunnel(&mut self, step: &Step) -> io::Result<()> {
        if let Step::Add { link, shape } = step {
            self.node.add_vxlan(link, *shape).await.map_err(io::Error::other)?;
            return sysctl::quiet(link);
        }
        if let Step::Neighbour { bridge, ip: IpAddr::V6(_), .. } = step {
            sysctl::silent_ipv6(bridge)?;
        }
        let index = self.index(None, step.subject()).await?;
        let done = match step {
            Step::Add { .. } => Ok(()),
            Step::Port { suppress, .. } => self.node.set_tunnel_port(index, *suppress).await,
            Step::Remote { mac, to, .. } => self.node.add_remote(index, *mac, *to).await,
            Step::NoRemote { mac, to, .. } => self.node.delete_remote(index, *mac, *to).await,
            Step::Hold { mac, .. } => self.node.hold(index, *mac).await,
            Step::Release { mac, .. } => self.node.release(index, *mac).await,
            Step::Neighbour { ip, mac, .. } => self.node.add_neighbour(index, *ip, *mac).await,
            Step::NoNeighbour { ip, .. } => self.node.delete_neighbour(index, *ip).await,
        };
        done.map_err(io::Error::other)
    }

    async fn make(&mut self, action: &Action) -> io::Result<()> {
        match action {
            Action::AddBridge { name, mtu } => {
                self.node.add_bridge(name, *mtu).await.map_err(io::Error::other)?;
                sysctl::quiet(name)
            }
            Action::SetFiltered { bridge, on } => {
                self.node.set_filtered(bridge, *on).await.map_err(io::Error::other)
            }
            Action::AddPatch { here, there, mtu } => {
                self.node.add_patch(here, there, *mtu).await.map_err(io::Error::other)?;
                sysctl::quiet(here)?;
                sysctl::quiet(there)
            }
            Action::AddTagged { link, parent, vlan } => {
                let parent = self.index(None, parent).await.map_err(|_| absent_bridge(parent))?;
                self.node.add_vlan(link, parent, *vlan).await.map_err(io::Error::other)?;
                sysctl::quiet(link)
            }
            Action::AddVeth { space, inner, veth } => {
                self.node.add_veth(veth, inner, space).await?;
                sysctl::quiet(&veth.outer)
            }
            _ => Ok(()),
        }
    }

    async fn inside(&mut self, action: &Action, arrivals: &mut Vec<Arrival>) -> io::Result<()> {
        match action {
            Action::AddAddress { space, link, address } => {
                let index = self.index(Some(space), link).await?;
                self.space(space).await?.add_address(index, *address).await.map_err(io::Error::other)?;
                if link != "lo" {
                    let (space, link) = (space.clone(), link.clone());
                    arrivals.push(Arrival { space, link, ip: Some(address.addr()) });
                }
                Ok(())
            }
            Action::DeleteAddress { space, link, address } => {
                let index = self.index(Some(space), link).await?;
                self.space(space).await?.delete_address(index, *address).await.map_err(io::Error::other)
            }
            Action::AddRoute { space, route } => {
                self.space(space).await?.add_route(route).await.map_err(io::Error::other)
            }
            Action::DeleteRoute { space, route } => {
                self.space(space).await?.delete_route(route).await.map_err(io::Error::other)
            }
            _ => Ok(()),
        }
    }

    /// Removing one end of a veth removes the other, so that it is gone already is no failure.
    async fn delete_link(&mut self, name: &str) -> io::Result<()> {
        match self.node.link(name).await.map_err(io::Error::other)? {
            Some(link) => self.node.delete(link.index).await.map_err(io::Error::other),
            None => Ok(()),
        }
    }

    async fn of(&mut self, space: Option<&str>) -> io::Result<&Netlink> {
        match space {
            Some(space) => self.space(space).await,
            None => Ok(&self.node),
        }
    }

    async fn index(&mut self, space: Option<&str>, name: &str) -> io::Result<u32> {
        Ok(self.find(space, name).await?.index)
    }

    async fn find(&mut self, space: Option<&str>, name: &str) -> io::Result<Link> {
        let found = self.of(space).await?.link(name).await.map_err(io::Error::other)?;
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no link {name}")))
    }

    /// Tells the neighbours of each new address where it lives now.
    async fn announce(&mut self, arrivals: Vec<Arrival>) -> io::Result<()> {
        let links: BTreeSet<_> = arrivals.iter().map(|a| (a.space.clone(), a.link.clone())).collect();
        for (space, name) in links {
            let link = self.find(Some(&space), &name).await?;
            if !link.up {
                continue;
            }
            let new: Vec<_> = arrivals.iter().filter(|a| a.space == space && a.link == name).collect();
            let mut ips: BTreeSet<IpAddr> = new.iter().filter_map(|a| a.ip).collect();
            if new.iter().any(|a| a.ip.is_none()) {
                let all = self.space(&space).await?.addresses().await.map_err(io::Error::other)?;
                ips.extend(all.iter().filter(|(index, _)| *index == link.index).map(|(_, net)| net.addr()));
            }
            let frames = ips.into_iter().flat_map(|ip| announce::frames(link.mac, ip)).collect::<Vec<_>>();
            let (again, there) = (frames.clone(), space.clone());
            netns::within(Some(&space), move || sys::send_frames(link.index, &frames)).await?;
            tokio::spawn(repeat(there, link.index, again));
        }
        Ok(())
    }

    /// Sends frames into a bridge of the node, as if they came from one of its ports.
    pub async fn send_into(&mut self, bridge: &str, frames: Vec<Vec<u8>>) -> io::Result<()> {
        let index = self.index(None, bridge).await?;
        netns::within(None, move || sys::send_frames(index, &frames)).await
    }

    /// This node's side of its tunnels: an address on the LAN, if it has one. `before` is the one there was.
    pub async fn tunnel_end(&self, before: Option<IpAddr>) -> io::Result<Option<End>> {
        let Some(lan) = self.node.link(LAN_BRIDGE).await.map_err(io::Error::other)? else { return Ok(None) };
        let addresses = self.node.addresses().await.map_err(io::Error::other)?;
        let of_lan = addresses.into_iter().filter(|(index, _)| *index == lan.index).map(|(_, net)| net);
        Ok(tunnel::end(of_lan, before).map(|ip| End { ip, mtu: lan.mtu }))
    }
}

/// Says the same again: the first time, a bridge on the way may not have been forwarding yet. When the link or its
/// namespace is gone, there is nothing to say any more.
async fn repeat(space: String, index: u32, frames: Vec<Vec<u8>>) {
    for pause in AGAIN_AFTER {
        tokio::time::sleep(pause).await;
        let frames = frames.clone();
        if netns::within(Some(&space), move || sys::send_frames(index, &frames)).await.is_err() {
            return;
        }
    }
}

fn absent_bridge(bridge: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("this node has no bridge {bridge}: its physical network is not set up"),
    )
}

/// What an action is about, as failures are told.
fn subject(action: &Action) -> &str {
    match action {
        Action::DeleteLink(name) | Action::DeleteSpace(name) | Action::AddTap(name) => name,
        Action::AddBridge { name, .. } => name,
        Action::SetFiltered { bridge, .. } => bridge,
        Action::Tunnel(step) => step.subject(),
        Action::AddPatch { here, .. } => here,
        Action::AddVeth { veth, .. } => &veth.outer,
        Action::AddTagged { link, .. } | Action::SetMaster { link, .. } => link,
        Action::SetMtu { space, link, .. } | Action::SetUp { space, link, .. } => {
            space.as_deref().unwrap_or(link)
        }
        Action::AddAddress { space, .. }
        | Action::DeleteAddress { space, .. }
        | Action::AddRoute { space, .. }
        | Action::DeleteRoute { space, .. } => space,
    }
}
