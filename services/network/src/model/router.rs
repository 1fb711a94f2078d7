//! Routers and floating IPs. Written by the controller alone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cairn_state::{Index, Record};
use serde::{Deserialize, Serialize};

use super::{Route, Stamp};

/// A router's way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalGateway {
    /// The external network.
    pub network_id: String,
    /// The router's port there (`device_owner` `network:router_gateway`); its fixed IPs are the router's outer
    /// addresses.
    pub port_id: String,
    /// Whether traffic of the inner networks leaves with the router's outer address.
    pub enable_snat: bool,
}

/// A router. Its interfaces are the ports with its id as `device_id`. Key `network/router/ID`.
/// Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// A uuid.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// A name, not unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it forwards at all.
    pub admin_state_up: bool,
    /// Its way out, if it has one.
    pub gateway: Option<ExternalGateway>,
    /// Routes beside those of its interfaces and its gateway.
    pub routes: Vec<Route>,
    /// The node it lives on; `None` until there is one.
    pub host: Option<String>,
    /// A tombstone: `host` is to remove it.
    pub deleted: bool,
    /// Words of the user's.
    pub tags: BTreeSet<String>,
    /// When, and how often changed. The revision is the generation that an agent reports.
    pub stamp: Stamp,
}

impl Record for Router {
    const KIND: &'static str = "network/router";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        if self.deleted {
            return vec![Index::multi("deleted", "yes")];
        }
        let mut indexes = vec![Index::multi("project", &self.project_id)];
        indexes.push(match &self.host {
            None => Index::multi("unplaced", "yes"),
            Some(host) => Index::multi("host", host),
        });
        indexes
    }
}

/// How many routers a node has been given, kept with each change so that nobody has to count them.
/// Key `network/router-load/NODE`. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterLoad {
    /// The node.
    pub node: String,
    /// Its routers that are not being removed.
    pub routers: u64,
}

impl Record for RouterLoad {
    const KIND: &'static str = "network/router-load";

    fn id(&self) -> String {
        self.node.clone()
    }
}

/// An address of an external network that a router translates to and from a port's fixed address.
/// Key `network/floating-ip/ID`. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// A uuid.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Free text.
    pub description: String,
    /// The external network.
    pub floating_network_id: String,
    /// The outer address.
    pub floating_ip_address: IpAddr,
    /// The port that holds that address (`device_owner` `network:floatingip`).
    pub floating_port_id: String,
    /// The port it leads to, if it does.
    pub port_id: Option<String>,
    /// That port's address.
    pub fixed_ip_address: Option<IpAddr>,
    /// The router that translates; set with `port_id`.
    pub router_id: Option<String>,
    /// Words of the user's.
    pub tags: BTreeSet<String>,
    /// When, and how often changed.
    pub stamp: Stamp,
}

impl Record for FloatingIp {
    const KIND: &'static str = "network/floating-ip";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![
            Index::multi("project", &self.project_id),
            Index::multi("network", &self.floating_network_id),
            Index::unique("address", format!("{} {}", self.floating_network_id, self.floating_ip_address)),
        ];
        if let Some(port) = &self.port_id {
            indexes.push(Index::multi("port", port));
            if let Some(fixed) = &self.fixed_ip_address {
                let target = format!("{port} {fixed} {}", self.floating_network_id);
                indexes.push(Index::unique("target", target));
            }
        }
        indexes.extend(self.router_id.as_ref().map(|r| Index::multi("router", r)));
        indexes
    }
}
