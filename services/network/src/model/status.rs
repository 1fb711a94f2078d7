//! What the agents of the nodes observed. Each is written by the network agent of the node it names, and by
//! nobody else; the controller only removes it together with the record it is about, once that is gone.

use std::net::IpAddr;

use cairn_state::Record;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a node is with something it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Seen, being made.
    Pending,
    /// It is as the record says.
    Ready,
    /// It could not be made; the agent goes on trying.
    Failed,
    /// It is not there (any more), and nothing of it is left on the node.
    Gone,
}

/// A port on its node. Key `network/port-status/PORT`. Writer: the network agent of `host`, for every port whose
/// [`super::Port::host`] is its node: guests' ports and its routers'.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The port.
    pub id: String,
    /// The node.
    pub host: String,
    /// The port's generation that was acted on.
    pub generation: u64,
    /// How far it is: `Ready` once plugged and filtered.
    pub phase: Phase,
    /// Whether it really forwards: plugged, filtered, its link up.
    pub up: bool,
    /// The tap device, of a guest's port.
    pub tap: Option<String>,
    /// What is wrong, for a person.
    pub error: Option<String>,
}

impl Record for PortStatus {
    const KIND: &'static str = "network/port-status";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A port that is about to move to a node, there. Key `network/port-prepared/PORT`. Writer: the network agent of
/// [`super::Port::migrating_to`], which removes it when the port has come or will not come any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPrepared {
    /// The port.
    pub id: String,
    /// The node it is to move to.
    pub host: String,
    /// The port's generation that was acted on.
    pub generation: u64,
    /// How far it is: `Ready` once its tap is there, in its bridge, and filtered.
    pub phase: Phase,
    /// What is wrong, for a person.
    pub error: Option<String>,
}

impl Record for PortPrepared {
    const KIND: &'static str = "network/port-prepared";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A router on its node. Key `network/router-status/ROUTER/NODE`. Writer: the network agent of `host`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// The router.
    pub router: String,
    /// The node.
    pub host: String,
    /// The router's generation that was acted on.
    pub generation: u64,
    /// How far it is.
    pub phase: Phase,
    /// What is wrong, for a person.
    pub error: Option<String>,
}

impl Record for RouterStatus {
    const KIND: &'static str = "network/router-status";

    fn id(&self) -> String {
        on_host(&self.router, &self.host)
    }
}

/// A network on a node: its bridge, and the namespace that answers DHCP, DNS and metadata.
/// Key `network/network-status/NETWORK/NODE`. Writer: the network agent of `host`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The network.
    pub network: String,
    /// The node.
    pub host: String,
    /// The network's generation that was acted on.
    pub generation: u64,
    /// How far it is.
    pub phase: Phase,
    /// Whether DHCP and metadata are answered.
    pub dhcp: bool,
    /// What is wrong, for a person.
    pub error: Option<String>,
}

impl Record for NetworkStatus {
    const KIND: &'static str = "network/network-status";

    fn id(&self) -> String {
        on_host(&self.network, &self.host)
    }
}

/// The id of what a node reports about something that several nodes may have.
pub fn on_host(id: &str, host: &str) -> String {
    format!("{id}/{host}")
}

/// A node's network agent itself. Key `network/host/NODE`. Writer: that agent, at its start and about every
/// [`HEARTBEAT_S`] seconds. A node can be given ports and routers once it has this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The node.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// When the agent started.
    pub started_at: Timestamp,
    /// When it last said so.
    pub heartbeat_at: Timestamp,
    /// The physical networks it reaches.
    pub physical_networks: Vec<String>,
    /// The address at which its tunnels end; `None` while its LAN has no address.
    #[serde(default)]
    pub tunnel_ip: Option<IpAddr>,
    /// The largest packet, in bytes, on the wire that its tunnels go over; 0 while that is not known.
    #[serde(default)]
    pub tunnel_mtu: u32,
    /// The last pass's error, if it failed.
    pub error: Option<String>,
}

/// How often an agent renews [`HostStatus`], in seconds.
pub const HEARTBEAT_S: i64 = 15;

/// After how many seconds of silence an agent counts as down.
pub const DOWN_AFTER_S: i64 = 4 * HEARTBEAT_S;

impl HostStatus {
    /// Whether the agent has spoken lately.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        now.as_second() - self.heartbeat_at.as_second() <= DOWN_AFTER_S
    }
}

impl Record for HostStatus {
    const KIND: &'static str = "network/host";

    fn id(&self) -> String {
        self.node.clone()
    }
}
