//! What to do so that a node becomes what it should be: compares desired and observed. Pure.
//!
//! Everything that is right already is left alone, so a pass over a right node plans nothing. Actions name links
//! by name; numbers are the kernel's business.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::desired::{Bridge, Desired, Space, StaticRoute, Tap, Uplink, Veth};
use super::names;
use super::netlink::{Link, Port};
use super::tunnel::{self, Entries, Step, Tunnel};

/// What is on the node.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The links of the node's own namespace.
    pub links: BTreeMap<String, Link>,
    /// Our namespaces. Those that are not desired are not looked into.
    pub spaces: BTreeMap<String, SpaceState>,
    /// The entries of our tunnels and their bridges; nothing while there is no tunnel.
    pub entries: Entries,
}

/// What is in a namespace.
#[derive(Debug, Clone, Default)]
pub struct SpaceState {
    /// Its links.
    pub links: BTreeMap<String, Link>,
    /// Its addresses, by the number of the link.
    pub addresses: BTreeSet<(u32, IpNet)>,
    /// Its static routes.
    pub routes: BTreeSet<StaticRoute>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Removes a link of the node.
    DeleteLink(String),
    /// Removes a namespace.
    DeleteSpace(String),
    /// Makes a bridge.
    AddBridge {
        /// Its name.
        name: String,
        /// In bytes.
        mtu: u32,
    },
    /// Sets whether a bridge's packets are filtered.
    SetFiltered {
        /// The bridge.
        bridge: String,
        /// Whether.
        on: bool,
    },
    /// Makes a tap.
    AddTap(String),
    /// Makes a veth within the node.
    AddPatch {
        /// One end.
        here: String,
        /// The other.
        there: String,
        /// In bytes.
        mtu: u32,
    },
    /// Makes a VLAN interface.
    AddTagged {
        /// Its name.
        link: String,
        /// What it is on.
        parent: String,
        /// 1 to 4094.
        vlan: u16,
    },
    /// Makes a veth into a namespace.
    AddVeth {
        /// The namespace.
        space: String,
        /// The name inside.
        inner: String,
        /// The rest.
        veth: Veth,
    },
    /// Puts a link of the node into a bridge.
    SetMaster {
        /// The link.
        link: String,
        /// The bridge.
        bridge: String,
    },
    /// Sets a link's MTU.
    SetMtu {
        /// The namespace; `None` for the node's.
        space: Option<String>,
        /// The link.
        link: String,
        /// In bytes.
        mtu: u32,
    },
    /// Sets a link up or down.
    SetUp {
        /// The namespace; `None` for the node's.
        space: Option<String>,
        /// The link.
        link: String,
        /// Which.
        up: bool,
    },
    /// Changes a tunnel.
    Tunnel(Step),
    /// Gives a link an address.
    AddAddress {
        /// The namespace.
        space: String,
        /// The link.
        link: String,
        /// The address.
        address: IpNet,
    },
    /// Takes an address from a link.
    DeleteAddress {
        /// The namespace.
        space: String,
        /// The link.
        link: String,
        /// The address.
        address: IpNet,
    },
    /// Adds a route, or replaces that to the same destination.
    AddRoute {
        /// The namespace.
        space: String,
        /// The route.
        route: StaticRoute,
    },
    /// Removes a route.
    DeleteRoute {
        /// The namespace.
        space: String,
        /// The route.
        route: StaticRoute,
    },
}

/// What of ours is not wanted, and what is in the way of what is. `orphans` says whether the records are the
/// store's own as they are now: from an old copy nothing is concluded to be unwanted.
pub fn removals(desired: &Desired, observed: &Observed, orphans: bool) -> Vec<Action> {
    let mut actions = Vec::new();
    let (wanted, broken) = (wanted_links(desired), broken(desired, observed));
    for name in observed.links.keys().filter(|n| names::is_our_link(n)) {
        let unwanted = !wanted.contains(name.as_str());
        if (unwanted && orphans) || broken.contains(name.as_str()) {
            actions.push(Action::DeleteLink(name.clone()));
        }
    }
    if orphans {
        let unwanted = observed.spaces.keys().filter(|s| !desired.spaces.contains_key(*s));
        actions.extend(unwanted.cloned().map(Action::DeleteSpace));
    }
    actions
}

