//! The data disks of all nodes: what there is, and orders about them, by the operator's socket and by the appliance's API.
//!
//! What an order means, and what stands against it, says [`cairn_shards::disks`]; here it is only passed on.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use cairn_gateway::{ApiResult, Body, Caller};
use cairn_shards::disks::{self, DiskOrder, DiskView, Error};
use cairn_state::Abort;
use http::StatusCode;

use super::cluster::Cluster;
use super::operator::{Done, Failure};

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let status = match e {
            Error::Absent(_) => StatusCode::NOT_FOUND,
            Error::Only { .. } => StatusCode::CONFLICT,
            Error::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure(status, e.to_string())
    }
}

/// The API's routes, below the appliance's.
pub fn router(cluster: Arc<Cluster>) -> Router {
    Router::new().route("/disks", get(show).post(told)).with_state(cluster)
}

/// All disks.
pub async fn list(State(cluster): State<Arc<Cluster>>) -> Result<Json<Vec<DiskView>>, Failure> {
    Ok(Json(cluster.store.read(disks::list).map_err(Error::Store)?))
}

/// Drains a disk, retires it, or keeps it after all.
pub async fn order(State(cluster): State<Arc<Cluster>>, Json(order): Json<DiskOrder>) -> Done {
    cluster.store.catch_up().await.map_err(|e| Error::Store(Abort::from(e)))?;
    Ok(Json(cluster.store.transact(|tx| disks::order(tx, &order)).await?))
}

/// `GET /appliance/v1/disks`: the data disks of all nodes, and how they are doing.
async fn show(State(cluster): State<Arc<Cluster>>, caller: Caller) -> ApiResult<Json<Vec<DiskView>>> {
    caller.require_admin()?;
    Ok(list(State(cluster)).await?)
}

/// `POST /appliance/v1/disks`: an order about one of them.
async fn told(
    State(cluster): State<Arc<Cluster>>,
    caller: Caller,
    Body(wanted): Body<DiskOrder>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    let Json(()) = order(State(cluster), Json(wanted)).await?;
    Ok(StatusCode::NO_CONTENT)
}
