//! Volumes whose content is not on the nodes' disks: backends that an operator made known. Where such a volume goes, whether
//! it fits, and what it cannot be asked for.
//!
//! A backend is one for the whole cloud, however many nodes use it: its pool is shown once, and one record counts what it
//! was promised. A volume has a node all the same, which looks after it.

use std::collections::BTreeSet;

use cairn_gateway::{ApiError, ApiResult};
use cairn_shards::external::model::{Backend, BackendStatus};
use cairn_shards::model::VolumeSpec;
use cairn_shards::replication::set::ReplicaSet;
use cairn_state::{Abort, Tx};

use crate::capacity::{self, EITHER, OVERCOMMIT, host_name, is_own, service_host};
use crate::model::{Disabled, GIB, Metadata, Provisioned, Volume};

/// What such backends are shown to be on: no node, all of them.
pub const HOST: &str = "cairn";
/// What they are capable of beside their name, as types' extra specs ask for it.
pub const CAPABILITIES: [(&str, &str); 2] = [("vendor_name", "Ceph"), ("storage_protocol", "ceph")];

/// A backend's pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The backend.
    pub backend: String,
    /// Bytes that volumes may take in all.
    pub size: u64,
    /// Bytes that they may still take.
    pub free: u64,
    /// GiB promised.
    pub provisioned_gb: u64,
    /// Whether any node reaches it.
    pub up: bool,
    /// Whether it is given no new volumes, and why.
    pub disabled: Option<Disabled>,
}

impl Pool {
    fn room_gb(&self) -> u64 {
        (self.size * OVERCOMMIT / GIB).saturating_sub(self.provisioned_gb)
    }

    fn refusal(&self, gigabytes: u64, is_new: bool) -> Option<String> {
        if !self.up {
            return Some("no node reaches it".into());
        }
        if is_new && self.disabled.is_some() {
            return Some("it is disabled".into());
        }
        let room = self.room_gb();
        (gigabytes > room).then(|| format!("only {room} GiB more may be promised there"))
    }
}

/// The names of these backends.
pub fn names(tx: &mut Tx) -> Result<BTreeSet<String>, Abort> {
    Ok(tx.list_unfenced::<Backend>()?.into_iter().map(|b| b.name).collect())
}

/// What is in whose name promised: a node's room, or that of a backend elsewhere.
fn account<'a>(backend: &str, node: &'a str) -> std::borrow::Cow<'a, str> {
    if is_own(backend) { node.into() } else { service_host(HOST, backend).into() }
}

/// The node that a host's name shows for a volume.
pub fn shown_node<'a>(backend: &str, node: &'a str) -> &'a str {
    if is_own(backend) { node } else { HOST }
}

/// The pools of all of them.
pub fn pools(tx: &mut Tx) -> Result<Vec<Pool>, Abort> {
    let told = tx.list_unfenced::<BackendStatus>()?;
    let mut pools = Vec::new();
    for backend in tx.list_unfenced::<Backend>()? {
        let of = told.iter().filter(|s| s.backend == backend.name);
        let best = of.max_by_key(|s| (s.error.is_none(), s.size));
        let host = service_host(HOST, &backend.name);
        pools.push(Pool {
            size: best.map_or(0, |s| s.size),
            free: best.map_or(0, |s| s.free),
            up: best.is_some_and(|s| s.error.is_none()),
            provisioned_gb: tx.get::<Provisioned>(&host)?.map_or(0, |p| p.gigabytes),
            disabled: tx.get::<Disabled>(&host)?,
            backend: backend.name,
        });
    }
    Ok(pools)
}

/// The name of a backend's pool, as `os-vol-host-attr:host` shows it.
pub fn host_of(volume: &Volume) -> String {
    host_name(shown_node(&volume.backend, &volume.node), &volume.backend)
}

