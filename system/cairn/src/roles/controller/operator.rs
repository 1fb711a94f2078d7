//! What an operator of this node sees of the cloud and orders: a socket that root alone can open.
//!
//! HTTP and JSON, for `cairn status`, `accept`, `refuse`, `remove`, `open`, `address`, `disk`, `witness`
//! and `recover`. Each order is one transaction; it is done
//! when it is answered, on whichever node it was given.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cairn_cluster::Words;
use cairn_cluster::membership::{Member, Request, change};
use cairn_state::RoleStatus;
use cairn_wire::local_http;
use cairn_wire::remote::PeerId;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::address;
use super::backends;
use super::cluster::Cluster;
use super::disk_orders;
use super::overview::{self, Overview};
use super::recovery::{self, Confirmed, Prospect};
use super::removal;
use super::witness::{self, Add};

/// Readable and writable by the controller, and so by root.
const MODE: u32 = 0o600;
/// The longest that a cloud can be opened for, in minutes: a day.
const OPEN_MAX_MIN: u32 = 24 * 60;

/// An order about one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Order {
    /// Its name, or the beginning of its id.
    pub node: String,
    /// The words that were compared, for letting it in.
    #[serde(default)]
    pub words: Option<String>,
    /// Whether volumes of which it has the only whole copy may be lost, for removing it.
    #[serde(default)]
    pub lose_volumes: bool,
}

/// An order to let in whoever asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Open {
    /// For how long.
    pub minutes: u32,
}

/// An order to give the cloud an address of its own, or to take it back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: Option<IpAddr>,
}

/// Serves the socket, for ever.
pub async fn serve(cluster: Arc<Cluster>) {
    let path = cluster.paths().operator_socket();
    if let Err(e) = local_http::serve(&path, MODE, router(cluster)).await {
        tracing::error!(error = %e, "the operator's socket is not served");
    }
}

/// What the socket answers.
pub fn router(cluster: Arc<Cluster>) -> Router {
    Router::new()
        .route("/cluster", get(overview))
        .route("/roles", get(roles))
        .route("/recovery", get(prospect).post(recover))
        .route("/accept", post(accept))
        .route("/refuse", post(refuse))
        .route("/remove", post(remove))
        .route("/open", post(open))
        .route("/address", post(set_address))
        .route("/disks", get(disk_orders::list).post(disk_orders::order))
        .route("/backends", get(backends::list).post(backends::add))
        .route("/backends/remove", post(backends::remove))
        .route("/witness", post(add_witness))
        .route("/witness/remove", post(remove_witness))
        .with_state(cluster)
}