fn wanted_links(desired: &Desired) -> BTreeSet<&str> {
    let mut wanted: BTreeSet<&str> =
        desired.taps.keys().chain(desired.tunnels.keys()).map(String::as_str).collect();
    for (name, bridge) in &desired.bridges {
        wanted.insert(name);
        match &bridge.uplink {
            Uplink::None => {}
            Uplink::Patch { here, there, .. } => wanted.extend([here.as_str(), there]),
            Uplink::Tagged { link, .. } => {
                wanted.insert(link);
            }
        }
    }
    wanted.extend(desired.spaces.values().flat_map(|s| s.links.values()).map(|v| v.outer.as_str()));
    wanted
}

/// What is there under the right name but must be made anew: tunnels of another shape, and the veths' ends whose
/// other end is not where, or not what, it should be.
fn broken<'a>(desired: &'a Desired, observed: &Observed) -> BTreeSet<&'a str> {
    let tunnels = desired
        .tunnels
        .iter()
        .filter(|(name, want)| observed.links.get(*name).is_some_and(|link| link.shape != Some(want.shape)));
    let tunnels = tunnels.map(|(name, _)| name.as_str());
    let veths =
        desired.spaces.iter().flat_map(|(space, want)| want.links.iter().map(move |(i, v)| (space, i, v)));
    let wrong = veths.filter(|(space, inner, veth)| {
        let there = observed.spaces.get(*space).and_then(|s| s.links.get(*inner));
        there.is_none_or(|link| link.mac != veth.mac)
    });
    wrong.map(|(_, _, veth)| veth.outer.as_str()).chain(tunnels).collect()
}

/// What has moved to or from another node, as far as the ways there are made already. It waits for nothing else: a guest
/// that has moved cannot be reached before.
pub fn redirections(desired: &Desired, observed: &Observed) -> Vec<Action> {
    let mut steps = Vec::new();
    for (name, want) in &desired.tunnels {
        let bridge = observed.links.get(&want.bridge).map(|b| b.index);
        let made =
            |link: &&Link| link.shape == Some(want.shape) && link.master.is_some() && link.master == bridge;
        if let Some(link) = observed.links.get(name).filter(made) {
            steps.extend(tunnel::plan::entries(name, want, Some(link.index), bridge, &observed.entries));
        }
    }
    steps.into_iter().map(Action::Tunnel).collect()
}

/// What is missing or different, in the order in which it must be made.
pub fn additions(desired: &Desired, observed: &Observed) -> Vec<Action> {
    let mut plan = Plan { observed, actions: Vec::new() };
    desired.bridges.iter().for_each(|(name, bridge)| plan.bridge(name, bridge));
    desired.bridges.iter().for_each(|(name, bridge)| plan.uplink(name, bridge));
    desired.tunnels.iter().for_each(|(name, tunnel)| plan.tunnel(name, tunnel));
    for (name, space) in &desired.spaces {
        plan.space(name, space);
    }
    desired.taps.iter().for_each(|(name, tap)| plan.tap(name, tap));
    plan.actions
}

struct Plan<'a> {
    observed: &'a Observed,
    actions: Vec<Action>,
}

