//! What roles imply: `/roles/{id}/implies` and `/role_inferences`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Svc;
use super::wire::{Here, Resource};
use crate::effective;
use crate::marks::MarkId;
use crate::model::{Implication, Role};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/role_inferences", get(all))
        .route("/roles/{prior}/implies", get(index))
        .route("/roles/{prior}/implies/{implied}", put(create).get(show).delete(delete))
}

/// A role as rules name it.
fn brief(role: &Role, here: &Here) -> Value {
    let mut shown = role.shown(here);
    if let Some(map) = shown.as_object_mut() {
        map.retain(|key, _| ["id", "name", "links", "description", "domain_id"].contains(&key.as_str()));
    }
    shown
}

fn links(here: &Here) -> Value {
    json!({"self": here.this})
}

async fn all(State(svc): Svc, caller: Caller, here: Here) -> ApiResult<Json<Value>> {
    policy::listing_domain(&caller)?;
    let (roles, rules) = svc
        .store
        .read(|tx| Ok::<_, ApiError>((tx.list_unfenced::<Role>()?, tx.list_unfenced::<Implication>()?)))?;
    let roles: BTreeMap<&str, &Role> = roles.iter().map(|r| (r.id.as_str(), r)).collect();
    let mut by_prior: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for rule in &rules {
        let implied = roles.get(rule.implied.as_str()).map(|r| brief(r, &here));
        by_prior.entry(&rule.prior).or_default().extend(implied);
    }
    let shown: Vec<Value> = by_prior
        .into_iter()
        .filter_map(|(prior, implies)| {
            Some(json!({"prior_role": brief(roles.get(prior)?, &here), "implies": implies}))
        })
        .collect();
    Ok(Json(json!({"role_inferences": shown, "links": links(&here)})))
}

async fn index(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(prior): Path<String>,
) -> ApiResult<Json<Value>> {
    policy::listing_domain(&caller)?;
    let (prior, implied) = svc.store.read(|tx| {
        let mut implied = Vec::new();
        for rule in tx.by_index::<Implication>("prior", &prior)? {
            implied.extend(tx.get::<Role>(&rule.implied)?);
        }
        Ok::<_, ApiError>((Role::find(tx, &prior)?, implied))
    })?;
    let implies: Vec<Value> = implied.iter().map(|r| brief(r, &here)).collect();
    let inference = json!({"prior_role": brief(&prior, &here), "implies": implies});
    Ok(Json(json!({"role_inference": inference, "links": links(&here)})))
}

fn body(prior: &Role, implied: &Role, here: &Here) -> Json<Value> {
    let inference = json!({"prior_role": brief(prior, here), "implies": brief(implied, here)});
    Json(json!({"role_inference": inference, "links": links(here)}))
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path((prior, implied)): Path<(String, String)>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let (prior, implied) = svc
        .store
        .transact(|tx| {
            let (prior, implied) = (Role::find(tx, &prior)?, Role::find(tx, &implied)?);
            refuse_bad(tx, &prior, &implied)?;
            tx.put(&Implication { prior: prior.id.clone(), implied: implied.id.clone() })?;
            MarkId::all().touch(tx)?;
            Ok::<_, ApiError>((prior, implied))
        })
        .await?;
    Ok((StatusCode::CREATED, body(&prior, &implied, &here)))
}

/// A rule must not close a circle; a global role implies no domain's own; and nothing implies admin.
fn refuse_bad(tx: &mut Tx, prior: &Role, implied: &Role) -> ApiResult<()> {
    if prior.domain_id.is_none() && implied.domain_id.is_some() {
        return Err(ApiError::forbidden("A global role cannot imply a domain's own role."));
    }
    if implied.name == "admin" && implied.domain_id.is_none() {
        return Err(ApiError::forbidden("The role admin cannot be implied."));
    }
    let follows = effective::implied(tx, [implied.id.clone()].into())?;
    match follows.contains(&prior.id) {
        true => Err(ApiError::bad_request("The rule would make a role imply itself.")),
        false => Ok(()),
    }
}

/// GET shows the rule, HEAD only says (204) that it is there.
async fn show(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    method: Method,
    Path((prior, implied)): Path<(String, String)>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    policy::listing_domain(&caller)?;
    let (prior, implied) = svc.store.read(|tx| {
        rule(tx, &prior, &implied)?;
        Ok::<_, ApiError>((Role::find(tx, &prior)?, Role::find(tx, &implied)?))
    })?;
    let status = if method == Method::HEAD { StatusCode::NO_CONTENT } else { StatusCode::OK };
    Ok((status, body(&prior, &implied, &here)))
}

async fn delete(
    State(svc): Svc,
    caller: Caller,
    Path((prior, implied)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let id = rule(tx, &prior, &implied)?;
            tx.delete::<Implication>(&id)?;
            MarkId::all().touch(tx)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn rule(tx: &mut Tx, prior: &str, implied: &str) -> ApiResult<String> {
    let id = format!("{prior}/{implied}");
    match tx.get::<Implication>(&id)? {
        Some(_) => Ok(id),
        None => Err(ApiError::not_found("The rule", &id)),
    }
}
