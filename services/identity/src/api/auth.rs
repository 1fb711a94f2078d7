//! Where a token's owner may go: `/auth/catalog`, `/auth/projects`, `/auth/domains`, `/auth/system`.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Svc;
use super::wire::{Here, Resource, list, listed};
use crate::catalog;
use crate::effective;
use crate::model::{Project, Target};
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/auth/catalog", get(catalog))
        .route("/auth/projects", get(projects))
        .route("/auth/domains", get(domains))
        .route("/auth/system", get(system))
}

async fn catalog(State(svc): Svc, caller: Caller, here: Here) -> ApiResult<Json<Value>> {
    if caller.roles.is_empty() {
        let message = "A token without a scope has no catalog.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let (project, user) = (&caller.project_id, &caller.user_id);
    let catalog = svc.store.read(|tx| catalog::build(tx, &here.base, project, user))?;
    Ok(Json(json!({"catalog": catalog, "links": {"self": here.this, "next": null, "previous": null}})))
}

async fn projects(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    let projects = svc.store.read(|tx| projects_of(tx, &caller.user_id))?;
    list(projects, &query, &here)
}

async fn domains(State(svc): Svc, caller: Caller, here: Here, query: Query) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| places(tx, &caller.user_id, true))?;
    let items = found.iter().map(|d| super::domains::shown(d, &here)).collect();
    listed("domains", items, &query, &here)
}

async fn system(State(svc): Svc, caller: Caller, here: Here) -> ApiResult<Json<Value>> {
    let roles = svc.store.read(|tx| effective::roles(tx, &caller.user_id, &Target::System))?;
    let system = if roles.is_empty() { vec![] } else { vec![json!({"all": true})] };
    Ok(Json(json!({"system": system, "links": {"self": here.this}})))
}

/// The enabled projects a user has a role on.
pub fn projects_of(tx: &mut Tx, user_id: &str) -> ApiResult<Vec<Project>> {
    places(tx, user_id, false)
}

fn places(tx: &mut Tx, user_id: &str, are_domains: bool) -> ApiResult<Vec<Project>> {
    let mut found = Vec::new();
    for target in effective::targets(tx, user_id)? {
        let (Target::Project(id) | Target::Domain(id)) = target else { continue };
        found.extend(tx.get::<Project>(&id)?.filter(|p| p.enabled && p.is_domain == are_domains));
    }
    Ok(found)
}

impl Resource for Project {
    const ONE: &'static str = "project";
    const MANY: &'static str = "projects";

    fn view(&self) -> Value {
        super::projects::view(self)
    }
}
