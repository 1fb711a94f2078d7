//! The agents of the nodes, as far as Neutron's API can show them. One process of a node is all of them, so each
//! kind that clients look for is shown once per node. Read-only: agents are managed by adding and removing nodes.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::listing;
use super::resource::{View, with};
use crate::logic::hosts::fnv1a;
use crate::model::HostStatus;
use crate::service::Service;

/// What the network agent of a node is, in Neutron's words.
const KINDS: [&str; 4] = ["DHCP agent", "L3 agent", "Linux bridge agent", "Metadata agent"];

/// The routes of agents.
pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/v2.0/agents", get(list)).route("/v2.0/agents/{id}", get(show))
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
    // The same id for the same agent, always: there is no record that could hold one.
    let id = uuid::Uuid::from_u128(fnv1a(host.node.bytes().chain([0]).chain(kind.bytes())));
    with(
        View::new(),
        json!({
            "id": id.to_string(), "agent_type": kind, "binary": "cairn-network", "host": host.node, "topic": "N/A",
            "alive": host.is_alive(now), "admin_state_up": true, "availability_zone": "nova",
            "created_at": time(host.started_at), "started_at": time(host.started_at),
            "heartbeat_timestamp": time(host.heartbeat_at), "description": host.error,
            "configurations": {"version": host.version, "physical_networks": host.physical_networks},
            "resources_synced": null,
        }),
    )
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
