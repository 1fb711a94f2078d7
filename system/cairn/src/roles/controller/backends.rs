//! Backends that an operator makes known and forgets, by the operator's socket alone: with the order comes a key.
//!
//! What an order means, and what stands against it, says [`cairn_shards::external::orders`]; whether a cluster can be used,
//! this node's storage process. A log must never hold the order's body.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use cairn_block::capacity::BACKENDS;
use cairn_shards::data::{Client, ImportError};
use cairn_shards::external::orders::{self, BackendView, Error, NewBackend};
use cairn_state::Abort;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::operator::{Done, Failure};

/// An order to forget a backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Removal {
    /// Its name.
    pub name: String,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let status = match e {
            Error::Unfit(_) => StatusCode::BAD_REQUEST,
            Error::Absent(_) => StatusCode::NOT_FOUND,
            Error::InUse(..) => StatusCode::CONFLICT,
            Error::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure(status, e.to_string())
    }
}

/// All backends.
pub async fn list(State(cluster): State<Arc<Cluster>>) -> Result<Json<Vec<BackendView>>, Failure> {
    Ok(Json(cluster.store.read(orders::list).map_err(Error::Store)?))
}

/// Makes one known, once it was seen to be of use.
pub async fn add(State(cluster): State<Arc<Cluster>>, Json(new): Json<NewBackend>) -> Done {
    if let Some(objection) = new.objection(&BACKENDS) {
        return Err(Error::Unfit(objection).into());
    }
    let storage = Client::new(cluster.paths().run.join("storage.sock"));
    storage.check_backend(&new).await.map_err(|e| unusable(&new.name, e))?;
    cluster.store.catch_up().await.map_err(|e| Error::Store(Abort::from(e)))?;
    Ok(Json(cluster.store.transact(|tx| orders::add(tx, &new)).await?))
}

/// Forgets one.
pub async fn remove(State(cluster): State<Arc<Cluster>>, Json(order): Json<Removal>) -> Done {
    cluster.store.catch_up().await.map_err(|e| Error::Store(Abort::from(e)))?;
    Ok(Json(cluster.store.transact(|tx| orders::remove(tx, &order.name)).await?))
}

fn unusable(name: &str, e: ImportError) -> Failure {
    let (status, why) = match e {
        ImportError::Refused(why) => {
            (StatusCode::CONFLICT, format!("{name} cannot be used: {why}; nothing was stored"))
        }
        e => (StatusCode::SERVICE_UNAVAILABLE, format!("whether {name} can be used could not be asked: {e}")),
    };
    Failure(status, why)
}
