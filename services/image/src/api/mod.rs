//! The Image API, `/image`: routes, and what its resources share.
//!
//! Not built: the import API (`/stage`, `/import`, tasks), several stores, locations, metadata definitions and
//! the image cache. Their routes answer 404 or 501, and no document claims them.

mod attributes;
mod file;
mod images;
mod info;
mod listing;
mod members;
mod patch;
mod schemas;
mod tags;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post, put};
use cairn_gateway::ApiError;

use crate::Service;

/// The state of every handler.
pub(crate) type Svc = axum::extract::State<Arc<Service>>;

/// The routes, below `/image`.
pub fn router(svc: Arc<Service>) -> Router {
    Router::new()
        .route("/", get(info::versions))
        .route("/versions", get(info::versions))
        .route("/v2/", get(info::versions))
        .route("/v2/info/import", get(info::import))
        .route("/v2/info/stores", get(info::stores))
        .route("/v2/images", get(listing::list).post(images::create))
        // An empty id is no image, rather than the whole list.
        .route("/v2/images/", get(nothing).delete(nothing).patch(nothing))
        .route("/v2/images/{id}", get(images::show).patch(patch::update).delete(images::delete))
        .route("/v2/images/{id}/file", get(file::download).put(file::upload))
        .route("/v2/images/{id}/stage", put(info::no_import))
        .route("/v2/images/{id}/import", post(info::no_import))
        .route("/v2/images/{id}/actions/deactivate", post(images::deactivate))
        .route("/v2/images/{id}/actions/reactivate", post(images::reactivate))
        .route("/v2/images/{id}/tags/{tag}", put(tags::add).delete(tags::remove))
        .route("/v2/images/{id}/members", get(members::list).post(members::create))
        .route(
            "/v2/images/{id}/members/{member}",
            get(members::show).put(members::update).delete(members::delete),
        )
        .route("/v2/schemas/{name}", get(schemas::show))
        .with_state(svc)
}

async fn nothing() -> ApiError {
    ApiError::new(http::StatusCode::NOT_FOUND, "The resource could not be found.")
}

#[cfg(test)]
mod tests;
