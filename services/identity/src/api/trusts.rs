//! `/OS-TRUST/trusts`.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::ask::{Ask, Holder};
use super::attrs::Attrs;
use super::resource::{self, Delete, Made, Managed, Shown};
use super::wire::{Here, Resource, candidates, list, present};
use crate::cascade;
use crate::clock;
use crate::effective;
use crate::model::{Role, Target, Trust, User, new_id, scoped};
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/OS-TRUST/trusts", get(resource::list::<Lent>).post(create))
        .route("/OS-TRUST/trusts/{id}", get(resource::show::<Lent>).delete(resource::delete::<Lent>))
        .route("/OS-TRUST/trusts/{id}/roles", get(roles))
        .route("/OS-TRUST/trusts/{id}/roles/{part}", get(role))
}

/// A trust and the roles it lends, as far as there still are any. Lists leave the roles out.
struct Lent {
    trust: Trust,
    roles: Vec<Role>,
}

impl Resource for Lent {
    const ONE: &'static str = "trust";
    const MANY: &'static str = "trusts";

    fn path(&self) -> String {
        format!("OS-TRUST/trusts/{}", self.trust.id)
    }

    fn view(&self) -> Value {
        let trust = &self.trust;
        json!({
            "id": trust.id, "trustor_user_id": trust.trustor_user_id, "trustee_user_id": trust.trustee_user_id,
            "impersonation": trust.impersonation, "project_id": trust.project_id, "deleted_at": null,
            "expires_at": trust.expires_s.map(clock::show_s), "remaining_uses": trust.remaining_uses,
            "redelegation_count": 0,
        })
    }

    fn item(&self, here: &Here) -> Value {
        self.linked(here)
    }

    fn shown(&self, here: &Here) -> Value {
        let mut shown = self.linked(here);
        shown["roles"] = self.roles.iter().map(|r| r.shown(here)).collect();
        let link = format!("{}/{}/roles", here.v3, self.path());
        shown["roles_links"] = json!({"self": link, "next": null, "previous": null});
        shown
    }
}

impl Managed for Lent {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Lent>> {
        let (trustor, trustee) = (ask.query.get("trustor_user_id"), ask.query.get("trustee_user_id"));
        let is_own = [trustor, trustee].into_iter().flatten().any(|u| u == ask.caller.user_id);
        if !is_own {
            ask.caller.require_admin()?;
        }
        let mut all = match trustor {
            Some(user) => tx.by_index::<Trust>("trustor", user)?,
            None => candidates::<Trust>(tx, "trustee", trustee)?,
        };
        all.retain(|t| is_live(t) && trustee.is_none_or(|u| u == t.trustee_user_id));
        Ok(all.into_iter().map(|trust| Lent { trust, roles: vec![] }).collect())
    }

    /// Only for its parties and admins, and not once it has ended.
    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Lent> {
        let (caller, missing) = (&ask.caller, || ApiError::not_found("trust:", &ask.id));
        let trust = tx.get::<Trust>(&ask.id)?.ok_or_else(missing)?;
        let is_party = [&trust.trustor_user_id, &trust.trustee_user_id].contains(&&caller.user_id);
        if !is_live(&trust) || !(is_party || caller.is_admin()) {
            return Err(missing());
        }
        let roles = present::<Role>(tx, &trust.roles)?;
        Ok(Lent { trust, roles })
    }

    /// Whose it is decides, not a role alone.
    fn require_writer(_: &Ask) -> ApiResult<()> {
        Ok(())
    }
}

fn is_live(trust: &Trust) -> bool {
    trust.expires_s.is_none_or(|e| e > clock::now_s())
}

