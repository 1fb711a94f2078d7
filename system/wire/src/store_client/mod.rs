//! The store of this node's controller, as an agent sees it: a [`Store`] behind a Unix socket.
//!
//! It connects when it is first needed and again when the connection was lost. A transaction whose answer
//! was lost is never sent twice: the caller is told [`StoreError::Unavailable`] and looks for itself.

mod connection;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cairn_state::kv::{Entry, LeaseId, Range, Revision, Store, StoreError, Txn, TxnOutcome, WatchStream};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::connection::Connection;
use crate::protocol::{Request, Response};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// A store reached through the controller's socket. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct RemoteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    connection: Option<Arc<Connection>>,
    failure: Option<Failure>,
}

/// The last attempt to connect, if it failed.
struct Failure {
    at: Instant,
    error: StoreError,
    backoff: Duration,
}

impl RemoteStore {
    /// A store behind the socket at `path`; nothing is connected yet.
    pub fn new(path: impl Into<PathBuf>) -> RemoteStore {
        RemoteStore { inner: Arc::new(Inner { path: path.into(), link: Mutex::default() }) }
    }

    /// The living connection, or a new one.
    async fn connection(&self) -> Result<Arc<Connection>, StoreError> {
        let asked = Instant::now();
        let mut link = self.inner.link.lock().await;
        if let Some(connection) = link.connection.as_ref().filter(|c| c.alive()) {
            return Ok(connection.clone());
        }
        link.connection = None;
        let mut backoff = BACKOFF_MIN;
        if let Some(failure) = &link.failure {
            // Another caller has tried while this one waited: its answer is ours too.
            if failure.at > asked {
                return Err(failure.error.clone());
            }
            tokio::time::sleep_until(failure.at + failure.backoff).await;
            backoff = (failure.backoff * 2).min(BACKOFF_MAX);
        }
        match Connection::open(&self.inner.path).await {
            Ok(connection) => {
                link.failure = None;
                link.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                link.failure = Some(Failure { at: Instant::now(), error: error.clone(), backoff });
                Err(error)
            }
        }
    }

    async fn call_once(&self, request: Request) -> Result<Response, StoreError> {
        self.connection().await?.call(request).await
    }

    /// A call that may be done twice without harm: tried again once if the connection was lost.
    async fn call(&self, request: Request) -> Result<Response, StoreError> {
        match self.call_once(request.clone()).await {
            Err(StoreError::Unavailable(_)) => self.call_once(request).await,
            result => result,
        }
    }

    async fn range_once(&self, request: Request) -> Result<Range, StoreError> {
        let mut answers = self.connection().await?.start(request)?;
        let mut entries = Vec::new();
        loop {
            match answers.next().await? {
                Response::RangePart(part) => entries.extend(part),
                Response::RangeEnd { at, more } => return Ok(Range { entries, at, more }),
                other => return Err(unexpected(&other)),
            }
        }
    }

    async fn watch_once(&self, request: Request) -> Result<WatchStream, StoreError> {
        self.connection().await?.watch(request).await
    }
}

fn unexpected(response: &Response) -> StoreError {
    StoreError::Unavailable(format!("an answer that does not fit the call: {response:?}"))
}

#[async_trait]
impl Store for RemoteStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        match self.call(Request::Get { key: key.to_owned() }).await? {
            Response::Entry(entry) => Ok(entry),
            other => Err(unexpected(&other)),
        }
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Range, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let request = Request::Range { prefix, after, limit: limit as u64 };
        match self.range_once(request.clone()).await {
            Err(StoreError::Unavailable(_)) => self.range_once(request).await,
            result => result,
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        match self.call_once(Request::Txn(txn)).await? {
            Response::Txn(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
        let request = Request::Watch { prefix: prefix.to_owned(), after };
        match self.watch_once(request.clone()).await {
            Err(StoreError::Unavailable(_)) => self.watch_once(request).await,
            result => result,
        }
    }

    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        match self.call_once(Request::LeaseGrant { ttl_ms }).await? {
            Response::Lease(lease) => Ok(lease),
            other => Err(unexpected(&other)),
        }
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.call(Request::LeaseKeepAlive(lease)).await.map(drop)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.call_once(Request::LeaseRevoke(lease)).await.map(drop)
    }
}
