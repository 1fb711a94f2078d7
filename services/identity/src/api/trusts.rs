//! `/OS-TRUST/trusts`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Svc;
use super::attrs::Attrs;
use super::wire::{Here, Holder, Resource, listed};
use crate::cascade;
use crate::clock;
use crate::effective;
use crate::model::{Role, Target, Trust, User, new_id, scoped};
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/OS-TRUST/trusts", get(index).post(create))
        .route("/OS-TRUST/trusts/{id}", get(show).delete(delete))
        .route("/OS-TRUST/trusts/{id}/roles", get(roles))
        .route("/OS-TRUST/trusts/{id}/roles/{role}", get(role))
}

impl Resource for Trust {
    const ONE: &'static str = "trust";
    const MANY: &'static str = "OS-TRUST/trusts";

    /// Without its roles, which lists do not show.
    fn view(&self) -> Value {
        json!({
            "id": self.id, "trustor_user_id": self.trustor_user_id, "trustee_user_id": self.trustee_user_id,
            "impersonation": self.impersonation, "project_id": self.project_id, "deleted_at": null,
            "expires_at": self.expires_s.map(clock::show_s), "remaining_uses": self.remaining_uses,
            "redelegation_count": 0,
        })
    }
}

fn body(trust: &Trust, roles: &[Role], here: &Here) -> Json<Value> {
    let mut shown = trust.shown(here);
    shown["roles"] = roles.iter().map(|r| r.shown(here)).collect();
    let self_link = format!("{}/OS-TRUST/trusts/{}/roles", here.v3, trust.id);
    shown["roles_links"] = json!({"self": self_link, "next": null, "previous": null});
    Json(json!({"trust": shown}))
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

async fn create(
    State(svc): Svc,
    Holder(token): Holder,
    here: Here,
    Body(request): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    token.require_own()?;
    let (mut trust, wanted) = parse(Attrs::of(request, "trust")?)?;
    if trust.trustor_user_id != token.caller.user_id {
        return Err(ApiError::forbidden("Only the trustor can make a trust."));
    }
    let roles = svc
        .store
        .transact(|tx| {
            User::find(tx, &trust.trustee_user_id)?;
            let roles = lent(tx, &trust, &wanted)?;
            trust.roles = roles.iter().map(|r| r.id.clone()).collect();
            tx.put(&trust)?;
            Ok::<_, ApiError>(roles)
        })
        .await?;
    Ok((StatusCode::CREATED, body(&trust, &roles, &here)))
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

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    let (trustor, trustee) = (query.get("trustor_user_id"), query.get("trustee_user_id"));
    let is_own = [trustor, trustee].into_iter().flatten().any(|u| u == caller.user_id);
    if !is_own {
        caller.require_admin()?;
    }
    let all = svc.store.read(|tx| {
        Ok::<_, ApiError>(match (trustor, trustee) {
            (Some(user), _) => tx.by_index::<Trust>("trustor", user)?,
            (None, Some(user)) => tx.by_index::<Trust>("trustee", user)?,
            (None, None) => tx.list_unfenced::<Trust>()?,
        })
    })?;
    let fit = |t: &&Trust| is_live(t) && trustee.is_none_or(|u| u == t.trustee_user_id);
    listed("trusts", all.iter().filter(fit).map(|t| t.shown(&here)).collect(), &query, &here)
}

fn is_live(trust: &Trust) -> bool {
    trust.expires_s.is_none_or(|e| e > clock::now_s())
}

/// The trust, if it has not ended and the caller is a party to it; 404 otherwise.
fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Trust> {
    let trust = Trust::find(tx, id)?;
    let is_party = [&trust.trustor_user_id, &trust.trustee_user_id].contains(&&caller.user_id);
    match is_live(&trust) && (is_party || caller.is_admin()) {
        true => Ok(trust),
        false => Err(ApiError::not_found("trust:", id)),
    }
}

fn roles_of(tx: &mut Tx, trust: &Trust) -> ApiResult<Vec<Role>> {
    let mut roles = Vec::new();
    for id in &trust.roles {
        roles.extend(tx.get::<Role>(id)?);
    }
    Ok(roles)
}

async fn show(State(svc): Svc, caller: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let (trust, roles) = svc.store.read(|tx| {
        let trust = find(tx, &caller, &id)?;
        let roles = roles_of(tx, &trust)?;
        Ok::<_, ApiError>((trust, roles))
    })?;
    Ok(body(&trust, &roles, &here))
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            let trust = find(tx, &caller, &id)?;
            if trust.trustor_user_id != caller.user_id {
                caller.require_admin()?;
            }
            cascade::delete_trust(tx, &trust)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn roles(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    query: Query,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let roles = svc.store.read(|tx| {
        let trust = find(tx, &caller, &id)?;
        roles_of(tx, &trust)
    })?;
    super::wire::list(roles, &query, &here)
}

async fn role(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path((id, role)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let roles = svc.store.read(|tx| {
        let trust = find(tx, &caller, &id)?;
        roles_of(tx, &trust)
    })?;
    let found = roles.iter().find(|r| r.id == role);
    found.map(|r| r.body(&here)).ok_or_else(|| ApiError::not_found("role:", &role))
}
