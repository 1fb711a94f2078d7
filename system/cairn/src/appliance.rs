//! The appliance's own API at `/appliance/v1`, and what the status page at `/` says.
//!
//! What is here only reads: what the roles report of themselves, and how many records of each kind the store holds. What
//! concerns the cloud's members is the controller's, given as routes. For administrators, but for the page.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::mount::BODY_MAX;
use cairn_gateway::server::{Status, StatusPage};
use cairn_gateway::{ApiError, ApiResult, Caller, ErrorStyle, Mount};
use cairn_shards::redundancy::redundancy;
use cairn_state::{LocalStore, RoleStatus, Store};
use serde_json::{Value, json};

/// A role that was not heard of for this long is taken for dead, in seconds.
const SILENT_S: i64 = 30;
/// What users make: the first element of the keys that an inventory counts.
const COUNTED: [&str; 6] = ["block/", "compute/", "image/", "network/", "placement/", "shards/"];
/// Kinds that are the services' own book-keeping and outlive what they count.
const BOOKKEEPING: [&str; 14] = [
    "network/router-load",
    "network/usage",
    "network/address-search",
    "network/address-block",
    "network/host",
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
    store: LocalStore,
    ca: PathBuf,
    members: Router,
}

impl Appliance {
    /// The API over this store; `ca` is the CA certificate's file, `members` what else it answers, each route with its
    /// own check of who asks.
    pub fn new(store: LocalStore, ca: PathBuf, members: Router) -> Appliance {
        Appliance { store, ca, members }
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
        .with_state(appliance.clone())
        .merge(appliance.members.clone());
    Mount { prefix: "/appliance/v1", style: ErrorStyle::Keystone, router, body_max: BODY_MAX }
}

/// `GET /appliance/v1/status`: every role's report, and how many copies volumes have.
async fn status(State(appliance): State<Arc<Appliance>>, caller: Caller) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let redundancy = appliance.store.read(redundancy)?;
    Ok(Json(json!({"roles": appliance.roles()?, "redundancy": redundancy})))
}

/// `GET /appliance/v1/inventory`: how many records of each kind there are, and what the agents found on their nodes.
async fn inventory(State(appliance): State<Arc<Appliance>>, caller: Caller) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let mut records: BTreeMap<String, u64> = BTreeMap::new();
    for prefix in COUNTED {
        for entry in appliance.store.range(prefix, None, usize::MAX).await.map_err(ApiError::from)?.entries {
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
