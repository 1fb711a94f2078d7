//! Security groups: the default one of each project, and the rules that a new group begins with.

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use jiff::Timestamp;

use super::quotas;
use crate::model::{Direction, Ethertype, Port, SecurityGroup, SecurityGroupRule, Stamp};

/// The name of every project's default group.
pub const DEFAULT: &str = "default";

/// A project's default group, if it has one already.
pub fn find_default(tx: &mut Tx, project_id: &str) -> ApiResult<Option<SecurityGroup>> {
    Ok(tx.by_unique::<SecurityGroup>("default", project_id)?)
}

/// A project's default group, made on first use: its members may talk to each other and to the world.
pub fn default_of(tx: &mut Tx, project_id: &str, now: Timestamp) -> ApiResult<SecurityGroup> {
    if let Some(group) = find_default(tx, project_id)? {
        return Ok(group);
    }
    let group = SecurityGroup {
        id: uuid::Uuid::new_v4().to_string(),
        project_id: project_id.to_owned(),
        name: DEFAULT.to_owned(),
        description: "Default security group".to_owned(),
        is_default: true,
        tags: Default::default(),
        stamp: Stamp::new(now),
    };
    quotas::count(tx, project_id, "security_group")?;
    tx.put(&group)?;
    egress_rules(tx, &group, now)?;
    for ethertype in [Ethertype::V4, Ethertype::V6] {
        let mut rule = any(&group, Direction::Ingress, ethertype, now);
        rule.remote_group_id = Some(group.id.clone());
        put_rule(tx, &rule)?;
    }
    Ok(group)
}

/// Gives a new group the rules that let its members reach everything.
pub fn egress_rules(tx: &mut Tx, group: &SecurityGroup, now: Timestamp) -> ApiResult<()> {
    for ethertype in [Ethertype::V4, Ethertype::V6] {
        put_rule(tx, &any(group, Direction::Egress, ethertype, now))?;
    }
    Ok(())
}

fn put_rule(tx: &mut Tx, rule: &SecurityGroupRule) -> ApiResult<()> {
    quotas::count(tx, &rule.project_id, "security_group_rule")?;
    Ok(tx.put(rule)?)
}

fn any(
    group: &SecurityGroup,
    direction: Direction,
    ethertype: Ethertype,
    now: Timestamp,
) -> SecurityGroupRule {
    SecurityGroupRule {
        id: uuid::Uuid::new_v4().to_string(),
        project_id: group.project_id.clone(),
        security_group_id: group.id.clone(),
        description: String::new(),
        direction,
        ethertype,
        protocol: None,
        port_range_min: None,
        port_range_max: None,
        remote_ip_prefix: None,
        remote_group_id: None,
        stamp: Stamp::new(now),
    }
}

/// Removes a group that no port has, with its rules and those of other groups that name it.
pub fn delete(tx: &mut Tx, group: &SecurityGroup) -> ApiResult<()> {
    if !tx.by_index::<Port>("group", &group.id)?.is_empty() {
        let message = format!("Security Group {} in use.", group.id);
        return Err(ApiError::conflict(message).with_code("SecurityGroupInUse"));
    }
    let mut rules = tx.by_index::<SecurityGroupRule>("group", &group.id)?;
    let named = tx.by_index::<SecurityGroupRule>("remote", &group.id)?;
    rules.extend(named.into_iter().filter(|r| r.security_group_id != group.id));
    for rule in rules {
        delete_rule(tx, &rule)?;
    }
    quotas::give(tx, &group.project_id, "security_group")?;
    Ok(tx.delete::<SecurityGroup>(&group.id).map(drop)?)
}

/// Removes a rule.
pub fn delete_rule(tx: &mut Tx, rule: &SecurityGroupRule) -> ApiResult<()> {
    quotas::give(tx, &rule.project_id, "security_group_rule")?;
    Ok(tx.delete::<SecurityGroupRule>(&rule.id).map(drop)?)
}
