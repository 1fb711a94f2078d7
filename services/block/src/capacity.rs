//! Where a volume goes, and whether it fits.
//!
//! Volumes take room as they are written, so more is promised than there is: at most [`OVERCOMMIT`] times what
//! the healthy disks of a node hold. What was promised is counted in one record per node, and one per backend that is
//! elsewhere ([`crate::elsewhere`]).

use std::collections::{BTreeMap, BTreeSet};

use cairn_gateway::{ApiError, ApiResult};
use cairn_shards::disks;
use cairn_shards::model::DiskStatus;
use cairn_state::{Abort, Tx};

use crate::elsewhere;
use crate::model::{Disabled, GIB, Metadata, Provisioned};

/// How many times a node's room may be promised. Guests rarely fill their disks at once, and clones share.
pub const OVERCOMMIT: u64 = 4;
/// A node with less of its room free than one part in this many takes no more volumes.
const FREE_PART_MIN: u64 = 20;
/// The backend of volumes whose type asks for none, behind the node's name.
pub const BACKEND: &str = "cairn";
/// The backend whose volumes have one copy: for what is replicated by those who use it.
pub const SINGLE: &str = "cairn-single";
/// The backends that each node with disks has. They share its room, and differ in the copies that volumes have.
pub const BACKENDS: [&str; 2] = [BACKEND, SINGLE];

/// What every backend is capable of beside its name, as types' extra specs ask for it.
pub const CAPABILITIES: [(&str, &str); 2] =
    [("vendor_name", "Cairn"), ("storage_protocol", "vhost-user-blk")];
/// What a volume may be meant for or not, and what none is: its copies are the engine's own matter, and fail over by
/// themselves.
pub(crate) const EITHER: [(&str, &str); 3] =
    [("multiattach", "<is> true"), ("multiattach", "<is> false"), ("replication_enabled", "<is> false")];
/// The extra spec that asks for a backend.
const NAME: &str = "volume_backend_name";

/// How many copies volumes of a backend have, if not as many as any.
pub fn copies(backend: &str) -> Option<usize> {
    (backend == SINGLE).then_some(1)
}

/// The disks of one node together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The node.
    pub node: String,
    /// Bytes its healthy disks hold.
    pub size: u64,
    /// Bytes free there.
    pub free: u64,
    /// Bytes of the largest of them.
    pub disk_max: u64,
    /// GiB promised.
    pub provisioned_gb: u64,
    /// The backends that are given no new volumes.
    pub disabled: BTreeSet<&'static str>,
}

impl Pool {
    /// GiB that may still be promised.
    pub fn room_gb(&self) -> u64 {
        (self.size * OVERCOMMIT / GIB).saturating_sub(self.provisioned_gb)
    }

    /// Why this many GiB do not fit, if they do not.
    fn refusal(&self, gigabytes: u64) -> Option<String> {
        if gigabytes > self.disk_max.div_ceil(GIB) {
            return Some(format!("its largest disk holds {} GiB", self.disk_max / GIB));
        }
        if self.free < self.size / FREE_PART_MIN {
            return Some("its disks are nearly full".into());
        }
        let room = self.room_gb();
        (gigabytes > room).then(|| format!("only {room} GiB more may be promised there"))
    }
}

/// The name of a node's backend.
pub fn service_host(node: &str, backend: &str) -> String {
    format!("{node}@{backend}")
}

/// The name of a backend's pool, as `os-vol-host-attr:host` shows it.
pub fn host_name(node: &str, backend: &str) -> String {
    format!("{node}@{backend}#{backend}")
}

/// The node and the backend that a host's name means: `node@backend#pool` or less of it; a node alone has the usual one.
/// Whether there is such a backend is another question.
pub fn parse_host(host: &str) -> Option<(&str, &str)> {
    let (node, rest) = host.split_once('@').unwrap_or((host, BACKEND));
    let (backend, pool) = rest.split_once('#').unwrap_or((rest, rest));
    (pool == backend).then_some((node, backend))
}

/// Whether a backend is one of those that every node with disks has.
pub fn is_own(backend: &str) -> bool {
    BACKENDS.contains(&backend)
}