/// Reads a request; the roles are still as they were named.
fn parse(mut attrs: Attrs) -> ApiResult<(Trust, Vec<Value>)> {
    let impersonation = attrs.flag("impersonation")?;
    if attrs.flag("allow_redelegation")?.unwrap_or(false) {
        return Err(ApiError::not_implemented("A trust cannot be lent on; leave out 'allow_redelegation'."));
    }
    let expires_s = clock::parse_end_us(attrs.text("expires_at")?)?.map(|us| us / 1_000_000);
    let remaining_uses = match attrs.value("remaining_uses") {
        None | Some(Value::Null) => None,
        Some(n) => Some(
            n.as_u64()
                .filter(|n| *n > 0)
                .ok_or_else(|| ApiError::bad_request("'remaining_uses' must be a number above 0."))?,
        ),
    };
    let roles = match attrs.value("roles") {
        None | Some(Value::Null) => vec![],
        Some(Value::Array(roles)) => roles,
        Some(_) => return Err(ApiError::bad_request("'roles' must be a list.")),
    };
    let trust = Trust {
        id: new_id(),
        trustor_user_id: attrs.required("trustor_user_id")?,
        trustee_user_id: attrs.required("trustee_user_id")?,
        impersonation: impersonation.ok_or_else(|| ApiError::bad_request("'impersonation' is required."))?,
        project_id: attrs.text("project_id")?,
        roles: vec![],
        expires_s,
        remaining_uses,
    };
    Ok((trust, roles))
}

async fn create(Holder(token): Holder, ask: Ask, Body(body): Body<Value>) -> Made {
    token.require_own()?;
    let (mut trust, wanted) = parse(Attrs::of(body, Lent::ONE)?)?;
    if trust.trustor_user_id != ask.caller.user_id {
        return Err(ApiError::forbidden("Only the trustor can make a trust."));
    }
    let make = |tx: &mut Tx| {
        User::find(tx, &trust.trustee_user_id)?;
        let roles = lent(tx, &trust, &wanted)?;
        trust.roles = roles.iter().map(|r| r.id.clone()).collect();
        tx.put(&trust)?;
        Ok(Lent { trust: trust.clone(), roles })
    };
    resource::made(&ask, make).await
}

/// The roles that are named, all of which the trustor must have on the project.
fn lent(tx: &mut Tx, trust: &Trust, wanted: &[Value]) -> ApiResult<Vec<Role>> {
    let Some(project) = &trust.project_id else {
        return match wanted.is_empty() {
            true => Ok(vec![]),
            false => Err(ApiError::bad_request("Roles are lent on a project; 'project_id' is missing.")),
        };
    };
    if wanted.is_empty() {
        return Err(ApiError::forbidden("At least one role must be lent."));
    }
    let held = effective::roles(tx, &trust.trustor_user_id, &Target::Project(project.clone()))?;
    wanted
        .iter()
        .map(|role| named(tx, role).and_then(|r| held.get(&r.id).cloned().ok_or_else(not_held)))
        .collect()
}

fn not_held() -> ApiError {
    ApiError::forbidden("The trustor does not have all of these roles on the project.")
}

/// The role that `{"id": ...}` or `{"name": ...}` names.
pub fn named(tx: &mut Tx, role: &Value) -> ApiResult<Role> {
    match (role["id"].as_str(), role["name"].as_str()) {
        (Some(id), _) => Role::find(tx, id),
        (None, Some(name)) => {
            tx.by_unique::<Role>("name", &scoped("", name))?.ok_or_else(|| ApiError::not_found("role:", name))
        }
        (None, None) => Err(ApiError::bad_request("A role needs an 'id' or a 'name'.")),
    }
}

impl Delete for Lent {
    fn delete(self, tx: &mut Tx, ask: &Ask) -> ApiResult<()> {
        if self.trust.trustor_user_id != ask.caller.user_id {
            ask.caller.require_admin()?;
        }
        cascade::delete_trust(tx, &self.trust)
    }
}

async fn roles(ask: Ask) -> Shown {
    let lent = ask.read(|tx| Lent::one(tx, &ask))?;
    list(&lent.roles, &ask.query, &ask.here)
}

async fn role(ask: Ask) -> Shown {
    let lent = ask.read(|tx| Lent::one(tx, &ask))?;
    let found = lent.roles.iter().find(|r| r.id == ask.part);
    found.map(|r| r.body(&ask.here)).ok_or_else(|| ApiError::not_found("role:", &ask.part))
}
