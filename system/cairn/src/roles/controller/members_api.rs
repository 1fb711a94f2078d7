//! `/appliance/v1/cluster`: the cloud's members and who asks to be one, for administrators. What root orders by the
//! operator's socket is ordered here without a shell on any node.
//!
//! It only checks who asks, and puts answers into this API's form: each order is the socket's own.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use cairn_cluster::membership::{JoinPolicy, Otherwise};
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use http::StatusCode;
use serde::Deserialize;

use super::cluster::Cluster;
use super::operator::{self, Done, Failure, Open, Order};
use super::overview::Overview;
use super::witness::Add;

/// Its routes, below the appliance's.
pub fn router(cluster: Arc<Cluster>) -> Router {
    Router::new()
        .route("/cluster", get(show))
        .route("/cluster/accept", post(accept))
        .route("/cluster/refuse", post(refuse))
        .route("/cluster/remove", post(remove))
        .route("/cluster/open", post(open))
        .route("/cluster/policy", post(policy))
        .route("/cluster/witness", put(add_witness).delete(remove_witness))
        .with_state(cluster)
}

/// What happens to whoever asks from now on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// `ask`: a person compares words; `token`: only who brings a token is let in.
    pub otherwise: Otherwise,
}

impl From<Failure> for ApiError {
    fn from(Failure(status, why): Failure) -> ApiError {
        if status.is_server_error() {
            tracing::warn!(why, "an order about the cloud's members failed");
            return ApiError::unavailable("The cloud's store is not to be written now; try again.");
        }
        ApiError::new(status, why)
    }
}

/// `GET /appliance/v1/cluster`: members, voters, leader, and who waits to be let in with the words to compare.
pub async fn show(State(cluster): State<Arc<Cluster>>, caller: Caller) -> ApiResult<Json<Overview>> {
    caller.require_admin()?;
    Ok(operator::overview(State(cluster)).await?)
}

/// `POST /appliance/v1/cluster/accept`: lets in the node that asks, if its screen shows these words.
pub async fn accept(
    State(cluster): State<Arc<Cluster>>,
    caller: Caller,
    Body(order): Body<Order>,
) -> ApiResult<StatusCode> {
    ordered(&caller, operator::accept(State(cluster), Json(order))).await
}

/// `POST /appliance/v1/cluster/refuse`: refuses the node that asks.
pub async fn refuse(
    State(cluster): State<Arc<Cluster>>,
    caller: Caller,
    Body(order): Body<Order>,
) -> ApiResult<StatusCode> {
    ordered(&caller, operator::refuse(State(cluster), Json(order))).await
}

/// `POST /appliance/v1/cluster/remove`: removes a member for ever. It may be dead.
pub async fn remove(
    State(cluster): State<Arc<Cluster>>,
    caller: Caller,
    Body(order): Body<Order>,
) -> ApiResult<StatusCode> {
    ordered(&caller, operator::remove(State(cluster), Json(order))).await
}

/// `POST /appliance/v1/cluster/open`: lets in whoever asks, for so many minutes; 0 ends that.
pub async fn open(
    State(cluster): State<Arc<Cluster>>,
    caller: Caller,
    Body(order): Body<Open>,
) -> ApiResult<StatusCode> {
    ordered(&caller, operator::open(State(cluster), Json(order))).await
}

/// `POST /appliance/v1/cluster/policy`: closes the cloud, and says what happens to who asks nevertheless.
pub async fn policy(
    State(cluster): State<Arc<Cluster>>,
    caller: Caller,
    Body(policy): Body<Policy>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    let closed = JoinPolicy { open_until: None, otherwise: policy.otherwise };
    cluster.store.transact(|tx| tx.put(&closed)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /appliance/v1/cluster/witness`: takes in the witness at an address that has this code, or says where it is now.
pub async fn add_witness(
    State(cluster): State<Arc<Cluster>>,
    caller: Caller,
    Body(order): Body<Add>,
) -> ApiResult<StatusCode> {
    ordered(&caller, operator::add_witness(State(cluster), Json(order))).await
}

/// `DELETE /appliance/v1/cluster/witness`: lets the witness go.
pub async fn remove_witness(State(cluster): State<Arc<Cluster>>, caller: Caller) -> ApiResult<StatusCode> {
    ordered(&caller, operator::remove_witness(State(cluster))).await
}

/// An administrator's order, which the operator's socket would take too.
async fn ordered(caller: &Caller, order: impl Future<Output = Done>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    let Json(()) = order.await?;
    Ok(StatusCode::NO_CONTENT)
}