/// The pools of all nodes that have disks, by node.
pub fn pools(tx: &mut Tx) -> Result<Vec<Pool>, Abort> {
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    let spared = disks::spared(&tx.list_unfenced()?);
    for disk in tx.list_unfenced::<DiskStatus>()?.into_iter().filter(|d| d.healthy) {
        let empty = Pool {
            node: disk.node.clone(),
            size: 0,
            free: 0,
            disk_max: 0,
            provisioned_gb: 0,
            disabled: BTreeSet::new(),
        };
        let pool = pools.entry(disk.node).or_insert(empty);
        if spared.contains(&disk.disk) {
            continue; // What is on it needs room elsewhere.
        }
        pool.size += disk.size;
        pool.free += disk.free;
        pool.disk_max = pool.disk_max.max(disk.size);
    }
    for (node, pool) in &mut pools {
        pool.provisioned_gb = tx.get::<Provisioned>(node)?.map_or(0, |p| p.gigabytes);
        for backend in BACKENDS {
            if tx.get::<Disabled>(&service_host(node, backend))?.is_some() {
                pool.disabled.insert(backend);
            }
        }
    }
    Ok(pools.into_values().collect())
}

/// Chooses the node for a new volume of a backend (the one given, if it must be that one) and promises it the room. A
/// disabled one is given none but what belongs to what is there already: that is of no `backend`.
pub fn place(tx: &mut Tx, gigabytes: u64, node: Option<&str>, backend: Option<&str>) -> ApiResult<String> {
    let pools = pools(tx)?;
    let chosen = choose(&pools, gigabytes, node, backend)?.to_owned();
    promise(tx, &chosen, gigabytes)?;
    Ok(chosen)
}

fn choose<'a>(
    pools: &'a [Pool],
    gigabytes: u64,
    node: Option<&str>,
    backend: Option<&str>,
) -> ApiResult<&'a str> {
    let mut why = Vec::new();
    let mut best: Option<&Pool> = None;
    for pool in pools.iter().filter(|p| node.is_none_or(|n| n == p.node)) {
        let disabled = backend.filter(|b| pool.disabled.contains(b)).map(|_| "it is disabled".to_owned());
        match disabled.or_else(|| pool.refusal(gigabytes)) {
            Some(reason) => why.push(format!("{}: {reason}", pool.node)),
            None if best.is_none_or(|b| pool.room_gb() > b.room_gb()) => best = Some(pool),
            None => {}
        }
    }
    best.map(|p| p.node.as_str()).ok_or_else(|| no_room(gigabytes, &why))
}

pub(crate) fn no_room(gigabytes: u64, why: &[String]) -> ApiError {
    let why = if why.is_empty() { "no node has a healthy data disk".to_owned() } else { why.join("; ") };
    ApiError::conflict(format!("No valid backend was found for a volume of {gigabytes} GiB: {why}."))
}

/// Promises more room on a node (or whatever has an account) whose fitness was checked.
pub(crate) fn promise(tx: &mut Tx, node: &str, gigabytes: u64) -> Result<(), Abort> {
    let mut now = tx.get::<Provisioned>(node)?.unwrap_or_default();
    now.node = node.into();
    now.gigabytes += gigabytes;
    tx.put(&now)
}

/// Promises a volume that is there already this much more room.
pub fn grow(tx: &mut Tx, node: &str, to_gb: u64, by_gb: u64) -> ApiResult<()> {
    let pools = pools(tx)?;
    let pool = pools.iter().find(|p| p.node == node).ok_or_else(|| no_room(to_gb, &[]))?;
    let too_large = to_gb > pool.disk_max.div_ceil(GIB);
    if let Some(reason) = pool.refusal(if too_large { to_gb } else { by_gb }) {
        return Err(no_room(to_gb, &[format!("{node}: {reason}")]));
    }
    Ok(promise(tx, node, by_gb)?)
}

/// Takes a promise back.
pub fn release(tx: &mut Tx, node: &str, gigabytes: u64) -> Result<(), Abort> {
    let Some(mut now) = tx.get::<Provisioned>(node)? else { return Ok(()) };
    now.gigabytes = now.gigabytes.saturating_sub(gigabytes);
    tx.put(&now)
}

