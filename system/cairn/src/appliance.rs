//! The appliance's own API at `/appliance/v1`, and what the status page at `/` says.
//!
//! But for the cloud's address it only reads: how the cloud stands, what the roles report of themselves, and how many
//! records of each kind the store holds. What concerns the cloud's members is the controller's, given as routes. For
//! administrators, but for the page.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, put};
use axum::{Json, Router};
use cairn_gateway::mount::BODY_MAX;
use cairn_gateway::server::{Status, StatusPage};
use cairn_gateway::{ApiError, ApiResult, Body, Caller, ErrorStyle, Mount};
use cairn_shards::redundancy::redundancy;
use cairn_state::{LocalStore, RoleStatus};
use http::StatusCode;
use serde_json::{Value, json};

use crate::roles::controller::{Address, Cluster, address, overview};

/// A role that was not heard of for this long is taken for dead, in seconds.
const SILENT_S: i64 = 30;
/// What users make: the first element of the keys that an inventory counts.
const COUNTED: [&str; 6] = ["block/", "compute/", "image/", "network/", "placement/", "shards/"];
/// Kinds that are the services' own book-keeping and outlive what they count.
const BOOKKEEPING: [&str; 15] = [
    "network/router-load",
    "network/usage",
    "network/address-search",
    "network/address-block",
    "network/host",
    "network/virtual-address",
    "compute/usage",
    "compute/host",
    "compute/host-policy",
    "compute/action-log",
    "compute/counter",
    "compute/migration",
    "block/usage",
    "block/provisioned",
    "placement/provider",
];

/// The appliance's API.
pub struct Appliance {
    cluster: Arc<Cluster>,
    store: LocalStore,
    ca: PathBuf,
    members: Router,
}

impl Appliance {
    /// The API of this member of a cloud; `ca` is the CA certificate's file, `members` what else it answers, each route
    /// with its own check of who asks.
    pub fn new(cluster: Arc<Cluster>, ca: PathBuf, members: Router) -> Appliance {
        let store = cluster.store.clone();
        Appliance { cluster, store, ca, members }
    }

    fn roles(&self) -> ApiResult<Vec<RoleStatus>> {
        self.store.read(|tx| Ok(tx.list_unfenced::<RoleStatus>()?))
    }
}

/// Its place under the endpoint.
pub fn mount(appliance: &Arc<Appliance>) -> Mount {
    let router = Router::new()
        .route("/status", get(status))
        .route("/inventory", get(inventory))
        .route("/address", put(set_address))
        .with_state(appliance.clone())
        .merge(appliance.members.clone());
    Mount { prefix: "/appliance/v1", style: ErrorStyle::Keystone, router, body_max: BODY_MAX }
}

/// `GET /appliance/v1/status`: the cloud's members, who of them votes and leads, who waits to be let in, what the next
/// loss would mean; every role's report; and how many copies volumes have.
async fn status(State(appliance): State<Arc<Appliance>>, caller: Caller) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let cloud = overview(&appliance.cluster).await.map_err(|e| ApiError::unavailable(e.to_string()))?;
    let redundancy = appliance.store.read(redundancy)?;
    Ok(Json(json!({"cloud": cloud, "roles": appliance.roles()?, "redundancy": redundancy})))
}

/// `PUT /appliance/v1/address`: gives the cloud one address on its LAN, or takes it back (`{"address": null}`).
async fn set_address(
    State(appliance): State<Arc<Appliance>>,
    caller: Caller,
    Body(wanted): Body<Address>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    address::set(&appliance.store, wanted.address).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /appliance/v1/inventory`: how many records of each kind there are, and what the agents found on their nodes.
async fn inventory(State(appliance): State<Arc<Appliance>>, caller: Caller) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let mut records: BTreeMap<String, u64> = BTreeMap::new();
    for prefix in COUNTED {
        let snapshot = appliance.store.snapshot().map_err(ApiError::from)?;
        for entry in snapshot.range(prefix, None, usize::MAX).map_err(ApiError::from)?.entries {
            if let Some(kind) = kind_of(&entry.key) {
                *records.entry(kind.to_owned()).or_default() += 1;
            }
        }
    }
    let mut nodes: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for role in appliance
        .roles()?
        .into_iter()
        .filter(|r| ["compute", "network", "storage"].contains(&r.role.as_str()))
    {
        nodes.entry(role.node).or_default().insert(role.role, role.facts);
    }
    Ok(Json(json!({"records": records, "nodes": nodes})))
}

/// The kind of a record by its key; nothing for an index entry or book-keeping.
fn kind_of(key: &str) -> Option<&str> {
    let (at, _) = key.match_indices('/').nth(1)?;
    let kind = &key[..at];
    (!kind.contains('.') && !BOOKKEEPING.contains(&kind)).then_some(kind)
}

impl StatusPage for Appliance {
    fn status(&self) -> Status {
        let now = jiff::Timestamp::now();
        let mut problems = Vec::new();
        if self.store.status().is_ok_and(|status| status.leader.is_none()) {
            problems.push("Nobody leads the cloud: nothing can be changed; see: cairn status.".to_owned());
        }
        for role in self.roles().unwrap_or_default() {
            if now.duration_since(role.updated).as_secs() > SILENT_S {
                problems.push(format!("The {} role of a node does not report.", role.role));
            }
            let faults: usize = role.reconcilers.iter().map(|r| r.faults.len()).sum();
            if faults > 0 {
                problems.push(format!(
                    "The {} role of a node has {faults} faults; see: cairn status.",
                    role.role
                ));
            }
        }
        let endpoint = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        let endpoints = vec![
            endpoint("Identity", "/identity"),
            endpoint("Image", "/image"),
            endpoint("Compute", "/compute/v2.1"),
            endpoint("Placement", "/placement"),
            endpoint("Network", "/network"),
            endpoint("Block storage", "/volume/v3"),
        ];
        Status { version: env!("CARGO_PKG_VERSION").into(), problems, endpoints }
    }

    fn ca_pem(&self) -> Option<String> {
        std::fs::read_to_string(&self.ca).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_users_things_are_counted() {
        assert_eq!(kind_of("compute/server/7"), Some("compute/server"));
        assert_eq!(kind_of("compute/server.by-project/p/7"), None);
        assert_eq!(kind_of("network/usage/p"), None);
        assert_eq!(kind_of("compute/server"), None);
    }
}
