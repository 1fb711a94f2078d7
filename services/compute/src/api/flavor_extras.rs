//! What belongs to a flavor beside its size: extra specifications, and the projects that may use a private one.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body};
use http::StatusCode;
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc, empty};
use super::flavors::find;
use super::form::{inner, invalid, is_key};
use crate::Service;
use crate::model::Flavor;

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/flavors/{id}/os-extra_specs", routing::get(specs).post(add_specs))
        .route("/flavors/{id}/os-extra_specs/{key}", routing::get(spec).put(set_spec).delete(remove_spec))
        .route("/flavors/{id}/os-flavor-access", routing::get(access))
        .route("/flavors/{id}/action", routing::post(change_access))
}

async fn specs(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| find(tx, &ask, &id))?;
    Ok(Json(json!({"extra_specs": found.extra_specs})))
}

fn no_spec(id: &str, key: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Flavor {id} has no extra specs with key {key}."))
}

async fn spec(State(svc): Svc, ask: Ask, Path((id, key)): Path<(String, String)>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| find(tx, &ask, &id))?;
    match found.extra_specs.get(&key) {
        Some(value) => Ok(Json(json!({key: value}))),
        None => Err(no_spec(&id, &key)),
    }
}

/// Specifications: keys of the usual characters, values text or numbers.
fn parse(value: &Value) -> ApiResult<BTreeMap<String, String>> {
    let map = value.as_object().ok_or_else(|| invalid("extra_specs", value, "is not of type 'object'"))?;
    map.iter()
        .map(|(k, v)| {
            let text = match v {
                Value::String(s) if s.chars().count() <= 255 => s.clone(),
                Value::Number(n) => n.to_string(),
                _ => return Err(invalid(k, v, "is not a text of up to 255 characters")),
            };
            if !is_key(k) {
                return Err(invalid("extra_specs", k, "is not a valid key"));
            }
            Ok((k.clone(), text))
        })
        .collect()
}

async fn change<T>(
    svc: &Service,
    ask: &Ask,
    id: &str,
    how: impl Fn(&mut Flavor) -> ApiResult<T>,
) -> ApiResult<T> {
    svc.store
        .transact(|tx| {
            let mut flavor = find(tx, ask, id)?;
            let result = how(&mut flavor)?;
            tx.put(&flavor)?;
            Ok(result)
        })
        .await
}

async fn add_specs(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-flavor-extra-specs:create")?;
    let specs = parse(inner(&json, "extra_specs")?)?;
    change(&svc, &ask, &id, |flavor| {
        flavor.extra_specs.extend(specs.clone());
        Ok(Json(json!({"extra_specs": specs})))
    })
    .await
}

async fn set_spec(
    State(svc): Svc,
    ask: Ask,
    Path((id, key)): Path<(String, String)>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-flavor-extra-specs:update")?;
    let specs = parse(&json)?;
    if specs.len() != 1 || !specs.contains_key(&key) {
        return Err(ApiError::bad_request("Request body and URI mismatch"));
    }
    change(&svc, &ask, &id, |flavor| {
        flavor.extra_specs.extend(specs.clone());
        Ok(Json(json!(specs)))
    })
    .await
}

async fn remove_spec(
    State(svc): Svc,
    ask: Ask,
    Path((id, key)): Path<(String, String)>,
) -> ApiResult<Response> {
    ask.admin("os_compute_api:os-flavor-extra-specs:delete")?;
    change(&svc, &ask, &id, |flavor| {
        flavor.extra_specs.remove(&key).ok_or_else(|| no_spec(&id, &key))?;
        Ok(empty(StatusCode::OK))
    })
    .await
}

fn access_body(flavor: &Flavor) -> Value {
    let rows: Vec<_> =
        flavor.projects.iter().map(|p| json!({"flavor_id": flavor.id, "tenant_id": p})).collect();
    json!({"flavor_access": rows})
}

async fn access(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-flavor-access")?;
    let found = svc.store.read(|tx| find(tx, &ask, &id))?;
    match found.is_public {
        true => Err(ApiError::new(StatusCode::NOT_FOUND, "Access list not available for public flavors.")),
        false => Ok(Json(access_body(&found))),
    }
}

/// The actions addTenantAccess and removeTenantAccess.
async fn change_access(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(json): Body<Value>,
) -> ApiResult<Json<Value>> {
    ask.admin("os_compute_api:os-flavor-access:add_tenant_access")?;
    let of =
        |key: &str| json.get(key).and_then(|v| v.get("tenant")).and_then(Value::as_str).map(str::to_owned);
    let (add, project) = match (of("addTenantAccess"), of("removeTenantAccess")) {
        (Some(project), None) => (true, project),
        (None, Some(project)) => (false, project),
        _ => return Err(ApiError::bad_request("Malformed request body: name one action and its tenant.")),
    };
    change(&svc, &ask, &id, |flavor| {
        if add && flavor.is_public && ask.mv.since(7) {
            return Err(ApiError::conflict("Can not add access to a public flavor."));
        }
        if add && !flavor.projects.insert(project.clone()) {
            let why =
                format!("Flavor access already exists for flavor {id} and project {project} combination.");
            return Err(ApiError::conflict(why));
        }
        if !add && !flavor.projects.remove(&project) {
            let why = format!("Flavor access not found for {id} / {project} combination.");
            return Err(ApiError::new(StatusCode::NOT_FOUND, why));
        }
        Ok(Json(access_body(flavor)))
    })
    .await
}
