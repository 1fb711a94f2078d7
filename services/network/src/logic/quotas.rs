//! Quotas: how many of each resource a project may have. Counted as they change, never by scanning.

use std::collections::BTreeMap;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;

use crate::model::quota::{Quota, Usage};

/// The resources with a quota, and how many a project may have unless its own quota says otherwise; -1 is no limit.
pub const DEFAULTS: [(&str, i64); 8] = [
    ("floatingip", 50),
    ("network", 100),
    ("port", 500),
    ("router", 10),
    ("security_group", 10),
    ("security_group_rule", 100),
    ("subnet", 100),
    ("subnetpool", -1),
];

/// A project's limits.
pub fn limits(tx: &mut Tx, project: &str) -> ApiResult<BTreeMap<String, i64>> {
    let mut limits: BTreeMap<String, i64> = DEFAULTS.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect();
    if let Some(own) = tx.get::<Quota>(project)? {
        limits.extend(own.limits);
    }
    Ok(limits)
}

/// How many of a resource a project has.
pub fn used(tx: &mut Tx, project: &str, resource: &str) -> ApiResult<u64> {
    Ok(tx.get::<Usage>(&format!("{project}/{resource}"))?.map_or(0, |u| u.count))
}

/// Counts a new one; 409 if there may be no more.
pub fn take(tx: &mut Tx, project: &str, resource: &'static str) -> ApiResult<()> {
    let count = used(tx, project, resource)?;
    let limit = limits(tx, project)?.get(resource).copied().unwrap_or(-1);
    if limit >= 0 && count >= limit as u64 {
        let message = format!("Quota exceeded for resources: ['{resource}'].");
        return Err(ApiError::conflict(message).with_code("OverQuota"));
    }
    set(tx, project, resource, count + 1)
}

/// Counts a new one that must not be refused (what the cloud makes for itself).
pub fn count(tx: &mut Tx, project: &str, resource: &'static str) -> ApiResult<()> {
    let count = used(tx, project, resource)?;
    set(tx, project, resource, count + 1)
}

/// Counts one less.
pub fn give(tx: &mut Tx, project: &str, resource: &'static str) -> ApiResult<()> {
    let count = used(tx, project, resource)?;
    set(tx, project, resource, count.saturating_sub(1))
}

fn set(tx: &mut Tx, project: &str, resource: &str, count: u64) -> ApiResult<()> {
    let usage = Usage { project_id: project.to_owned(), resource: resource.to_owned(), count };
    if count == 0 {
        return Ok(tx.delete::<Usage>(&format!("{project}/{resource}")).map(drop)?);
    }
    Ok(tx.put(&usage)?)
}
