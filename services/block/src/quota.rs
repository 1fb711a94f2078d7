//! What a project may use, and what it uses. Counted in one record per project, inside the transaction that
//! makes or ends a volume, so that two requests can never pass a limit together.
//!
//! Volumes, snapshots and gigabytes have limits for each type too, called `volumes_TYPE` and so on.

use std::collections::BTreeMap;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::{Abort, Tx};

use crate::model::{QuotaSet, Usage};
use crate::types;

/// The record that holds the defaults an administrator has set.
pub const DEFAULT_CLASS: &str = "class:default";

/// The limits and their built-in defaults. -1 is none.
pub const BUILT_IN: [(&str, i64); 7] = [
    ("volumes", 10),
    ("snapshots", 10),
    ("gigabytes", 1000),
    ("per_volume_gigabytes", -1),
    ("backups", 10),
    ("backup_gigabytes", 1000),
    ("groups", 10),
];

/// What has a limit for each type of volumes, with none at first.
const BY_TYPE: [&str; 3] = ["volumes", "snapshots", "gigabytes"];

/// A change of what a project uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delta<'a> {
    /// Volumes more.
    pub volumes: u64,
    /// Snapshots more.
    pub snapshots: u64,
    /// GiB more.
    pub gigabytes: u64,
    /// Groups more.
    pub groups: u64,
    /// Backups more.
    pub backups: u64,
    /// GiB of backups more.
    pub backup_gigabytes: u64,
    /// The type of what there is more of, by its id; empty for none.
    pub of_type: &'a str,
}

impl<'a> Delta<'a> {
    /// One volume of this size and type.
    pub fn volume(gigabytes: u64, of_type: &'a str) -> Delta<'a> {
        Delta { volumes: 1, gigabytes, of_type, ..Delta::default() }
    }

    /// One snapshot of this size and type.
    pub fn snapshot(gigabytes: u64, of_type: &'a str) -> Delta<'a> {
        Delta { snapshots: 1, gigabytes, of_type, ..Delta::default() }
    }

    /// One group.
    pub fn group() -> Delta<'a> {
        Delta { groups: 1, ..Delta::default() }
    }

    /// One backup of a volume of this size.
    pub fn backup(backup_gigabytes: u64) -> Delta<'a> {
        Delta { backups: 1, backup_gigabytes, ..Delta::default() }
    }
}

/// The limits of projects that have none of their own.
pub fn defaults(tx: &mut Tx) -> Result<BTreeMap<String, i64>, Abort> {
    let mut limits: BTreeMap<_, _> = BUILT_IN.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    for of_type in types::all(tx)? {
        limits.extend(BY_TYPE.iter().map(|what| (format!("{what}_{}", of_type.name), -1)));
    }
    let set = tx.get::<QuotaSet>(DEFAULT_CLASS)?.unwrap_or_default().limits;
    // Limits of types that are gone mean nothing any more.
    let known = set.into_iter().filter(|(name, _)| limits.contains_key(name));
    let known: Vec<_> = known.collect();
    limits.extend(known);
    Ok(limits)
}

/// The limits of a project.
pub fn limits(tx: &mut Tx, project: &str) -> Result<BTreeMap<String, i64>, Abort> {
    let mut limits = defaults(tx)?;
    let set = tx.get::<QuotaSet>(project)?.unwrap_or_default().limits;
    let known: Vec<_> = set.into_iter().filter(|(name, _)| limits.contains_key(name)).collect();
    limits.extend(known);
    Ok(limits)
}

/// What a project uses.
pub fn usage(tx: &mut Tx, project: &str) -> Result<Usage, Abort> {
    let found = tx.get::<Usage>(project)?;
    Ok(found.unwrap_or_else(|| Usage { project_id: project.into(), ..Usage::default() }))
}

