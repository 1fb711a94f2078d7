//! Maintenance of a node, at `/appliance/v1/nodes/NODE/maintenance`: `PUT` begins to empty it (its servers move to
//! others, running ones while they run), `GET` says how far that is, `DELETE` lets it take servers again. For
//! administrators. 404 if there is no such node.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_compute::Service;
use cairn_compute::actions::Actor;
use cairn_compute::drain::{self, Progress};
use cairn_gateway::{ApiResult, Body, Caller, RequestId};
use http::StatusCode;
use serde::Deserialize;

/// The routes, below `/appliance/v1`.
pub fn router(compute: &Arc<Service>) -> Router {
    let maintenance = get(show).put(begin).delete(end);
    Router::new().route("/nodes/{node}/maintenance", maintenance).with_state(compute.clone())
}

/// Why a node is emptied.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    /// A person's words, shown with the node; "maintenance" if there are none.
    reason: Option<String>,
}

async fn begin(
    State(compute): State<Arc<Service>>,
    Path(node): Path<String>,
    caller: Caller,
    request: RequestId,
    Body(wish): Body<Wish>,
) -> ApiResult<(StatusCode, Json<Progress>)> {
    caller.require_admin()?;
    drain::drain(&compute, &node, &Actor::new(&caller, &request), wish.reason.as_deref()).await?;
    Ok((StatusCode::ACCEPTED, Json(drain::progress(&compute, &node)?)))
}

async fn show(
    State(compute): State<Arc<Service>>,
    Path(node): Path<String>,
    caller: Caller,
) -> ApiResult<Json<Progress>> {
    caller.require_admin()?;
    Ok(Json(drain::progress(&compute, &node)?))
}

async fn end(
    State(compute): State<Arc<Service>>,
    Path(node): Path<String>,
    caller: Caller,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    drain::undrain(&compute, &node).await?;
    Ok(StatusCode::NO_CONTENT)
}
