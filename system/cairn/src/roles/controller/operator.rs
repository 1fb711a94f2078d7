//! What an operator of this node sees of the cloud and orders: a socket that root alone can open.
//!
//! HTTP and JSON, for `cairn status`, `accept`, `refuse`, `remove` and `open`. Each order is one transaction; it is done
//! when it is answered, on whichever node it was given.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cairn_cluster::membership::{Cloud, JoinPolicy, Member, Request, RequestState, change};
use cairn_cluster::{Alive, Words};
use cairn_state::Tx;
use cairn_wire::local_http;
use cairn_wire::remote::PeerId;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;

/// Readable and writable by the controller, and so by root.
const MODE: u32 = 0o600;
/// How often a removal is tried when other nodes are removed at the same moment.
const TRIES: usize = 5;
/// The longest that a cloud can be opened for, in minutes: a day.
const OPEN_MAX_MIN: u32 = 24 * 60;

/// The cloud as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The cloud's id.
    pub cloud: String,
    /// This node's name.
    pub node: String,
    /// Who leads, by name, as far as is known.
    pub leader: Option<String>,
    /// Until when joining is open.
    pub open_until: Option<Timestamp>,
    /// Everyone who belongs or has belonged.
    pub members: Vec<MemberLine>,
    /// Who waits to be let in, or was refused.
    pub requests: Vec<RequestLine>,
}

/// A member as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberLine {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: PeerId,
    /// How far it belongs.
    pub state: String,
    /// Whether its replica votes now.
    pub voter: bool,
    /// Whether it is in touch with the cloud.
    pub alive: bool,
    /// Where it can be tried.
    pub addresses: Vec<SocketAddr>,
}

/// A request to join as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestLine {
    /// The name of the node that asks.
    pub name: String,
    /// Its identity.
    pub id: PeerId,
    /// What its screen shows if nobody is in the middle.
    pub words: String,
    /// When it asked.
    pub asked: Timestamp,
    /// Who refused it, if somebody did.
    pub refused_by: Option<String>,
}

/// An order about one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Its name, or the beginning of its id.
    pub node: String,
    /// The words that were compared, for letting it in.
    #[serde(default)]
    pub words: Option<String>,
}

/// An order to let in whoever asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Open {
    /// For how long.
    pub minutes: u32,
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
        .route("/accept", post(accept))
        .route("/refuse", post(refuse))
        .route("/remove", post(remove))
        .route("/open", post(open))
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

fn bad(why: impl ToString) -> Failure {
    Failure(StatusCode::BAD_REQUEST, why.to_string())
}

/// What an order is answered with.
pub type Done = Result<Json<()>, Failure>;

/// The cloud as this node sees it.
pub async fn overview(State(cluster): State<Arc<Cluster>>) -> Result<Json<Overview>, Failure> {
    // What this replica knows is shown even when nobody leads: that is when an operator looks.
    let status = cluster.store.status().map_err(|e| change::Error::Store(e.into()))?;
    let mut overview = cluster.store.read(|tx| lines(tx, &status.voters))?;
    let member = status.leader.and_then(|leader| cluster.names.of_replica(leader));
    overview.leader =
        member.and_then(|id| overview.members.iter().find(|m| m.id == id)).map(|m| m.name.clone());
    overview.node.clone_from(&cluster.name);
    Ok(Json(overview))
}

fn lines(tx: &mut Tx, voters: &BTreeSet<u64>) -> Result<Overview, change::Error> {
    let policy = tx.get::<JoinPolicy>(JoinPolicy::ID)?.unwrap_or_default();
    let alive: BTreeSet<_> = tx.list_unfenced::<Alive>()?.into_iter().map(|alive| alive.node).collect();
    let members = tx.list_unfenced::<Member>()?.into_iter().map(|m| MemberLine {
        alive: alive.contains(&m.name),
        voter: m.replica.is_some_and(|replica| voters.contains(&replica)),
        state: format!("{:?}", m.state).to_lowercase(),
        name: m.name,
        id: m.id,
        addresses: m.addresses,
    });
    let members = members.collect();
    let requests = tx.list_unfenced::<Request>()?.into_iter().map(|r| RequestLine {
        refused_by: match r.state {
            RequestState::Waiting => None,
            RequestState::Refused { by } => Some(by),
        },
        name: r.name,
        id: r.id,
        words: r.words.to_string(),
        asked: r.asked,
    });
    let requests = requests.collect();
    let cloud = tx.get::<Cloud>(Cloud::ID)?.map(|cloud| cloud.id).unwrap_or_default();
    Ok(Overview { cloud, open_until: policy.open_until, members, requests, ..Overview::default() })
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
    for _ in 0..TRIES {
        let successor = cluster.store.read(change::authority)?.successor().map_err(change::Error::Key)?;
        match cluster.store.transact(|tx| change::remove(tx, id, &successor)).await {
            Err(change::Error::Overtaken) => {}
            done => return Ok(Json(done?)),
        }
    }
    Err(change::Error::Overtaken.into())
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
