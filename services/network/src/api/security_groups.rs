//! Security groups as the API shows them. Listing them makes the project's default one, as Neutron does.

use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::attrs::{Attrs, invalid};
use super::resource::{self, Ctx, Resource, View, with};
use crate::logic::{groups, quotas};
use crate::model::{SecurityGroup, SecurityGroupRule};

impl Resource for SecurityGroup {
    const NAME: &'static str = "security_group";
    const PLURAL: &'static str = "security_groups";
    const PATH: &'static str = "security-groups";
    const TITLE: &'static str = "Security group";
    const MISSING: &'static str = "SecurityGroupNotFound";
    const READ_ONLY: &'static [&'static str] = &["security_group_rules", "shared", "tags"];

    resource::fields!(tags);

    fn unprepared(tx: &mut Tx, caller: &Caller, _: &Query) -> ApiResult<bool> {
        Ok(!caller.project_id.is_empty() && groups::find_default(tx, &caller.project_id)?.is_none())
    }

    fn prepare(tx: &mut Tx, ctx: Ctx<'_>) -> ApiResult<()> {
        groups::default_of(tx, &ctx.caller.project_id, ctx.now).map(drop)
    }

    fn view(&self, tx: &mut Tx, caller: &Caller) -> ApiResult<View> {
        let mut rules = tx.by_index::<SecurityGroupRule>("group", &self.id)?;
        rules.sort_by(|a, b| (a.stamp.created_at, &a.id).cmp(&(b.stamp.created_at, &b.id)));
        let rules = rules.iter().map(|r| r.view(tx, caller)).collect::<ApiResult<Vec<_>>>()?;
        let base = resource::view_of(&self.id, &self.project_id, &self.description, &self.stamp);
        Ok(with(
            base,
            json!({
                "name": self.name, "security_group_rules": rules, "stateful": true, "shared": false, "tags": self.tags,
            }),
        ))
    }

    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<SecurityGroup> {
        let common = resource::common(ctx, attrs)?;
        take_stateful(attrs)?;
        groups::default_of(tx, &common.project_id, ctx.now)?;
        if common.name.eq_ignore_ascii_case(groups::DEFAULT) {
            return Err(ApiError::conflict("Default security group already exists.")
                .with_code("SecurityGroupDefaultAlreadyExists"));
        }
        let group = SecurityGroup {
            id: common.id,
            project_id: common.project_id,
            name: common.name,
            description: common.description,
            is_default: false,
            tags: common.tags,
            stamp: common.stamp,
        };
        quotas::take(tx, &group.project_id, "security_group")?;
        tx.put(&group)?;
        groups::egress_rules(tx, &group, ctx.now)?;
        Ok(group)
    }

    fn update(mut self, tx: &mut Tx, _: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<SecurityGroup> {
        take_stateful(attrs)?;
        let had = self.name.clone();
        resource::rename(attrs, &mut self.name, &mut self.description)?;
        let renamed = self.name != had;
        if renamed && self.is_default {
            return Err(ApiError::conflict("Updating default security group not allowed.")
                .with_code("SecurityGroupCannotUpdateDefault"));
        }
        if renamed && self.name.eq_ignore_ascii_case(groups::DEFAULT) {
            return Err(ApiError::conflict("Default security group already exists.")
                .with_code("SecurityGroupDefaultAlreadyExists"));
        }
        tx.put(&self)?;
        Ok(self)
    }

    fn remove(self, tx: &mut Tx, ctx: Ctx<'_>) -> ApiResult<()> {
        // An administrator who clears up after a project removes its default group too.
        if self.is_default && !ctx.caller.is_admin() {
            return Err(ApiError::conflict("Insufficient rights for removing default security group.")
                .with_code("SecurityGroupCannotRemoveDefault"));
        }
        groups::delete(tx, &self)
    }
}

/// All groups are stateful.
fn take_stateful(attrs: &mut Attrs) -> ApiResult<()> {
    match attrs.flag("stateful")? {
        Some(false) => Err(invalid(
            "stateful",
            &format!("'{}' is not supported, all groups are stateful", Value::from(false)),
        )),
        _ => Ok(()),
    }
}