impl Plan<'_> {
    fn bridge(&mut self, name: &str, want: &Bridge) {
        let link = self.observed.links.get(name);
        if link.is_none() {
            self.actions.push(Action::AddBridge { name: name.to_owned(), mtu: want.mtu });
        }
        // Set, and not only given when it is made, a bridge's MTU does not follow that of its ports.
        self.mtu(None, name, link, want.mtu);
        if link.is_none_or(|l| l.filtered != want.filtered) {
            self.actions.push(Action::SetFiltered { bridge: name.to_owned(), on: want.filtered });
        }
        self.up(None, name, link, true);
    }

    fn uplink(&mut self, bridge: &str, want: &Bridge) {
        match &want.uplink {
            Uplink::None => {}
            Uplink::Patch { here, there, parent } => {
                if !self.observed.links.contains_key(here) {
                    let (here, there) = (here.clone(), there.clone());
                    self.actions.push(Action::AddPatch { here, there, mtu: want.mtu });
                }
                self.plugged(here, bridge, want.mtu, true);
                self.plugged(there, parent, want.mtu, true);
            }
            Uplink::Tagged { link, parent, vlan } => {
                if !self.observed.links.contains_key(link) {
                    let (link, parent) = (link.clone(), parent.clone());
                    self.actions.push(Action::AddTagged { link, parent, vlan: *vlan });
                }
                self.plugged(link, bridge, want.mtu, true);
            }
        }
    }

    fn tunnel(&mut self, name: &str, want: &Tunnel) {
        let link = self.observed.links.get(name);
        if link.is_none() {
            self.actions.push(Action::Tunnel(Step::Add { link: name.to_owned(), shape: want.shape }));
        }
        self.mtu(None, name, link, want.mtu);
        let bridge = self.observed.links.get(&want.bridge).map(|b| b.index);
        let plugged = self.master(name, &want.bridge, link);
        // What is taken out of its bridge comes back as any port is: with learning.
        if !plugged || link.is_none_or(|l| l.port != Port { learning: false, suppress: want.suppress }) {
            let step = Step::Port { link: name.to_owned(), suppress: want.suppress };
            self.actions.push(Action::Tunnel(step));
        }
        let steps = tunnel::plan::entries(name, want, link.map(|l| l.index), bridge, &self.observed.entries);
        self.actions.extend(steps.into_iter().map(Action::Tunnel));
        self.up(None, name, link, true);
    }

    fn tap(&mut self, name: &str, want: &Tap) {
        if !self.observed.links.contains_key(name) {
            self.actions.push(Action::AddTap(name.to_owned()));
        }
        self.plugged(name, &want.bridge, want.mtu, want.up);
    }

    /// A link of the node is in its bridge, and only then up.
    fn plugged(&mut self, name: &str, bridge: &str, mtu: u32, up: bool) {
        let link = self.observed.links.get(name);
        self.mtu(None, name, link, mtu);
        self.master(name, bridge, link);
        self.up(None, name, link, up);
    }

    /// A link of the node is in its bridge; true if it is already.
    fn master(&mut self, name: &str, bridge: &str, link: Option<&Link>) -> bool {
        let master = self.observed.links.get(bridge).map(|b| b.index);
        let plugged = master.is_some() && link.is_some_and(|l| l.master == master);
        if !plugged {
            let (link, bridge) = (name.to_owned(), bridge.to_owned());
            self.actions.push(Action::SetMaster { link, bridge });
        }
        plugged
    }

    fn space(&mut self, name: &str, want: &Space) {
        let nothing = SpaceState::default();
        let state = self.observed.spaces.get(name).unwrap_or(&nothing);
        let lo = state.links.get("lo");
        self.up(Some(name), "lo", lo, true);
        self.addresses(name, "lo", lo, &want.loopback, state);
        for (inner, veth) in &want.links {
            let link = state.links.get(inner).filter(|l| l.mac == veth.mac);
            if link.is_none() || !self.observed.links.contains_key(&veth.outer) {
                let (space, inner, veth) = (name.to_owned(), inner.clone(), veth.clone());
                self.actions.push(Action::AddVeth { space, inner, veth });
            }
            self.plugged(&veth.outer, &veth.bridge, veth.mtu, veth.up);
            self.mtu(Some(name), inner, link, veth.mtu);
            self.up(Some(name), inner, link, veth.up);
            self.addresses(name, inner, link, &veth.addresses, state);
        }
        self.routes(name, want, state);
    }

    fn addresses(
        &mut self,
        space: &str,
        link: &str,
        is: Option<&Link>,
        want: &BTreeSet<IpNet>,
        state: &SpaceState,
    ) {
        let of_link =
            |(index, address): &(u32, IpNet)| is.is_some_and(|l| l.index == *index).then_some(*address);
        let have: BTreeSet<_> = state.addresses.iter().filter_map(of_link).collect();
        let (space, link) = (|| space.to_owned(), || link.to_owned());
        for address in have.difference(want) {
            self.actions.push(Action::DeleteAddress { space: space(), link: link(), address: *address });
        }
        for address in want.difference(&have) {
            self.actions.push(Action::AddAddress { space: space(), link: link(), address: *address });
        }
    }

    fn routes(&mut self, space: &str, want: &Space, state: &SpaceState) {
        let destinations: BTreeSet<_> = want.routes.iter().map(|r| r.destination).collect();
        for route in &state.routes {
            if !destinations.contains(&route.destination) {
                let (space, route) = (space.to_owned(), route.clone());
                self.actions.push(Action::DeleteRoute { space, route });
            }
        }
        for route in want.routes.difference(&state.routes) {
            let (space, route) = (space.to_owned(), route.clone());
            self.actions.push(Action::AddRoute { space, route });
        }
    }

    fn mtu(&mut self, space: Option<&str>, name: &str, link: Option<&Link>, mtu: u32) {
        if link.is_none_or(|l| l.mtu != mtu) {
            let (space, link) = (space.map(str::to_owned), name.to_owned());
            self.actions.push(Action::SetMtu { space, link, mtu });
        }
    }

    fn up(&mut self, space: Option<&str>, name: &str, link: Option<&Link>, up: bool) {
        if link.map_or(up, |l| l.up != up) {
            let (space, link) = (space.map(str::to_owned), name.to_owned());
            self.actions.push(Action::SetUp { space, link, up });
        }
    }
}
