//! The other nodes, as this one calls them: by identity. One connection to each, made when it is first needed and
//! again when it broke; addresses are hints that may change at any time.
//!
//! A call that may have been sent is never sent again. After a failure to connect, calls fail at once for a moment, so that a dead
//! node costs its callers nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::Endpoint;
use super::client::Connection;
use super::error::Error;
use super::peer::PeerId;
use super::tls::Expect;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The other nodes. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Peers {
    endpoint: Endpoint,
    links: Arc<Mutex<HashMap<PeerId, Link>>>,
}

#[derive(Clone, Default)]
struct Link {
    addresses: Vec<SocketAddr>,
    state: Arc<AsyncMutex<State>>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    failure: Option<Failure>,
}

/// The last attempt to connect, if it failed.
struct Failure {
    addresses: Vec<SocketAddr>,
    until: Instant,
    backoff: Duration,
    error: Error,
}

impl Peers {
    /// No node is known yet.
    pub fn new(endpoint: Endpoint) -> Peers {
        Peers { endpoint, links: Arc::default() }
    }

    /// Where a node can be tried from now on, the likeliest first.
    pub fn set_addresses(&self, node: PeerId, addresses: Vec<SocketAddr>) {
        self.lock().entry(node).or_default().addresses = addresses;
    }

    /// Where a node can be tried, as long as nobody has said anything better.
    pub fn hint(&self, node: PeerId, addresses: impl FnOnce() -> Vec<SocketAddr>) {
        let mut links = self.lock();
        let link = links.entry(node).or_default();
        if link.addresses.is_empty() {
            link.addresses = addresses();
        }
    }

    /// Forgets every node but these, and closes the connections to the others.
    pub fn keep_only(&self, keep: impl Fn(&PeerId) -> bool) {
        self.lock().retain(|node, _| keep(node));
    }

    /// Calls `service/method` of a node with one message, for one.
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        node: PeerId,
        method: &str,
        message: &Q,
        within: Duration,
    ) -> Result<A, Error> {
        let called = async {
            match self.connection(node).await?.call(method, message, within).await {
                // It had ended unnoticed, and nothing was sent.
                Err(Error::Unreachable(_)) => {
                    self.connection(node).await?.call(method, message, within).await
                }
                answer => answer,
            }
        };
        tokio::time::timeout(within, called).await.map_err(|_| Error::TimedOut(within.as_millis()))?
    }

    /// The living connection to a node, or a new one.
    pub async fn connection(&self, node: PeerId) -> Result<Connection, Error> {
        let Some(Link { addresses, state }) = self.lock().get(&node).cloned() else {
            return Err(Error::unreachable(node));
        };
        let mut state = state.lock().await;
        if let Some(connection) = state.connection.as_ref().filter(|c| c.alive()) {
            return Ok(connection.clone());
        }
        state.connection = None;
        let mut backoff = BACKOFF_MIN;
        if let Some(failure) = state.failure.as_ref().filter(|f| f.addresses == addresses) {
            if Instant::now() < failure.until {
                return Err(failure.error.clone());
            }
            backoff = (failure.backoff * 2).min(BACKOFF_MAX);
        }
        match Connection::open(&self.endpoint, &addresses, Expect::Node(node)).await {
            Ok(connection) => {
                *state = State { connection: Some(connection.clone()), failure: None };
                Ok(connection)
            }
            Err(error) => {
                let until = Instant::now() + backoff;
                state.failure = Some(Failure { addresses, until, backoff, error: error.clone() });
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