/// What a type's extra specs ask of the backend it must be, or the first that no backend meets. Specs with another scope
/// than `capabilities` are for drivers, and mean nothing here. `elsewhere` has the names of backends beside those of nodes.
pub fn backend_for<'a>(extra_specs: &'a Metadata, elsewhere: &BTreeSet<String>) -> Result<String, &'a str> {
    let named =
        extra_specs.iter().filter(|(key, _)| key.strip_prefix("capabilities:").unwrap_or(key) == NAME);
    let wanted = named.map(|(_, value)| value.strip_prefix("<in> ").unwrap_or(value)).next();
    if let Some(name) = wanted.filter(|name| elsewhere.contains(*name)) {
        return elsewhere::meets(extra_specs, NAME).map(|()| name.to_owned());
    }
    let mut chosen = BACKEND;
    for (key, value) in extra_specs {
        let name = key.strip_prefix("capabilities:").unwrap_or(key);
        let wanted = value.strip_prefix("<in> ").unwrap_or(value);
        if name == NAME {
            chosen = BACKENDS.iter().find(|b| **b == wanted).ok_or(key.as_str())?;
        } else if EITHER.contains(&(name, &wanted.to_ascii_lowercase())) {
            continue;
        } else if !name.contains(':') && !CAPABILITIES.contains(&(name, wanted)) {
            return Err(key);
        }
    }
    Ok(chosen.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(node: &str, size_gb: u64, free_gb: u64, provisioned_gb: u64) -> Pool {
        let (size, free) = (size_gb * GIB, free_gb * GIB);
        Pool { node: node.into(), size, free, disk_max: size, provisioned_gb, disabled: BTreeSet::new() }
    }

    #[test]
    fn the_node_with_the_most_room_is_chosen() {
        let pools = [pool("a", 100, 50, 300), pool("b", 100, 50, 200), pool("c", 100, 1, 0)];
        assert_eq!(choose(&pools, 10, None, Some(BACKEND)).ok(), Some("b"));
        assert_eq!(choose(&pools, 10, Some("a"), Some(BACKEND)).ok(), Some("a"));
        assert!(choose(&pools, 101, None, Some(BACKEND)).is_err(), "no disk could ever hold it");
        assert!(choose(&pools, 10, Some("c"), Some(BACKEND)).is_err(), "nearly full");
        let off = [Pool { disabled: [SINGLE].into(), ..pools[0].clone() }];
        assert!(choose(&off, 10, None, Some(SINGLE)).unwrap_err().message.contains("it is disabled"));
        assert!(choose(&off, 10, None, Some(BACKEND)).is_ok() && choose(&off, 10, None, None).is_ok());
    }

    #[test]
    fn promises_end_at_the_overcommitment() {
        let pools = [pool("a", 10, 10, 35)];
        assert!(choose(&pools, 5, None, Some(BACKEND)).is_ok());
        let refusal = choose(&pools, 6, None, Some(BACKEND)).unwrap_err();
        assert!(refusal.message.contains("only 5 GiB more"), "{refusal}");
        assert!(choose(&[], 1, None, None).unwrap_err().message.contains("no node has a healthy data disk"));
    }

    #[test]
    fn extra_specs_are_met_or_named() {
        let specs = |k: &str, v: &str| Metadata::from([(k.to_owned(), v.to_owned())]);
        let others = BTreeSet::from(["ceph".to_owned()]);
        let asked = |k: &str, v: &str| backend_for(&specs(k, v), &others).map_err(str::to_owned);
        let (usual, single) = (Ok(BACKEND.to_owned()), Ok(SINGLE.to_owned()));
        assert_eq!(asked("vendor_name", "Cairn"), usual);
        assert_eq!(asked("capabilities:vendor_name", "<in> Cairn"), usual);
        assert_eq!(asked("driver:thing", "x"), usual);
        assert_eq!(asked("vendor_name", "Other"), Err("vendor_name".into()));
        assert_eq!(asked("volume_backend_name", SINGLE), single);
        assert_eq!(asked("capabilities:volume_backend_name", BACKEND), usual);
        assert_eq!(asked("volume_backend_name", "ceph"), Ok("ceph".into()));
        assert!(asked("volume_backend_name", "other").is_err());
        assert_eq!(asked("multiattach", "<is> True"), usual);
        assert!(asked("replication_enabled", "<is> True").is_err());
    }

    #[test]
    fn hosts_have_the_names_that_are_shown() {
        assert_eq!(parse_host("n@cairn#cairn"), Some(("n", BACKEND)));
        assert_eq!(parse_host(&host_name("n", SINGLE)), Some(("n", SINGLE)));
        assert_eq!(parse_host("n"), Some(("n", BACKEND)));
        assert_eq!(parse_host("n@other"), Some(("n", "other")));
        assert!(!is_own("other") && is_own(SINGLE));
        assert_eq!(parse_host("n@cairn#other"), None);
    }
}