/// An order that was not carried out, and why.
pub struct Failure(pub StatusCode, pub String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<change::Error> for Failure {
    fn from(e: change::Error) -> Failure {
        let status = match e {
            change::Error::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            change::Error::Absent(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Failure(status, e.to_string())
    }
}

impl From<removal::Error> for Failure {
    fn from(e: removal::Error) -> Failure {
        match e {
            removal::Error::Member(e) => e.into(),
            removal::Error::Service(e) => Failure(e.status, e.message),
            e => Failure(StatusCode::CONFLICT, e.to_string()),
        }
    }
}

fn bad(why: impl ToString) -> Failure {
    Failure(StatusCode::BAD_REQUEST, why.to_string())
}

/// What an order is answered with.
pub type Done = Result<Json<()>, Failure>;

/// The cloud as this node sees it.
pub async fn overview(State(cluster): State<Arc<Cluster>>) -> Result<Json<Overview>, Failure> {
    Ok(Json(overview::overview(&cluster).await?))
}

/// What the roles reported, as this replica knows it.
async fn roles(State(cluster): State<Arc<Cluster>>) -> Result<Json<Vec<RoleStatus>>, Failure> {
    Ok(Json(cluster.store.read(|tx| Ok::<_, change::Error>(tx.list_unfenced::<RoleStatus>()?))?))
}

async fn prospect(State(cluster): State<Arc<Cluster>>) -> Result<Json<Prospect>, Failure> {
    recovery::prospect(&cluster).await.map(Json).map_err(not_done)
}

async fn recover(State(cluster): State<Arc<Cluster>>, Json(confirmed): Json<Confirmed>) -> Done {
    recovery::order(&cluster, &confirmed).await.map(Json).map_err(not_done)
}

fn not_done(e: anyhow::Error) -> Failure {
    Failure(StatusCode::CONFLICT, format!("{e:#}"))
}

/// Lets in a node that asks, if its words are these.
pub async fn accept(State(cluster): State<Arc<Cluster>>, Json(order): Json<Order>) -> Done {
    caught_up(&cluster).await?;
    let words = order.words.as_deref().ok_or_else(|| bad("the words that its screen shows are wanted"))?;
    let words: Words = words.parse().map_err(bad)?;
    let id = asking(&cluster, &order.node)?;
    cluster.store.transact(|tx| change::accept(tx, id, words, Timestamp::now())).await?;
    Ok(Json(()))
}

/// Refuses a node that asks.
pub async fn refuse(State(cluster): State<Arc<Cluster>>, Json(order): Json<Order>) -> Done {
    caught_up(&cluster).await?;
    let id = asking(&cluster, &order.node)?;
    let by = format!("the operator of {}", cluster.name);
    cluster.store.transact(|tx| change::refuse(tx, id, &by)).await?;
    Ok(Json(()))
}

/// Removes a member for ever.
pub async fn remove(State(cluster): State<Arc<Cluster>>, Json(order): Json<Order>) -> Done {
    caught_up(&cluster).await?;
    let members = cluster.store.read(|tx| Ok::<_, change::Error>(tx.list_unfenced::<Member>()?))?;
    let id = only(members.iter().map(|m| (m.id, m.name.as_str())), &order.node)?;
    Ok(Json(removal::remove(&cluster, id, order.lose_volumes).await?))
}

/// Lets in whoever asks, for a time.
pub async fn open(State(cluster): State<Arc<Cluster>>, Json(order): Json<Open>) -> Done {
    if order.minutes > OPEN_MAX_MIN {
        return Err(bad(format!("a cloud is opened for {OPEN_MAX_MIN} minutes at most; 0 closes it")));
    }
    let span = SignedDuration::from_mins(order.minutes.into());
    cluster.store.transact(|tx| change::open(tx, span, Timestamp::now())).await?;
    Ok(Json(()))
}

async fn set_address(State(cluster): State<Arc<Cluster>>, Json(order): Json<Address>) -> Done {
    address::set(&cluster.store, order.address).await.map(Json).map_err(|e| Failure(e.status, e.message))
}

/// Takes in a witness.
pub async fn add_witness(State(cluster): State<Arc<Cluster>>, Json(order): Json<Add>) -> Done {
    caught_up(&cluster).await?;
    witness::add(&cluster, &order).await.map(Json).map_err(not_done)
}

/// Lets the witness go.
pub async fn remove_witness(State(cluster): State<Arc<Cluster>>) -> Done {
    caught_up(&cluster).await?;
    witness::remove(&cluster).await.map(Json).map_err(not_done)
}

/// An order is given on what is true now, not on what this replica has heard of so far.
async fn caught_up(cluster: &Cluster) -> Result<(), Failure> {
    cluster.store.catch_up().await.map_err(|e| change::Error::Store(e.into()).into())
}

/// The node that asks to be let in under this name.
fn asking(cluster: &Cluster, named: &str) -> Result<PeerId, Failure> {
    let requests = cluster.store.read(|tx| Ok::<_, change::Error>(tx.list_unfenced::<Request>()?))?;
    only(requests.iter().map(|r| (r.id, r.name.as_str())), named)
}

/// The one node of this name, or whose id begins so.
fn only<'a>(nodes: impl Iterator<Item = (PeerId, &'a str)>, named: &str) -> Result<PeerId, Failure> {
    let fits = |(id, name): &(PeerId, &str)| {
        *name == named || (named.len() >= 6 && id.to_string().starts_with(named))
    };
    let mut found = nodes.filter(fits).map(|(id, _)| id);
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => {
            Err(Failure(StatusCode::NOT_FOUND, format!("no node {named} is here; see: cairn status")))
        }
        _ => Err(Failure(
            StatusCode::CONFLICT,
            format!("several nodes are called {named}: give more of the id"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_its_name_or_the_beginning_of_its_id() {
        let nodes = [(PeerId::new([0x1a; 32]), "cairn-000001"), (PeerId::new([0x1b; 32]), "cairn-000002")];
        let found = |named: &str| only(nodes.into_iter(), named).ok();
        assert_eq!(found("cairn-000002"), Some(nodes[1].0));
        assert_eq!(found("1a1a1a1a"), Some(nodes[0].0));
        assert_eq!((found("1"), found("cairn"), found("")), (None, None, None));
    }
}
