//! What a project may have, and the count of what it has, which every change of servers keeps.

use std::collections::BTreeMap;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::{Abort, Tx};

use crate::model::{FlavorSnapshot, Quota, Usage};

/// A counted resource and its limit where nobody set another; -1 is "without limit".
pub const DEFAULTS: [(&str, i64); 14] = [
    ("instances", 10),
    ("cores", 20),
    ("ram", 51_200),
    ("floating_ips", -1),
    ("fixed_ips", -1),
    ("metadata_items", 128),
    ("injected_files", 5),
    ("injected_file_content_bytes", 10_240),
    ("injected_file_path_bytes", 255),
    ("key_pairs", 100),
    ("security_groups", -1),
    ("security_group_rules", -1),
    ("server_groups", 10),
    ("server_group_members", 10),
];

/// The id of the record that changes the defaults of all projects.
pub const CLASS: &str = "class:default";

/// The limits of every project that has none of its own.
pub fn defaults(tx: &mut Tx) -> Result<BTreeMap<String, i64>, Abort> {
    let mut limits: BTreeMap<_, _> = DEFAULTS.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    if let Some(class) = tx.get::<Quota>(CLASS)? {
        limits.extend(class.limits);
    }
    Ok(limits)
}

/// A project's limits.
pub fn limits(tx: &mut Tx, project_id: &str) -> Result<BTreeMap<String, i64>, Abort> {
    let mut limits = defaults(tx)?;
    if let Some(own) = tx.get::<Quota>(project_id)? {
        limits.extend(own.limits);
    }
    Ok(limits)
}

/// One limit of a project.
pub fn limit(tx: &mut Tx, project_id: &str, resource: &str) -> Result<i64, Abort> {
    Ok(limits(tx, project_id)?.get(resource).copied().unwrap_or(-1))
}

/// What a project has.
pub fn usage(tx: &mut Tx, project_id: &str) -> Result<Usage, Abort> {
    let none = || Usage { project_id: project_id.into(), ..Usage::default() };
    Ok(tx.get::<Usage>(project_id)?.unwrap_or_else(none))
}

/// How many of `wanted` servers (at least `least`) the project may still have; 403 if not even that many.
pub fn admit(
    tx: &mut Tx,
    project_id: &str,
    flavor: &FlavorSnapshot,
    least: u32,
    wanted: u32,
) -> ApiResult<u32> {
    let (limits, used) = (limits(tx, project_id)?, usage(tx, project_id)?);
    let rows = rows(&used, flavor);
    let fit = rows.iter().map(|(name, used, each)| fit_count(limits.get(*name).copied(), *used, *each)).min();
    let admitted = fit.unwrap_or(i64::MAX).clamp(0, i64::from(wanted)) as u32;
    if admitted >= least.max(1) {
        return Ok(admitted);
    }
    let over = rows.iter().filter(|(name, used, each)| {
        fit_count(limits.get(*name).copied(), *used, *each) < i64::from(least.max(1))
    });
    Err(refusal(over, least.max(1), &limits))
}

type Row = (&'static str, i64, i64);

fn rows(used: &Usage, flavor: &FlavorSnapshot) -> [Row; 3] {
    [
        ("instances", used.instances, 1),
        ("cores", used.cores, i64::from(flavor.vcpus)),
        ("ram", used.ram_mb, flavor.ram_mb as i64),
    ]
}

fn fit_count(limit: Option<i64>, used: i64, each: i64) -> i64 {
    match limit {
        Some(limit) if limit >= 0 && each > 0 => (limit - used).max(0) / each,
        _ => i64::MAX,
    }
}

fn refusal<'a>(over: impl Iterator<Item = &'a Row>, count: u32, limits: &BTreeMap<String, i64>) -> ApiError {
    let (mut names, mut asked, mut used, mut allowed) = (vec![], vec![], vec![], vec![]);
    for (name, in_use, each) in over {
        names.push(*name);
        asked.push((each * i64::from(count)).to_string());
        used.push(in_use.to_string());
        allowed.push(limits.get(*name).copied().unwrap_or(-1).to_string());
    }
    ApiError::forbidden(format!(
        "Quota exceeded for {}: Requested {}, but already used {} of {} {}",
        names.join(", "),
        asked.join(", "),
        used.join(", "),
        allowed.join(", "),
        names.join(", ")
    ))
}

