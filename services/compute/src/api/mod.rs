//! Nova's API v2.1: a file per resource. Handlers read and change the store in one transaction each; what they
//! decide upon is in the crate's other modules.

mod aggregates;
mod ask;
mod attachments;
mod compute_services;
mod create_body;
mod create_disks;
mod diagnostics;
mod extensions;
mod flavor_extras;
mod flavors;
mod form;
mod hypervisors;
mod instance_actions;
mod interfaces;
mod keypairs;
mod migrations;
mod network_proxies;
mod personality;
mod quotas;
mod security_groups;
mod server_action;
mod server_groups;
mod server_groups_of;
mod server_image;
mod server_list;
mod server_metadata;
mod server_move;
mod servers;
mod tags;
mod usage;
mod versions;
pub mod view;

use std::sync::Arc;

use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult};
use http::StatusCode;
use serde_json::{Value, json};

use crate::Service;

pub(crate) use create_body::hint_ids;

/// Routes that know the service.
type Routes = Router<Arc<Service>>;

/// All routes below the service's prefix.
pub fn router(svc: &Arc<Service>) -> Router {
    let api = Router::new()
        .merge(server_routes())
        .merge(server_metadata::routes())
        .merge(tags::routes())
        .merge(attachments::routes())
        .merge(interfaces::routes())
        .merge(instance_actions::routes())
        .merge(flavors::routes())
        .merge(flavor_extras::routes())
        .merge(keypairs::routes())
        .merge(quotas::routes())
        .merge(server_groups::routes())
        .merge(hypervisors::routes())
        .merge(migrations::routes())
        .merge(compute_services::routes())
        .merge(aggregates::routes())
        .merge(usage::routes())
        .merge(extensions::routes())
        .merge(security_groups::routes())
        .merge(network_proxies::routes())
        .with_state(svc.clone());
    versions::router().nest("/v2.1", versions::SPOKEN.around(api))
}

fn server_routes() -> Routes {
    Router::new()
        .route("/servers", routing::get(server_list::brief).post(servers::create))
        .route("/servers/detail", routing::get(server_list::detail))
        .route("/servers/{id}", routing::get(servers::show).put(servers::update).delete(servers::delete))
        .route("/servers/{id}/action", routing::post(server_action::act))
        .route("/servers/{id}/ips", routing::get(servers::addresses))
        .route("/servers/{id}/ips/{network}", routing::get(servers::addresses_of_network))
        .route("/servers/{id}/diagnostics", routing::get(servers::diagnostics))
        .route("/servers/{id}/os-security-groups", routing::get(server_groups_of::list))
        .route("/servers/{id}/os-server-password", routing::get(password).delete(no_password))
        .route("/servers/{id}/remote-consoles", routing::post(no_console))
}

/// No guest has told its password, so it is empty.
async fn password(
    axum::extract::State(svc): ask::Svc,
    ask: ask::Ask,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| ask::server(tx, &ask.caller, &id).map(drop))?;
    Ok(Json(json!({"password": ""})))
}

/// Forgets a password that is not there.
async fn no_password(
    axum::extract::State(svc): ask::Svc,
    ask: ask::Ask,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> ApiResult<StatusCode> {
    svc.store.read(|tx| ask::own_server(tx, &ask.caller, &id).map(drop))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn no_console(
    axum::extract::State(svc): ask::Svc,
    ask: ask::Ask,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> ApiResult<StatusCode> {
    ask.mv.added_in(6)?;
    svc.store.read(|tx| ask::own_server(tx, &ask.caller, &id).map(drop))?;
    Err(ApiError::not_implemented("Graphical and interactive consoles are not available here yet."))
}
