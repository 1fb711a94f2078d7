//! Security groups and their rules. Written by the controller alone.

use std::collections::BTreeSet;

use cairn_state::{Index, Record};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Stamp;

/// A named set of rules; a port takes what any rule of any of its groups allows, and nothing else.
/// Its members are the ports that name it. Key `network/security-group/ID`. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// A uuid.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// A name, not unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it is the one that ports of the project get when they name none.
    pub is_default: bool,
    /// Words of the user's.
    pub tags: BTreeSet<String>,
    /// When, and how often changed.
    pub stamp: Stamp,
}

impl Record for SecurityGroup {
    const KIND: &'static str = "network/security-group";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![Index::multi("project", &self.project_id)];
        if self.is_default {
            indexes.push(Index::unique("default", &self.project_id));
        }
        indexes
    }
}

/// Which way a rule lets pass, seen from the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the port.
    Ingress,
    /// From the port.
    Egress,
}

/// The address family of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ethertype {
    /// IPv4 (and ARP, which anti-spoofing watches).
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// What a group allows. Rules are stateful: answers pass. Key `network/security-group-rule/ID`.
/// Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// A uuid.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// The group it is of.
    pub security_group_id: String,
    /// Free text.
    pub description: String,
    /// To or from the port.
    pub direction: Direction,
    /// IPv4 or IPv6.
    pub ethertype: Ethertype,
    /// The protocol's name or number as the user gave it, in lower case; `None` for any.
    /// [`SecurityGroupRule::protocol_number`] resolves it.
    pub protocol: Option<String>,
    /// The first port, or the ICMP type; `None` for all.
    pub port_range_min: Option<u16>,
    /// The last port, or the ICMP code; `None` for all.
    pub port_range_max: Option<u16>,
    /// The other side's addresses; `None` for all.
    pub remote_ip_prefix: Option<IpNet>,
    /// The group whose members the other side must be one of.
    pub remote_group_id: Option<String>,
    /// When, and how often changed.
    pub stamp: Stamp,
}

impl SecurityGroupRule {
    /// The IP protocol number; `None` for any.
    pub fn protocol_number(&self) -> Option<u8> {
        self.protocol.as_deref().and_then(|name| protocol_number(name, self.ethertype))
    }

    /// What makes two rules of one group the same.
    fn substance(&self) -> String {
        let opt = |p: Option<u16>| p.map_or("-".into(), |p| p.to_string());
        format!(
            "{} {:?} {:?} {} {} {} {} {}",
            self.security_group_id,
            self.direction,
            self.ethertype,
            self.protocol_number().map_or("-".into(), |n| n.to_string()),
            opt(self.port_range_min),
            opt(self.port_range_max),
            self.remote_ip_prefix.map_or("-".into(), |p| p.to_string()),
            self.remote_group_id.as_deref().unwrap_or("-"),
        )
    }
}

/// The number of a protocol that a rule may name; `None` when it is not one.
/// In IPv6, `icmp` means ICMPv6.
pub fn protocol_number(name: &str, ethertype: Ethertype) -> Option<u8> {
    Some(match name {
        "icmp" if ethertype == Ethertype::V6 => 58,
        "icmp" => 1,
        "ah" => 51,
        "dccp" => 33,
        "egp" => 8,
        "esp" => 50,
        "gre" => 47,
        "igmp" => 2,
        "ipip" => 4,
        "ipv6-encap" => 41,
        "ipv6-frag" => 44,
        "ipv6-icmp" | "icmpv6" => 58,
        "ipv6-nonxt" => 59,
        "ipv6-opts" => 60,
        "ipv6-route" => 43,
        "ospf" => 89,
        "pgm" => 113,
        "rsvp" => 46,
        "sctp" => 132,
        "tcp" => 6,
        "udp" => 17,
        "udplite" => 136,
        "vrrp" => 112,
        number => return number.parse().ok(),
    })
}

impl Record for SecurityGroupRule {
    const KIND: &'static str = "network/security-group-rule";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![
            Index::multi("group", &self.security_group_id),
            Index::multi("project", &self.project_id),
            Index::unique("substance", self.substance()),
        ];
        indexes.extend(self.remote_group_id.as_ref().map(|g| Index::multi("remote", g)));
        indexes
    }
}