/// Counts `count` servers of this flavor more (or, negative, less).
pub fn count(tx: &mut Tx, project_id: &str, flavor: &FlavorSnapshot, count: i64) -> Result<(), Abort> {
    let mut usage = usage(tx, project_id)?;
    usage.instances = (usage.instances + count).max(0);
    usage.cores = (usage.cores + count * i64::from(flavor.vcpus)).max(0);
    usage.ram_mb = (usage.ram_mb + count * flavor.ram_mb as i64).max(0);
    tx.put(&usage)
}

/// Counts a server with one flavor instead of another.
pub fn exchange(
    tx: &mut Tx,
    project_id: &str,
    from: &FlavorSnapshot,
    to: &FlavorSnapshot,
) -> Result<(), Abort> {
    if from == to {
        return Ok(());
    }
    count(tx, project_id, from, -1)?;
    count(tx, project_id, to, 1)
}

/// Refuses with 403 a flavor by which the project would have more than it may.
pub fn admit_exchange(
    tx: &mut Tx,
    project_id: &str,
    from: &FlavorSnapshot,
    to: &FlavorSnapshot,
) -> ApiResult<()> {
    let (limits, used) = (limits(tx, project_id)?, usage(tx, project_id)?);
    let more = [
        ("cores", used.cores, i64::from(to.vcpus) - i64::from(from.vcpus)),
        ("ram", used.ram_mb, to.ram_mb as i64 - from.ram_mb as i64),
    ];
    let over = |(name, used, more): &&Row| {
        limits.get(*name).is_some_and(|l| *l >= 0 && *more > 0 && used + more > *l)
    };
    match more.iter().any(|row| over(&row)) {
        true => Err(refusal(more.iter().filter(over), 1, &limits)),
        false => Ok(()),
    }
}

/// Refuses with 403 when `have` plus one is beyond the project's limit.
pub fn admit_one(tx: &mut Tx, project_id: &str, resource: &'static str, have: usize) -> ApiResult<()> {
    let limit = limit(tx, project_id, resource)?;
    if limit >= 0 && have as i64 >= limit {
        return Err(ApiError::forbidden(format!("Quota exceeded, too many {}.", resource.replace('_', " "))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::server;
    use cairn_state::LocalStore;

    #[tokio::test]
    async fn a_project_gets_what_fits_and_no_more() {
        let store = LocalStore::in_memory().unwrap();
        let flavor = FlavorSnapshot { vcpus: 4, ..server("s").flavor };
        let admit = |tx: &mut Tx, least, wanted| admit(tx, "p", &flavor, least, wanted);
        assert_eq!(store.read(|tx| admit(tx, 1, 9)).unwrap(), 5, "20 cores are 5 servers of 4");
        store.transact(|tx| count(tx, "p", &flavor, 4)).await.unwrap();
        assert_eq!(store.read(|tx| admit(tx, 1, 9)).unwrap(), 1);
        let refused = store.read(|tx| admit(tx, 2, 9)).unwrap_err();
        assert_eq!(refused.status.as_u16(), 403);
        assert_eq!(refused.message, "Quota exceeded for cores: Requested 8, but already used 16 of 20 cores");
        let own = Quota { project_id: "p".into(), limits: [("cores".into(), -1)].into() };
        store.transact(|tx| tx.put(&own)).await.unwrap();
        assert_eq!(store.read(|tx| admit(tx, 2, 9)).unwrap(), 6, "the limit of 10 instances is next");
    }
}
