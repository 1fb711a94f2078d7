//! What a role's process says about itself: its reconcilers, facts about the node, and that it is alive.
//!
//! It writes one record, [`RoleStatus`], and no other. It survives any outage of the store: the newest
//! status is written when the store is back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::kv::SharedStore;
use crate::reconcile::ReconcilerStatus;
use crate::record::{Record, StoreExt};

/// The shortest time between two writes.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);
/// The longest time between two writes: who reads `updated` knows that the role is alive.
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How one role on one node is doing. Its writer is that role's process on that node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleStatus {
    /// The node.
    pub node: String,
    /// The role: `controller`, `compute`, `network`, `storage` or `node`.
    pub role: String,
    /// The process.
    pub pid: u32,
    /// The release it runs.
    pub version: String,
    /// When the process started to report.
    pub started: Timestamp,
    /// When this was written; at least every ten seconds while the role lives.
    pub updated: Timestamp,
    /// Its reconcilers, by name.
    pub reconcilers: Vec<ReconcilerStatus>,
    /// What the role found on the node: a JSON object, by the names given to [`Reporter::set_fact`].
    pub facts: serde_json::Value,
}

impl Record for RoleStatus {
    const KIND: &'static str = "node/status";

    fn id(&self) -> String {
        format!("{}/{}", self.node, self.role)
    }
}

/// Collects what a role has to say and writes it to the store. Cheap to clone; it reports until the last
/// clone is dropped.
#[derive(Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
    _writer: Arc<Writer>,
}

struct Writer(AbortHandle);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Shared {
    identity: RoleStatus,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    reconcilers: BTreeMap<String, ReconcilerStatus>,
    facts: serde_json::Map<String, serde_json::Value>,
}

impl Reporter {
    /// Starts to report as `role` of `node`. Needs a tokio runtime.
    pub fn new(store: SharedStore, node: impl Into<String>, role: impl Into<String>) -> Reporter {
        let now = Timestamp::now();
        let identity = RoleStatus {
            node: node.into(),
            role: role.into(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started: now,
            updated: now,
            reconcilers: Vec::new(),
            facts: serde_json::Value::Null,
        };
        let shared = Arc::new(Shared { identity, state: Mutex::default(), changed: Notify::new() });
        let writer = Arc::new(Writer(tokio::spawn(write(store, shared.clone())).abort_handle()));
        Reporter { shared, _writer: writer }
    }

    /// Sets a fact about the node, under a name of its own.
    pub fn set_fact(&self, name: &str, value: serde_json::Value) {
        self.shared.change(|state| state.facts.insert(name.to_owned(), value.clone()) != Some(value));
    }

    /// Sets how a reconciler is doing; [`crate::reconcile::run`] does so after each pass.
    pub fn report(&self, status: ReconcilerStatus) {
        self.shared.change(|state| {
            let old = state.reconcilers.insert(status.name.clone(), status.clone());
            // That it ran again is not worth a write of its own.
            old.is_none_or(|old| old.faults != status.faults)
        });
    }
}

impl Shared {
    fn change(&self, f: impl FnOnce(&mut State) -> bool) {
        if f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.changed.notify_one();
        }
    }

    fn status(&self) -> RoleStatus {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        RoleStatus {
            updated: Timestamp::now(),
            reconcilers: state.reconcilers.values().cloned().collect(),
            facts: state.facts.clone().into(),
            ..self.identity.clone()
        }
    }
}

async fn write(store: SharedStore, shared: Arc<Shared>) {
    loop {
        let wait = match store.put_record(&shared.status()).await {
            Ok(()) => ALIVE_INTERVAL - WRITE_INTERVAL,
            Err(e) => {
                tracing::debug!(error = %e, "the status was not written");
                WRITE_INTERVAL
            }
        };
        tokio::time::sleep(WRITE_INTERVAL).await;
        // Elapsed or changed: either way it is time to write.
        let _ = tokio::time::timeout(wait, shared.changed.notified()).await;
    }
}
