//! Subnet pools and address scopes. Written by the controller alone.

use std::collections::BTreeSet;

use cairn_state::{Index, Record};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Stamp;

/// Prefixes that subnets are cut from. Key `network/subnet-pool/ID`. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetPool {
    /// A uuid.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// A name, not unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What it holds: merged, disjoint, in order, all of one version.
    pub prefixes: Vec<IpNet>,
    /// The prefix length of a subnet that names none.
    pub default_prefixlen: u8,
    /// The shortest prefix length it gives.
    pub min_prefixlen: u8,
    /// The longest prefix length it gives.
    pub max_prefixlen: u8,
    /// How much one project may have: addresses (IPv4) or /64s (IPv6); `None` for no limit.
    pub default_quota: Option<u64>,
    /// The scope its addresses are unique in.
    pub address_scope_id: Option<String>,
    /// Whether every project may use it.
    pub shared: bool,
    /// Whether it is taken when a subnet names neither prefix nor pool.
    pub is_default: bool,
    /// Words of the user's.
    pub tags: BTreeSet<String>,
    /// When, and how often changed.
    pub stamp: Stamp,
}

impl SubnetPool {
    /// 4 or 6.
    pub fn ip_version(&self) -> u8 {
        if self.prefixes.first().is_none_or(|p| p.addr().is_ipv4()) { 4 } else { 6 }
    }
}

impl Record for SubnetPool {
    const KIND: &'static str = "network/subnet-pool";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![Index::multi("project", &self.project_id)];
        if self.shared {
            indexes.push(Index::multi("shared", "yes"));
        }
        if self.is_default {
            indexes.push(Index::unique("default", self.ip_version().to_string()));
        }
        indexes.extend(self.address_scope_id.as_ref().map(|s| Index::multi("scope", s)));
        indexes
    }
}

/// Where addresses of several pools don't overlap. Key `network/address-scope/ID`. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressScope {
    /// A uuid.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// A name, not unique.
    pub name: String,
    /// 4 or 6.
    pub ip_version: u8,
    /// Whether every project may use it.
    pub shared: bool,
    /// When, and how often changed.
    pub stamp: Stamp,
}

impl Record for AddressScope {
    const KIND: &'static str = "network/address-scope";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![Index::multi("project", &self.project_id)];
        if self.shared {
            indexes.push(Index::multi("shared", "yes"));
        }
        indexes
    }
}
