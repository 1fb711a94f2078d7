//! What servers are made from and counted by: flavors, key pairs, groups, quotas, and what administrators say
//! about hosts. Written by the controller alone.

use std::collections::{BTreeMap, BTreeSet};

use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::FlavorSnapshot;

/// A flavor: a size of server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flavor {
    /// Its id, chosen by who made it.
    pub id: String,
    /// Its name, unique.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub ram_mb: u64,
    /// Root disk in GiB; 0 takes the image's size.
    pub disk_gb: u64,
    /// Extra empty disk in GiB.
    pub ephemeral_gb: u64,
    /// Swap disk in MiB.
    pub swap_mb: u64,
    /// A weight of bandwidth, kept because the API has it; it decides nothing.
    pub rxtx_factor: f64,
    /// Whether every project may use it.
    pub is_public: bool,
    /// Whether it is hidden from new servers.
    pub disabled: bool,
    /// What it is for.
    pub description: Option<String>,
    /// Extra specifications.
    pub extra_specs: BTreeMap<String, String>,
    /// The projects that may use it, if it is not public.
    pub projects: BTreeSet<String>,
}

impl Record for Flavor {
    const KIND: &'static str = "compute/flavor";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name)]
    }
}

impl Flavor {
    /// Whether this project may use it.
    pub fn open_to(&self, project_id: &str) -> bool {
        self.is_public || self.projects.contains(project_id)
    }

    /// What a server keeps of it.
    pub fn snapshot(&self) -> FlavorSnapshot {
        FlavorSnapshot {
            id: self.id.clone(),
            name: self.name.clone(),
            vcpus: self.vcpus,
            ram_mb: self.ram_mb,
            disk_gb: self.disk_gb,
            ephemeral_gb: self.ephemeral_gb,
            swap_mb: self.swap_mb,
            extra_specs: self.extra_specs.clone(),
        }
    }
}

/// The flavors a new cloud begins with.
pub fn flavor_seed() -> Vec<Flavor> {
    let flavor = |id: &str, name: &str, vcpus, ram_mb, disk_gb| Flavor {
        id: id.into(),
        name: name.into(),
        vcpus,
        ram_mb,
        disk_gb,
        ephemeral_gb: 0,
        swap_mb: 0,
        rxtx_factor: 1.0,
        is_public: true,
        disabled: false,
        description: None,
        extra_specs: BTreeMap::new(),
        projects: BTreeSet::new(),
    };
    vec![
        flavor("1", "m1.tiny", 1, 512, 1),
        flavor("2", "m1.small", 1, 2048, 20),
        flavor("3", "m1.medium", 2, 4096, 40),
        flavor("4", "m1.large", 4, 8192, 80),
        flavor("c1", "c1.nano", 1, 128, 1),
        flavor("c2", "c1.micro", 1, 192, 1),
    ]
}

/// A key pair; of the private half nothing is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keypair {
    /// Whose it is.
    pub user_id: String,
    /// Its name, unique for the user.
    pub name: String,
    /// `ssh` or `x509`.
    pub kind: String,
    /// The public key as given.
    pub public_key: String,
    /// MD5 of the key, in pairs of hex digits with colons.
    pub fingerprint: String,
    /// When it was made.
    pub created: Timestamp,
}

impl Record for Keypair {
    const KIND: &'static str = "compute/keypair";

    fn id(&self) -> String {
        format!("{}/{}", self.user_id, self.name)
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::multi("user", &self.user_id)]
    }
}

impl Keypair {
    /// The number the API wants beside the name: the same for as long as the key pair lives.
    pub fn number(&self) -> u32 {
        let hash = Sha256::digest(self.id().as_bytes());
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> 1
    }
}

/// A group of servers and how they are to be spread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerGroup {
    /// Its id.
    pub id: String,
    /// Its project.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// Its name, which need not be unique.
    pub name: String,
    /// `affinity`, `anti-affinity`, `soft-affinity` or `soft-anti-affinity`.
    pub policy: String,
    /// With `anti-affinity`: how many members one host may have.
    pub max_server_per_host: Option<u32>,
    /// When it was made.
    pub created: Timestamp,
}

impl Record for ServerGroup {
    const KIND: &'static str = "compute/server-group";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::multi("project", &self.project_id)]
    }
}

/// A set of hosts under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Its number.
    pub id: u64,
    /// Its UUID.
    pub uuid: String,
    /// Its name, unique.
    pub name: String,
    /// The hosts.
    pub hosts: BTreeSet<String>,
    /// Its metadata; `availability_zone` puts its hosts into that zone.
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Option<Timestamp>,
}

impl Record for Aggregate {
    const KIND: &'static str = "compute/aggregate";

    fn id(&self) -> String {
        // Padded, so that the order of keys is the order of numbers.
        format!("{:010}", self.id)
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name)]
    }
}

/// What an administrator said about a host's compute service. No record: enabled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPolicy {
    /// The node.
    pub node: String,
    /// Whether it takes no new servers.
    pub disabled: bool,
    /// Why.
    pub disabled_reason: Option<String>,
    /// Whether it was declared dead.
    pub forced_down: bool,
    /// Who wants it emptied, if anybody does.
    #[serde(default)]
    pub draining: Option<crate::actions::Actor>,
}

impl Record for HostPolicy {
    const KIND: &'static str = "compute/host-policy";

    fn id(&self) -> String {
        self.node.clone()
    }
}

/// The UUID of a node's hypervisor and resource provider: a function of its name, which is made from its key.
pub fn hypervisor_uuid(node: &str) -> String {
    let hash = Sha256::digest(format!("cairn hypervisor {node}").as_bytes());
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// What a project (or, under the id `default`, every project) may have; -1 is "without limit".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The project.
    pub project_id: String,
    /// The limits that differ from the defaults, by resource.
    pub limits: BTreeMap<String, i64>,
}

impl Record for Quota {
    const KIND: &'static str = "compute/quota";

    fn id(&self) -> String {
        self.project_id.clone()
    }
}

/// What a project has now. Kept with each change, so that no quota check counts servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The project.
    pub project_id: String,
    /// Servers.
    pub instances: i64,
    /// Their virtual CPUs.
    pub cores: i64,
    /// Their memory in MiB.
    pub ram_mb: i64,
}

impl Record for Usage {
    const KIND: &'static str = "compute/usage";

    fn id(&self) -> String {
        self.project_id.clone()
    }
}