/// What a project uses, by the names of the limits.
pub fn used(tx: &mut Tx, usage: &Usage) -> Result<BTreeMap<String, u64>, Abort> {
    let plain = [
        ("volumes", usage.volumes),
        ("snapshots", usage.snapshots),
        ("gigabytes", usage.gigabytes),
        ("groups", usage.groups),
        ("backups", usage.backups),
        ("backup_gigabytes", usage.backup_gigabytes),
    ];
    let mut used: BTreeMap<String, u64> = plain.map(|(name, n)| (name.to_owned(), n)).into();
    for of_type in types::all(tx)? {
        let own = usage.by_type.get(&of_type.id).copied().unwrap_or_default();
        for (what, n) in BY_TYPE.iter().zip([own.volumes, own.snapshots, own.gigabytes]) {
            used.insert(format!("{what}_{}", of_type.name), n);
        }
    }
    Ok(used)
}

/// Counts more; 413 if that would pass a limit.
pub fn charge(tx: &mut Tx, project: &str, more: Delta) -> ApiResult<()> {
    let limits = limits(tx, project)?;
    let mut now = usage(tx, project)?;
    let within = |name: &str, used: u64, more: u64| {
        let limit = limits.get(name).copied().unwrap_or(-1);
        if more > 0 && limit >= 0 && used + more > limit as u64 {
            return Err(exceeded(name, used, more, limit));
        }
        Ok(())
    };
    within("volumes", now.volumes, more.volumes)?;
    within("snapshots", now.snapshots, more.snapshots)?;
    within("gigabytes", now.gigabytes, more.gigabytes)?;
    within("groups", now.groups, more.groups)?;
    within("backups", now.backups, more.backups)?;
    within("backup_gigabytes", now.backup_gigabytes, more.backup_gigabytes)?;
    if let Some(of_type) = types::stored(tx, more.of_type)? {
        let own = now.by_type.entry(of_type.id).or_default();
        within(&format!("volumes_{}", of_type.name), own.volumes, more.volumes)?;
        within(&format!("snapshots_{}", of_type.name), own.snapshots, more.snapshots)?;
        within(&format!("gigabytes_{}", of_type.name), own.gigabytes, more.gigabytes)?;
        own.volumes += more.volumes;
        own.snapshots += more.snapshots;
        own.gigabytes += more.gigabytes;
    }
    now.volumes += more.volumes;
    now.snapshots += more.snapshots;
    now.gigabytes += more.gigabytes;
    now.groups += more.groups;
    now.backups += more.backups;
    now.backup_gigabytes += more.backup_gigabytes;
    Ok(tx.put(&now)?)
}

/// Refuses a volume that is larger than the project may have one.
pub fn check_size(tx: &mut Tx, project: &str, gigabytes: u64) -> ApiResult<()> {
    let limit = limits(tx, project)?.get("per_volume_gigabytes").copied().unwrap_or(-1);
    if limit >= 0 && gigabytes > limit as u64 {
        return Err(exceeded("per_volume_gigabytes", 0, gigabytes, limit));
    }
    Ok(())
}

/// Counts less.
pub fn refund(tx: &mut Tx, project: &str, less: Delta) -> Result<(), Abort> {
    let mut now = usage(tx, project)?;
    now.volumes = now.volumes.saturating_sub(less.volumes);
    now.snapshots = now.snapshots.saturating_sub(less.snapshots);
    now.gigabytes = now.gigabytes.saturating_sub(less.gigabytes);
    now.groups = now.groups.saturating_sub(less.groups);
    now.backups = now.backups.saturating_sub(less.backups);
    now.backup_gigabytes = now.backup_gigabytes.saturating_sub(less.backup_gigabytes);
    if let Some(own) = now.by_type.get_mut(less.of_type) {
        own.volumes = own.volumes.saturating_sub(less.volumes);
        own.snapshots = own.snapshots.saturating_sub(less.snapshots);
        own.gigabytes = own.gigabytes.saturating_sub(less.gigabytes);
        if own.volumes + own.snapshots + own.gigabytes == 0 {
            now.by_type.remove(less.of_type);
        }
    }
    tx.put(&now)
}

fn exceeded(name: &str, used: u64, more: u64, limit: i64) -> ApiError {
    ApiError::too_large(format!(
        "Requested {name} exceeds allowed quota: {used} used, {more} more requested, the limit is {limit}."
    ))
}
