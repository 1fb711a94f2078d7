//! What a project may use, and what it uses. Counted in one record per project, inside the transaction that
//! makes or ends a volume, so that two requests can never pass a limit together.

use std::collections::BTreeMap;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::{Abort, Tx};

use crate::model::{QuotaSet, Usage};

/// The record that holds the defaults an administrator has set.
pub const DEFAULT_CLASS: &str = "class:default";

/// The limits and their built-in defaults. -1 is none. Backups are not built; their limits are kept
/// because clients read and write all of them together.
pub const BUILT_IN: [(&str, i64); 7] = [
    ("volumes", 10),
    ("snapshots", 10),
    ("gigabytes", 1000),
    ("per_volume_gigabytes", -1),
    ("backups", 10),
    ("backup_gigabytes", 1000),
    ("groups", 10),
];

/// A change of what a project uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delta {
    /// Volumes more.
    pub volumes: u64,
    /// Snapshots more.
    pub snapshots: u64,
    /// GiB more.
    pub gigabytes: u64,
    /// Groups more.
    pub groups: u64,
}

impl Delta {
    /// One volume of this size.
    pub fn volume(gigabytes: u64) -> Delta {
        Delta { volumes: 1, gigabytes, ..Delta::default() }
    }

    /// One snapshot of this size.
    pub fn snapshot(gigabytes: u64) -> Delta {
        Delta { snapshots: 1, gigabytes, ..Delta::default() }
    }

    /// One group.
    pub fn group() -> Delta {
        Delta { groups: 1, ..Delta::default() }
    }
}

/// The limits of projects that have none of their own.
pub fn defaults(tx: &mut Tx) -> Result<BTreeMap<String, i64>, Abort> {
    let mut limits: BTreeMap<_, _> = BUILT_IN.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    limits.extend(tx.get::<QuotaSet>(DEFAULT_CLASS)?.unwrap_or_default().limits);
    Ok(limits)
}

/// The limits of a project.
pub fn limits(tx: &mut Tx, project: &str) -> Result<BTreeMap<String, i64>, Abort> {
    let mut limits = defaults(tx)?;
    limits.extend(tx.get::<QuotaSet>(project)?.unwrap_or_default().limits);
    Ok(limits)
}

/// What a project uses.
pub fn usage(tx: &mut Tx, project: &str) -> Result<Usage, Abort> {
    let found = tx.get::<Usage>(project)?;
    Ok(found.unwrap_or_else(|| Usage { project_id: project.into(), ..Usage::default() }))
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
    now.volumes += more.volumes;
    now.snapshots += more.snapshots;
    now.gigabytes += more.gigabytes;
    now.groups += more.groups;
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
    tx.put(&now)
}

fn exceeded(name: &str, used: u64, more: u64, limit: i64) -> ApiError {
    ApiError::too_large(format!(
        "Requested {name} exceeds allowed quota: {used} used, {more} more requested, the limit is {limit}."
    ))
}
