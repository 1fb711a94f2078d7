//! The agents of the nodes, as far as Neutron's API can show them. One process of a node is all of them, so each
//! kind that clients look for is shown once per node, and which of them a router or a network is with. Read-only:
//! agents are managed by adding and removing nodes, and what they do is up to us.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::listing;
use super::resource::{self, Resource, View, with};
use crate::logic::hosts::fnv1a;
use crate::model::{self, HostStatus, Network, NetworkStatus, status};
use crate::service::Service;

/// What the network agent of a node is, in Neutron's words.
const KINDS: [&str; 4] = [DHCP, L3, "Linux bridge agent", "Metadata agent"];
const DHCP: &str = "DHCP agent";
const L3: &str = "L3 agent";

/// The routes of agents.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/v2.0/agents", get(list))
        .route("/v2.0/agents/{id}", get(show))
        .route("/v2.0/agents/{id}/l3-routers", get(routers))
        .route("/v2.0/routers/{id}/l3-agents", get(of_router))
        .route("/v2.0/networks/{id}/dhcp-agents", get(of_network))
}

/// Who isn't an administrator sees none.
fn all(svc: &Service, caller: &Caller) -> ApiResult<Vec<View>> {
    if !caller.is_admin() {
        return Ok(Vec::new());
    }
    let now = Timestamp::now();
    let hosts = svc.store.read(|tx| ApiResult::Ok(tx.list_unfenced::<HostStatus>()?))?;
    Ok(hosts.iter().flat_map(|h| KINDS.iter().map(move |kind| view(h, kind, now))).collect())
}

fn view(host: &HostStatus, kind: &str, now: Timestamp) -> View {
    let time = |t: Timestamp| t.strftime("%Y-%m-%d %H:%M:%S").to_string();
    with(
        View::new(),
        json!({
            "id": id_of(&host.node, kind), "agent_type": kind, "binary": "cairn-network", "host": host.node, "topic": "N/A",
            "alive": host.is_alive(now), "admin_state_up": true, "availability_zone": "nova",
            "created_at": time(host.started_at), "started_at": time(host.started_at),
            "heartbeat_timestamp": time(host.heartbeat_at), "description": host.error,
            "configurations": {
                "version": host.version, "physical_networks": host.physical_networks, "tunneling_ip": host.tunnel_ip,
            },
            "resources_synced": null,
        }),
    )
}

/// The same id for the same agent, always: there is no record that could hold one.
fn id_of(node: &str, kind: &str) -> String {
    uuid::Uuid::from_u128(fnv1a(node.bytes().chain([0]).chain(kind.bytes()))).to_string()
}

async fn list(State(svc): State<Arc<Service>>, caller: Caller, query: Query) -> ApiResult<Json<Value>> {
    let mut agents = all(&svc, &caller)?;
    agents.retain(|a| listing::matches(a, &query));
    listing::sort(&mut agents, &query)?;
    let agents: Vec<View> = agents.into_iter().map(|a| listing::select(a, &query)).collect();
    Ok(Json(json!({"agents": agents})))
}

async fn show(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let agent = all(&svc, &caller)?.into_iter().find(|a| a.get("id").is_some_and(|i| *i == id.as_str()));
    let agent = agent.ok_or_else(|| ApiError::not_found("Agent", &id).with_code("AgentNotFound"))?;
    Ok(Json(json!({"agent": agent})))
}

/// The agents of a kind on some nodes.
fn on(tx: &mut Tx, nodes: impl IntoIterator<Item = String>, kind: &str) -> ApiResult<Json<Value>> {
    let now = Timestamp::now();
    let mut agents = Vec::new();
    for node in nodes {
        agents.extend(tx.get::<HostStatus>(&node)?.map(|host| view(&host, kind, now)));
    }
    Ok(Json(json!({"agents": agents})))
}

/// The agent that a router lives with: one at a time.
async fn of_router(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    svc.store.read(|tx| {
        let router = resource::find::<model::Router>(tx, &caller, &id)?;
        on(tx, router.host, L3)
    })
}

/// The agents that answer a network's DHCP: those of all nodes with guests of it.
async fn of_network(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    svc.store.read(|tx| {
        let network = resource::find::<Network>(tx, &caller, &id)?;
        let mut nodes = Vec::new();
        for host in network.hosts {
            let seen = tx.get::<NetworkStatus>(&status::on_host(&network.id, &host))?;
            nodes.extend(seen.filter(|s| s.dhcp).map(|_| host));
        }
        on(tx, nodes, DHCP)
    })
}

/// The routers that live with an agent.
async fn routers(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    svc.store.read(|tx| {
        let hosts = tx.list_unfenced::<HostStatus>()?;
        let host = hosts.iter().find(|h| id_of(&h.node, L3) == id);
        let host = host.ok_or_else(|| ApiError::not_found("Agent", &id).with_code("AgentNotFound"))?;
        let mut shown = Vec::new();
        for router in tx.by_index::<model::Router>("host", &host.node)? {
            shown.push(router.view(tx, &caller)?);
        }
        Ok(Json(json!({"routers": shown})))
    })
}
