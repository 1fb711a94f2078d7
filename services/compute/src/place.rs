//! Which node a server goes to, new or moving: gathers what the scheduler is to know, in the server's transaction.

use std::collections::{BTreeMap, BTreeSet};

use cairn_gateway::ApiResult;
use cairn_placement::claims::{self, Resources};
use cairn_state::Tx;
use serde_json::Value;

use crate::model::{HostStatus, Server, ServerGroup};
use crate::scheduler::{self, Host, Spread, Wanted};
use crate::zones;

/// What a server needs of its next node.
#[derive(Debug, Clone, Default)]
pub struct Need {
    /// Its resources.
    pub resources: Resources,
    /// The zone it must be in.
    pub zone: Option<String>,
    /// The node it must be on.
    pub host: Option<String>,
    /// The nodes it must not be on.
    pub none_of: BTreeSet<String>,
    /// The group it is in.
    pub group: Option<ServerGroup>,
    /// Its user's hints.
    pub hints: BTreeMap<String, Value>,
    /// The kind of machine its node must be, see [`platform`].
    pub platform: Option<String>,
    /// The server itself, if it is on a node already.
    pub server: Option<String>,
}

impl Need {
    /// What a server that is on a node needs to be on another.
    pub fn of(tx: &mut Tx, server: &Server, resources: Resources) -> ApiResult<Need> {
        let group = match &server.group {
            Some(id) => tx.get::<ServerGroup>(id)?,
            None => None,
        };
        Ok(Need {
            resources,
            zone: server.pinned_zone.clone(),
            host: None,
            none_of: server.host.iter().cloned().collect(),
            group,
            hints: server.hints.clone(),
            platform: None,
            server: Some(server.id.clone()),
        })
    }
}

/// What must be equal for a running guest to go from one node to another.
pub fn platform(host: &HostStatus) -> String {
    match host.accelerator.as_str() {
        "kvm" => format!("kvm/{}/{}", host.arch, host.cpu_model),
        other => format!("{other}/{}", host.arch),
    }
}

/// The best node, if any will do.
pub fn choose(tx: &mut Tx, need: &Need) -> ApiResult<Option<String>> {
    let views = zones::hosts(tx)?;
    let members = match &need.group {
        Some(group) => members(tx, &group.id, need.server.as_deref())?,
        None => Vec::new(),
    };
    let mut hosts = Vec::new();
    for candidate in claims::candidates(tx, &need.resources)? {
        let Some(view) = views.iter().find(|v| v.status.node == candidate.name) else { continue };
        hosts.push(Host {
            group_members: members.iter().filter(|h| **h == candidate.name).count() as u32,
            name: candidate.name,
            enabled: !view.policy.disabled,
            up: view.up,
            zone: view.zone.clone(),
            platform: platform(&view.status),
            free_memory_mb: candidate.free.memory_mb,
            free_vcpus: candidate.free.vcpus,
        });
    }
    let mut none_of = hinted_hosts(tx, &need.hints, "different_host")?;
    none_of.extend(need.none_of.iter().cloned());
    let wanted = Wanted {
        zone: need.zone.clone(),
        host: need.host.clone(),
        one_of: hinted_hosts(tx, &need.hints, "same_host")?,
        none_of,
        platform: need.platform.clone(),
        spread: need.group.as_ref().map(|g| spread(g, &members)),
    };
    Ok(scheduler::choose(&hosts, &wanted).map(|h| h.name.clone()))
}

/// The nodes of a group's members, but for one.
pub fn members(tx: &mut Tx, group: &str, except: Option<&str>) -> ApiResult<Vec<String>> {
    let all = tx.by_index::<Server>("group", group)?;
    let others = all.into_iter().filter(|s| !s.deleted && Some(s.id.as_str()) != except);
    // One that moves counts on both sides.
    Ok(others.flat_map(|s| s.host.into_iter().chain(s.moving.map(|m| m.to))).collect())
}

fn spread(group: &ServerGroup, members: &[String]) -> Spread {
    let soft = group.policy.starts_with("soft-");
    match group.policy.trim_start_matches("soft-") {
        "affinity" => Spread::Together { on: members.first().cloned(), soft },
        _ => Spread::Apart { max: group.max_server_per_host.unwrap_or(1), soft },
    }
}

/// The nodes of the servers that a hint names.
fn hinted_hosts(tx: &mut Tx, hints: &BTreeMap<String, Value>, key: &str) -> ApiResult<BTreeSet<String>> {
    let ids = hints.get(key).map(crate::api::hint_ids).unwrap_or_default();
    let mut hosts = BTreeSet::new();
    for id in ids {
        hosts.extend(tx.get::<Server>(&id)?.and_then(|s| s.host));
    }
    Ok(hosts)
}
