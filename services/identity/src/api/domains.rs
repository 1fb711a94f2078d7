//! `/domains`: the projects that are domains, with the attributes that domains have.

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
use super::wire::{Here, fits, fits_flag, listed, over};
use crate::cascade;
use crate::marks::MarkId;
use crate::model::{Project, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/domains", get(index).post(create))
        .route("/domains/{id}", get(show).patch(update).delete(delete))
}

/// A domain as `/domains` shows it.
pub fn shown(d: &Project, here: &Here) -> Value {
    over(
        &d.extra,
        json!({
            "id": d.id, "name": d.name, "enabled": d.enabled, "description": d.description, "tags": d.tags,
            "options": d.options, "links": {"self": format!("{}/domains/{}", here.v3, d.id)},
        }),
    )
}

/// The domain with this id; 404 if there is none.
pub fn find(tx: &mut Tx, id: &str) -> ApiResult<Project> {
    let found = tx.get::<Project>(id)?.filter(|d| d.is_domain);
    found.ok_or_else(|| ApiError::not_found("domain:", id))
}

fn body(domain: &Project, here: &Here) -> Json<Value> {
    Json(json!({"domain": shown(domain, here)}))
}

async fn index(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    let own = policy::listing_domain(&caller)?;
    let all = svc.store.read(|tx| Ok::<_, ApiError>(tx.by_index::<Project>("is-domain", "true")?))?;
    let mut found = Vec::new();
    for domain in all.iter().filter(|d| own.is_none_or(|o| d.id == o) && fits(&query, "name", &d.name)) {
        if fits_flag(&query, "enabled", domain.enabled)? {
            found.push(shown(domain, &here));
        }
    }
    listed("domains", found, &query, &here)
}

async fn create(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Body(request): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    caller.require_admin()?;
    let mut attrs = Attrs::of(request, "domain")?;
    let id = match attrs.text("explicit_domain_id")? {
        Some(id) if id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()) => id.to_lowercase(),
        Some(_) => return Err(ApiError::bad_request("'explicit_domain_id' must have 32 hex digits.")),
        None => new_id(),
    };
    let mut domain = Project { id, is_domain: true, enabled: true, ..Project::default() };
    super::projects::apply(&mut domain, attrs)?;
    if domain.name.is_empty() {
        return Err(ApiError::bad_request("'name' is required."));
    }
    svc.store
        .transact(|tx| {
            if tx.get::<Project>(&domain.id)?.is_some() {
                return Err(ApiError::conflict("The id is already in use."));
            }
            tx.put(&domain)?;
            MarkId::scope(&domain.id).touch(tx)
        })
        .await?;
    Ok((StatusCode::CREATED, body(&domain, &here)))
}

async fn show(State(svc): Svc, caller: Caller, here: Here, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let domain = svc.store.read(|tx| find(tx, &id))?;
    let is_own = [&caller.user_domain_id, &caller.project_domain_id].contains(&&id);
    if !is_own {
        policy::require_domain_reader(&caller, &id)?;
    }
    Ok(body(&domain, &here))
}

async fn update(
    State(svc): Svc,
    caller: Caller,
    here: Here,
    Path(id): Path<String>,
    Body(request): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let domain = svc
        .store
        .transact(|tx| {
            find(tx, &id)?;
            super::projects::change(tx, &id, Attrs::of(request.clone(), "domain")?)
        })
        .await?;
    Ok(body(&domain, &here))
}

async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let domain = find(tx, &id)?;
            cascade::delete_domain(tx, &domain)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
