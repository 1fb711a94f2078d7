//! What the agent reports: decides what each record of observation says. Pure.
//!
//! "Ready" is said only of what was seen on the node after the pass; "Gone" only once nothing of it was.

use std::collections::BTreeMap;

use super::act::Failures;
use super::desired::{Desired, PortWant, World};
use super::plan::Observed;
use super::tunnel::End;
use crate::agent::names;
use crate::model::{
    LAN_BRIDGE, Network, NetworkStatus, Phase, Port, PortPrepared, PortStatus, Router, RouterStatus,
    bridge_name, netns_name, router_netns, tap_name,
};

/// What a pass found out.
pub struct Findings<'a> {
    /// This node.
    pub node: &'a str,
    /// What it was told.
    pub world: &'a World,
    /// What that came to.
    pub desired: &'a Desired,
    /// What is there now.
    pub observed: &'a Observed,
    /// What failed, by device or namespace.
    pub failures: &'a Failures,
    /// This node's side of its tunnels, if its LAN has an address.
    pub end: Option<End>,
    /// Why nothing is filtered, if so.
    pub unfiltered: Option<&'a str>,
}

impl Findings<'_> {
    /// The status of every port that is, or was, bound here. `reported` is what this node said before.
    pub fn ports(&self, reported: &BTreeMap<String, Phase>) -> Vec<PortStatus> {
        let here = self.desired.ports.iter().map(|(id, want)| self.port(id, want));
        let ports = self.world.ports.iter().filter(|p| !self.desired.ports.contains_key(&p.id));
        here.chain(ports.filter_map(|p| self.port_elsewhere(p, reported))).collect()
    }

    /// The status of every port that is about to come.
    pub fn prepared(&self) -> Vec<PortPrepared> {
        let of = |(id, want): (&String, &PortWant)| {
            let PortStatus { id, host, generation, phase, error, .. } = self.port(id, want);
            PortPrepared { id, host, generation, phase, error }
        };
        self.desired.prepared.iter().map(of).collect()
    }

    fn port(&self, id: &str, want: &PortWant) -> PortStatus {
        let links = &self.observed.links;
        let bridge = links.get(&want.bridge).map(|b| b.index);
        let link = links.get(&want.device);
        let plugged = link.filter(|l| l.master.is_some() && l.master == bridge);
        let filter = self.unfiltered.filter(|_| want.tap).map(str::to_owned);
        let failed = self.failures.get(&want.device).cloned().or(filter);
        let error = failed.or_else(|| {
            (plugged.is_none_or(|l| l.up != want.up))
                .then(|| format!("{} is not as it should be", want.device))
        });
        PortStatus {
            id: id.to_owned(),
            host: self.node.to_owned(),
            generation: want.generation,
            phase: if error.is_none() { Phase::Ready } else { Phase::Failed },
            up: error.is_none() && want.up,
            tap: (want.tap && link.is_some()).then(|| want.device.clone()),
            error,
        }
    }

    /// A port that is not to be here: a tombstone is told to be gone, and so is what was here before.
    fn port_elsewhere(&self, port: &Port, reported: &BTreeMap<String, Phase>) -> Option<PortStatus> {
        let bound = port.host.as_deref() == Some(self.node);
        let was = port.prior_host.as_deref() == Some(self.node) && port.host.is_none();
        let known = reported.contains_key(&port.id) && port.host.is_none();
        let left = [tap_name(&port.id), names::plug(&port.id)]
            .into_iter()
            .find(|d| self.observed.links.contains_key(d));
        if !(bound || was || known) {
            return None;
        }
        // Bound here but not wanted: its network or router is going, or is not known yet.
        let waits =
            bound && !port.deleted && left.is_none() && self.world.network(&port.network_id).is_some();
        let phase = match (&left, waits) {
            (Some(_), _) => Phase::Failed,
            (None, true) => Phase::Pending,
            (None, false) => Phase::Gone,
        };
        Some(PortStatus {
            id: port.id.clone(),
            host: self.node.to_owned(),
            generation: port.generation(),
            phase,
            up: false,
            tap: None,
            error: left.map(|device| self.failure(&[&device], &format!("{device} is still there"))),
        })
    }

    /// The status of every network that names this node.
    pub fn networks(&self, answers: impl Fn(&str) -> bool) -> Vec<NetworkStatus> {
        let named = self
            .world
            .networks
            .values()
            .filter(|n| n.hosts.contains(self.node) || self.desired.networks.contains_key(&n.id));
        named.map(|n| self.network(n, &answers)).collect()
    }

    fn network(&self, network: &Network, answers: &impl Fn(&str) -> bool) -> NetworkStatus {
        let (bridge, space) = (bridge_name(&network.id), netns_name(&network.id));
        let wanted = self.desired.networks.contains_key(&network.id);
        let has_bridge = self.observed.links.contains_key(&bridge);
        let has_space = self.observed.spaces.contains_key(&space);
        let answered = self.desired.spaces.get(&space).map(|_| answers(&space));
        let right = (!self.desired.bridges.contains_key(&bridge) || has_bridge) && answered != Some(false);
        let failed = self.failures.get(&bridge).or(self.failures.get(&space));
        let phase = match wanted {
            true if right && failed.is_none() => Phase::Ready,
            true => Phase::Failed,
            false if has_bridge || has_space => Phase::Failed,
            false => Phase::Gone,
        };
        let why = if wanted { "it is not as it should be" } else { "something of it is still there" };
        NetworkStatus {
            network: network.id.clone(),
            host: self.node.to_owned(),
            generation: network.stamp.revision,
            phase,
            dhcp: answered == Some(true),
            error: (phase == Phase::Failed).then(|| self.failure(&[&bridge, &space], why)),
        }
    }

    /// The status of every router that names this node, or of which this node said something before.
    pub fn routers(&self, reported: &BTreeMap<String, Phase>) -> Vec<RouterStatus> {
        let named = self
            .world
            .routers
            .values()
            .filter(|r| r.host.as_deref() == Some(self.node) || reported.contains_key(&r.id));
        named.map(|r| self.router(r)).collect()
    }

    fn router(&self, router: &Router) -> RouterStatus {
        let space = router_netns(&router.id);
        let is = self.observed.spaces.contains_key(&space);
        let wanted = self.desired.spaces.get(&space);
        let legs = wanted.into_iter().flat_map(|s| s.links.values());
        let bad = legs.map(|v| v.outer.as_str()).find(|outer| self.failures.contains_key(*outer));
        let failed = self.failures.get(bad.unwrap_or(&space));
        let phase = match (wanted.is_some(), is) {
            (true, true) if failed.is_none() => Phase::Ready,
            (false, false) => Phase::Gone,
            _ => Phase::Failed,
        };
        RouterStatus {
            router: router.id.clone(),
            host: self.node.to_owned(),
            generation: router.stamp.revision,
            phase,
            error: (phase == Phase::Failed)
                .then(|| failed.cloned().unwrap_or_else(|| format!("{space} is not as it should be"))),
        }
    }

    fn failure(&self, subjects: &[&str], otherwise: &str) -> String {
        let known = subjects.iter().find_map(|s| self.failures.get(*s));
        known.cloned().unwrap_or_else(|| otherwise.to_owned())
    }

    /// The physical networks that this node reaches.
    pub fn physical_networks(&self) -> Vec<String> {
        let lan = self.observed.links.get(LAN_BRIDGE).filter(|l| l.bridge);
        lan.map(|_| crate::model::LAN.to_owned()).into_iter().collect()
    }
}
