//! Where a token's owner may go: `/auth/catalog`, `/auth/projects`, `/auth/domains`, `/auth/system`.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use serde_json::json;

use super::ask::Ask;
use super::domains::Domain;
use super::resource::Shown;
use super::wire::{list, whole};
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

async fn catalog(ask: Ask) -> Shown {
    let Caller { project_id, user_id, roles, .. } = &ask.caller;
    if roles.is_empty() {
        return Err(ApiError::forbidden("A token without a scope has no catalog."));
    }
    let catalog = ask.read(|tx| catalog::build(tx, &ask.here.base, project_id, user_id))?;
    Ok(whole("catalog", catalog.into(), &ask.here))
}

async fn projects(ask: Ask) -> Shown {
    let projects = ask.read(|tx| projects_of(tx, &ask.caller.user_id))?;
    list(&projects, &ask.query, &ask.here)
}

async fn domains(ask: Ask) -> Shown {
    let found = ask.read(|tx| places(tx, &ask.caller.user_id, true))?;
    let domains: Vec<Domain> = found.into_iter().map(Domain).collect();
    list(&domains, &ask.query, &ask.here)
}

async fn system(ask: Ask) -> Shown {
    let roles = ask.read(|tx| effective::roles(tx, &ask.caller.user_id, &Target::System))?;
    let system = if roles.is_empty() { vec![] } else { vec![json!({"all": true})] };
    Ok(Json(json!({"system": system, "links": {"self": ask.here.this}})))
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
