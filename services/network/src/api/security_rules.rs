//! Security group rules as the API shows them.

use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use cairn_state::{Index, Record, Tx};
use serde_json::{Value, json};

use super::attrs::{self, Attrs};
use super::resource::{self, Ctx, Resource, View, with};
use crate::logic::{groups, quotas, rules};
use crate::model::{Ethertype, SecurityGroup, SecurityGroupRule};

impl Resource for SecurityGroupRule {
    const NAME: &'static str = "security_group_rule";
    const PLURAL: &'static str = "security_group_rules";
    const PATH: &'static str = "security-group-rules";
    const TITLE: &'static str = "Security group rule";
    const MISSING: &'static str = "SecurityGroupRuleNotFound";
    const INDEXED: &'static [(&'static str, &'static str)] =
        &[("security_group_id", "group"), ("remote_group_id", "remote")];
    const READ_ONLY: &'static [&'static str] = &[
        "security_group_id",
        "direction",
        "ethertype",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
        "normalized_cidr",
        "belongs_to_default_sg",
    ];

    resource::fields!();

    fn unprepared(tx: &mut Tx, caller: &Caller, query: &Query) -> ApiResult<bool> {
        SecurityGroup::unprepared(tx, caller, query)
    }

    fn prepare(tx: &mut Tx, ctx: Ctx<'_>) -> ApiResult<()> {
        SecurityGroup::prepare(tx, ctx)
    }

    fn view(&self, tx: &mut Tx, _: &Caller) -> ApiResult<View> {
        let of_default = tx.get::<SecurityGroup>(&self.security_group_id)?.is_some_and(|g| g.is_default);
        let base = resource::view_of(&self.id, &self.project_id, &self.description, &self.stamp);
        Ok(with(
            base,
            json!({
                "security_group_id": self.security_group_id, "direction": self.direction, "ethertype": self.ethertype,
                "protocol": self.protocol, "port_range_min": self.port_range_min,
                "port_range_max": self.port_range_max, "remote_ip_prefix": self.remote_ip_prefix,
                "normalized_cidr": self.remote_ip_prefix, "remote_group_id": self.remote_group_id,
                "remote_address_group_id": null, "belongs_to_default_sg": of_default,
            }),
        ))
    }

    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<SecurityGroupRule> {
        let common = resource::common(ctx, attrs)?;
        let group =
            resource::find_own::<SecurityGroup>(tx, ctx.caller, &attrs.required("security_group_id")?)?;
        let direction = rules::direction(&attrs.required("direction")?)?;
        let remote_ip_prefix = match attrs.nullable("remote_ip_prefix")?.flatten() {
            Some(text) if !text.is_empty() => Some(attrs::parse_prefix("remote_ip_prefix", &text)?),
            _ => None,
        };
        let ethertype = match attrs.nullable("ethertype")?.flatten() {
            Some(text) => rules::ethertype(&text)?,
            None => Ethertype::V4,
        };
        remote_ip_prefix.map_or(Ok(()), |p| rules::check_prefix(p, ethertype))?;
        let remote_group_id = take_remote_group(tx, ctx.caller, attrs)?;
        if remote_ip_prefix.is_some() && remote_group_id.is_some() {
            return Err(ApiError::bad_request("Only remote_ip_prefix or remote_group_id may be provided.")
                .with_code("SecurityGroupMultipleRemoteEntitiesSupplied"));
        }
        let mut rule = SecurityGroupRule {
            id: common.id,
            project_id: group.project_id.clone(),
            security_group_id: group.id,
            description: common.description,
            direction,
            ethertype,
            protocol: take_protocol(attrs, ethertype)?,
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix,
            remote_group_id,
            stamp: common.stamp,
        };
        let min = attrs.number("port_range_min", i64::MIN, i64::MAX)?.flatten();
        let max = attrs.number("port_range_max", i64::MIN, i64::MAX)?.flatten();
        (rule.port_range_min, rule.port_range_max) = rules::range(rule.protocol_number(), min, max)?;
        check_new(tx, &rule)?;
        quotas::take(tx, &rule.project_id, "security_group_rule")?;
        tx.put(&rule)?;
        Ok(rule)
    }

    fn update(mut self, tx: &mut Tx, _: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<SecurityGroupRule> {
        if let Some(description) = attrs.text("description")? {
            self.description = description;
        }
        tx.put(&self)?;
        Ok(self)
    }

    fn remove(self, tx: &mut Tx, _: Ctx<'_>) -> ApiResult<()> {
        groups::delete_rule(tx, &self)
    }
}

fn take_protocol(attrs: &mut Attrs, ethertype: Ethertype) -> ApiResult<Option<String>> {
    match attrs.take("protocol") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => rules::protocol(&text, ethertype),
        Some(Value::Number(number)) => rules::protocol(&number.to_string(), ethertype),
        Some(other) => Err(attrs::invalid("protocol", &format!("'{other}' is not a protocol"))),
    }
}

fn take_remote_group(tx: &mut Tx, caller: &Caller, attrs: &mut Attrs) -> ApiResult<Option<String>> {
    if attrs.nullable("remote_address_group_id")?.flatten().is_some() {
        return Err(attrs::invalid("remote_address_group_id", "there are no address groups"));
    }
    match attrs.nullable("remote_group_id")?.flatten() {
        Some(id) if !id.is_empty() => Ok(Some(resource::find::<SecurityGroup>(tx, caller, &id)?.id)),
        _ => Ok(None),
    }
}

/// 409 for a rule that says what another of the group says.
fn check_new(tx: &mut Tx, rule: &SecurityGroupRule) -> ApiResult<()> {
    let substance = rule.indexes().into_iter().find(|i: &Index| i.unique);
    let Some(substance) = substance else { return Ok(()) };
    match tx.by_unique::<SecurityGroupRule>(substance.name, &substance.value)? {
        None => Ok(()),
        Some(same) => {
            Err(ApiError::conflict(format!("Security group rule already exists. Rule id is {}.", same.id))
                .with_code("SecurityGroupRuleExists"))
        }
    }
}
