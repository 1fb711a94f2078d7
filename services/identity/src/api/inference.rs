//! What roles imply: `/roles/{id}/implies` and `/role_inferences`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::routing::{get, put};
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::ask::Ask;
use super::resource::{Made, Shown};
use super::wire::{Here, Resource, present};
use crate::effective;
use crate::marks::MarkId;
use crate::model::{Implication, Role};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/role_inferences", get(all))
        .route("/roles/{id}/implies", get(index))
        .route("/roles/{id}/implies/{part}", put(create).get(show).delete(delete))
}

/// A role as rules name it.
fn brief(role: &Role, here: &Here) -> Value {
    let mut shown = role.shown(here);
    if let Some(map) = shown.as_object_mut() {
        map.retain(|key, _| ["id", "name", "links", "description", "domain_id"].contains(&key.as_str()));
    }
    shown
}

/// A role and the ones (or the one) it implies.
fn rule(prior: &Role, implies: Value, here: &Here) -> Value {
    json!({"prior_role": brief(prior, here), "implies": implies})
}

fn body(key: &str, rules: Value, here: &Here) -> Json<Value> {
    Json(json!({key: rules, "links": {"self": here.this}}))
}

async fn all(ask: Ask) -> Shown {
    policy::listing_domain(&ask.caller)?;
    let (roles, rules) =
        ask.read(|tx| Ok((tx.list_unfenced::<Role>()?, tx.list_unfenced::<Implication>()?)))?;
    let roles: BTreeMap<&str, &Role> = roles.iter().map(|r| (r.id.as_str(), r)).collect();
    let mut by_prior: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for rule in &rules {
        let implied = roles.get(rule.implied.as_str()).map(|r| brief(r, &ask.here));
        by_prior.entry(&rule.prior).or_default().extend(implied);
    }
    let shown = by_prior
        .into_iter()
        .filter_map(|(prior, implies)| Some(rule(roles.get(prior)?, implies.into(), &ask.here)));
    Ok(body("role_inferences", shown.collect(), &ask.here))
}

async fn index(ask: Ask) -> Shown {
    policy::listing_domain(&ask.caller)?;
    let (prior, implied) = ask.read(|tx| {
        let rules = tx.by_index::<Implication>("prior", &ask.id)?;
        let implied = present::<Role>(tx, rules.iter().map(|r| &r.implied))?;
        Ok((Role::find(tx, &ask.id)?, implied))
    })?;
    let implies = implied.iter().map(|r| brief(r, &ask.here)).collect();
    Ok(body("role_inference", rule(&prior, implies, &ask.here), &ask.here))
}

/// The roles that the path names: the one that implies, and the implied one. 404 for one that is not there.
fn both(tx: &mut Tx, ask: &Ask) -> ApiResult<(Role, Role)> {
    Ok((Role::find(tx, &ask.id)?, Role::find(tx, &ask.part)?))
}

fn shown((prior, implied): &(Role, Role), here: &Here) -> Json<Value> {
    body("role_inference", rule(prior, brief(implied, here), here), here)
}

async fn create(ask: Ask) -> Made {
    ask.caller.require_admin()?;
    let roles = ask.change(|tx| {
        let (prior, implied) = both(tx, &ask)?;
        refuse_bad(tx, &prior, &implied)?;
        tx.put(&Implication { prior: prior.id.clone(), implied: implied.id.clone() })?;
        MarkId::all().touch(tx)?;
        Ok((prior, implied))
    });
    Ok((StatusCode::CREATED, shown(&roles.await?, &ask.here)))
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
async fn show(method: Method, ask: Ask) -> Made {
    policy::listing_domain(&ask.caller)?;
    let roles = ask.read(|tx| {
        stored(tx, &ask)?;
        both(tx, &ask)
    })?;
    let status = if method == Method::HEAD { StatusCode::NO_CONTENT } else { StatusCode::OK };
    Ok((status, shown(&roles, &ask.here)))
}

async fn delete(ask: Ask) -> ApiResult<StatusCode> {
    ask.caller.require_admin()?;
    ask.done(|tx| {
        let id = stored(tx, &ask)?;
        tx.delete::<Implication>(&id)?;
        MarkId::all().touch(tx)
    })
    .await
}

/// The id of the rule that the path names; 404 if there is none.
fn stored(tx: &mut Tx, ask: &Ask) -> ApiResult<String> {
    let id = format!("{}/{}", ask.id, ask.part);
    match tx.get::<Implication>(&id)? {
        Some(_) => Ok(id),
        None => Err(ApiError::not_found("The rule", &id)),
    }
}