/// Promises room for a volume or a snapshot, and answers the node that looks after it. `near` is the one it must be on in a
/// backend of nodes, and the one preferred elsewhere. What belongs to what is there already (`is_new` is false then) a
/// disabled backend takes, too.
pub fn place(
    tx: &mut Tx,
    gigabytes: u64,
    near: Option<&str>,
    backend: &str,
    is_new: bool,
    source: Option<&VolumeSpec>,
) -> ApiResult<String> {
    if is_own(backend) {
        return capacity::place(tx, gigabytes, near, is_new.then_some(backend));
    }
    admit(tx, gigabytes, gigabytes, backend, is_new)?;
    let told = tx.list_unfenced::<BackendStatus>()?;
    let reach = told.into_iter().filter(|s| s.backend == backend && s.error.is_none());
    let mut best: Option<(bool, bool, String)> = None;
    for status in reach {
        let has_source = source.map_or(Ok(true), |spec| has(tx, spec, &status.node))?;
        let candidate = (has_source, near == Some(status.node.as_str()), status.node);
        if best.as_ref().is_none_or(|b| (candidate.0, candidate.1) > (b.0, b.1)) {
            best = Some(candidate);
        }
    }
    match best {
        Some((true, _, node)) => Ok(node),
        Some(_) => Err(capacity::no_room(
            gigabytes,
            &[format!("{backend}: no node that reaches it has the image it is to be made of")],
        )),
        None => Err(capacity::no_room(gigabytes, &[format!("{backend}: no node reaches it")])),
    }
}

/// Whether a node has what a volume is to be made of.
fn has(tx: &mut Tx, source: &VolumeSpec, node: &str) -> Result<bool, Abort> {
    if source.backend.is_some() {
        return Ok(true);
    }
    Ok(match tx.get::<ReplicaSet>(&source.id)? {
        Some(set) => set.whole_on(node).is_some(),
        None => source.node == node,
    })
}

fn admit(tx: &mut Tx, to_gb: u64, by_gb: u64, backend: &str, is_new: bool) -> ApiResult<()> {
    let pool = pools(tx)?.into_iter().find(|p| p.backend == backend);
    let refusal = match &pool {
        Some(pool) => pool.refusal(by_gb, is_new),
        None => Some("there is no such backend any more".to_owned()),
    };
    match refusal {
        Some(why) => Err(capacity::no_room(to_gb, &[format!("{backend}: {why}")])),
        None => Ok(capacity::promise(tx, &account(backend, ""), by_gb)?),
    }
}

/// Promises a volume that is there already this much more room.
pub fn grow(tx: &mut Tx, backend: &str, node: &str, to_gb: u64, by_gb: u64) -> ApiResult<()> {
    if is_own(backend) {
        capacity::grow(tx, node, to_gb, by_gb)
    } else {
        admit(tx, to_gb, by_gb, backend, false)
    }
}

/// Takes a promise back.
pub fn release(tx: &mut Tx, backend: &str, node: &str, gigabytes: u64) -> Result<(), Abort> {
    capacity::release(tx, &account(backend, node), gigabytes)
}

/// The backend's name in a volume's spec: of one that the nodes' engine keeps, none.
pub fn keeper(backend: &str) -> Option<String> {
    (!is_own(backend)).then(|| backend.to_owned())
}

/// Whether such a backend has what a type's extra specs ask for beside its name; else the first that it has not.
pub fn meets<'a>(extra_specs: &'a Metadata, name_spec: &str) -> Result<(), &'a str> {
    for (key, value) in extra_specs {
        let name = key.strip_prefix("capabilities:").unwrap_or(key);
        let wanted = value.strip_prefix("<in> ").unwrap_or(value);
        let met = name == name_spec
            || name.contains(':')
            || EITHER.contains(&(name, &wanted.to_ascii_lowercase()))
            || CAPABILITIES.contains(&(name, wanted));
        if !met {
            return Err(key);
        }
    }
    Ok(())
}

/// Refuses what volumes in such a backend are not asked for: `what` is a sentence's object, as "A backup of".
pub fn refuse(backend: &str, what: &str, id: &str) -> ApiResult<()> {
    if is_own(backend) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "Invalid volume: {what} volume {id} is not supported by its backend {backend}."
    )))
}

/// Refuses to make a volume of what is in another backend; images go anywhere.
pub fn require_same(
    source: Option<&VolumeSpec>,
    is_image: bool,
    backend: &str,
    encrypted: bool,
) -> ApiResult<()> {
    let wanted = keeper(backend);
    if wanted.is_some() && (encrypted || source.is_some_and(|s| s.key.is_some())) {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: encryption is not supported by the backend {backend}."
        )));
    }
    match source.filter(|_| !is_image) {
        Some(source) if source.backend != wanted => Err(ApiError::bad_request(format!(
            "Invalid volume: its source is in another backend than {backend}, which the type means."
        ))),
        _ => Ok(()),
    }
}

/// Whether a part of a host's name is one of these backends.
pub fn exists(tx: &mut Tx, host: &str, backend: &str) -> Result<bool, Abort> {
    Ok(host == HOST && tx.get::<Backend>(backend)?.is_some())
}
