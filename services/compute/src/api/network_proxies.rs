//! Networks as the API listed them before 2.36, read from the network service.

use axum::extract::{Path, State};
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult};
use cairn_network::model::{Network, Subnet};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc};

/// The first microversion without these.
const GONE: u32 = 36;

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/os-networks", routing::get(networks))
        .route("/os-networks/{id}", routing::get(network))
        .route("/os-tenant-networks", routing::get(tenant_networks))
        .route("/os-tenant-networks/{id}", routing::get(tenant_network))
}

fn visible(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Network>> {
    ask.mv.removed_since(GONE)?;
    cairn_network::servers::networks(tx, &ask.caller)
}

fn find(tx: &mut Tx, ask: &Ask, id: &str) -> ApiResult<Network> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, "Network not found");
    visible(tx, ask)?.into_iter().find(|n| n.id == id).ok_or_else(missing)
}

fn whole(tx: &mut Tx, n: &Network) -> ApiResult<Value> {
    let subnets = tx.by_index::<Subnet>("network", &n.id)?;
    let v4 = subnets.iter().find(|s| s.cidr.addr().is_ipv4());
    Ok(json!({
        "id": n.id, "label": n.name, "project_id": n.project_id, "mtu": n.mtu,
        "cidr": v4.map(|s| s.cidr.to_string()), "gateway": v4.and_then(|s| s.gateway_ip).map(|g| g.to_string()),
    }))
}

fn brief(n: &Network) -> Value {
    json!({"id": n.id, "label": n.name, "cidr": "None"})
}

async fn networks(State(svc): Svc, ask: Ask) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let all = visible(tx, &ask)?;
        let shown = all.iter().map(|n| whole(tx, n)).collect::<ApiResult<Vec<_>>>()?;
        Ok(Json(json!({"networks": shown})))
    })
}

async fn network(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let found = find(tx, &ask, &id)?;
        Ok(Json(json!({"network": whole(tx, &found)?})))
    })
}

async fn tenant_networks(State(svc): Svc, ask: Ask) -> ApiResult<Json<Value>> {
    let all = svc.store.read(|tx| visible(tx, &ask))?;
    Ok(Json(json!({"networks": all.iter().map(brief).collect::<Vec<_>>()})))
}

async fn tenant_network(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let found = svc.store.read(|tx| find(tx, &ask, &id))?;
    Ok(Json(json!({"network": brief(&found)})))
}
