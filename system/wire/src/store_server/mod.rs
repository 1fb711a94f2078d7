//! The store, served to the other roles of this node over a Unix socket.
//!
//! Who may read and write what is decided by the caller's policy from the peer's credentials. It must never let a peer change a key outside of its prefixes, by whatever call, and a peer
//! that is slow or hostile must cost the others nothing.

mod connection;

use std::sync::Arc;
use std::time::Duration;

use cairn_state::kv::{Compare, Op, Revision};
use cairn_state::{LocalStore, StoreError};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use self::connection::Connection;
use crate::local_socket::Peer;
use crate::protocol::{self, Hello, Sink, Source, VERSIONS, Welcome};

/// How long a peer may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// The most connections; a node has a handful.
const CONNECTIONS_MAX: usize = 256;

/// What a peer is, and may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name, for messages and logs.
    pub name: String,
    /// The prefixes of the keys it may write; the empty prefix means all. A prefix is taken literally: end it
    /// with `/` unless more is meant.
    pub may_write: Vec<String>,
    /// The prefixes of the keys it may only change by compare-and-swap: each put comes with a comparison of the key's
    /// own revision, of a key that is there. It neither makes such a key nor ends it, be it by a lease.
    pub may_swap: Vec<String>,
    /// The prefixes of the keys it may read, likewise.
    pub may_read: Vec<String>,
}

impl Role {
    /// Whether this key may be written.
    pub fn may_write(&self, key: &str) -> bool {
        self.may_write.iter().any(|prefix| key.starts_with(prefix))
    }

    /// Whether this key, or every key with this prefix, may be read.
    pub fn may_read(&self, key: &str) -> bool {
        self.may_read.iter().any(|prefix| key.starts_with(prefix))
    }

    /// Whether this change is permitted in a transaction that begins with these comparisons.
    fn permits(&self, op: &Op, compares: &[Compare]) -> bool {
        let (Op::Put { key, .. } | Op::Delete { key }) = op;
        self.may_write(key) || (self.may_swap(key) && is_swap(op, compares))
    }

    fn may_swap(&self, key: &str) -> bool {
        self.may_swap.iter().any(|prefix| key.starts_with(prefix))
    }

    fn permit_read(&self, key: &str) -> Result<(), StoreError> {
        if self.may_read(key) { Ok(()) } else { Err(self.forbidden(key)) }
    }

    fn forbidden(&self, key: &str) -> StoreError {
        StoreError::Forbidden { role: self.name.clone(), key: key.to_owned() }
    }
}

fn is_swap(op: &Op, compares: &[Compare]) -> bool {
    let Op::Put { key, lease: None, .. } = op else { return false };
    compares
        .iter()
        .any(|c| matches!(c, Compare::Modified(compared, at) if compared == key && *at > Revision(0)))
}

/// Decides what a peer is; `None` refuses it.
pub type Policy = Arc<dyn Fn(Peer) -> Option<Role> + Send + Sync>;

/// Serves the store to whoever connects and passes the policy. It never returns; when it is dropped, all
/// connections are closed.
pub async fn serve(listener: UnixListener, store: LocalStore, policy: Policy) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(welcome(stream, store.clone(), policy.clone()));
                }
                Err(e) => {
                    // Out of file descriptors, most likely; others must end first.
                    tracing::warn!(error = %e, "no connection to the store could be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn welcome(stream: UnixStream, store: LocalStore, policy: Policy) {
    let Ok(peer) = Peer::of(&stream) else { return };
    let (mut source, mut sink) = protocol::frames(stream);
    let role = policy(peer);
    match tokio::time::timeout(HELLO_TIMEOUT, greet(&mut source, &mut sink, role.is_some())).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return tracing::warn!(?peer, error = %e, "a peer of the store was refused"),
        Err(_) => return tracing::warn!(?peer, "a peer of the store said nothing"),
    }
    if let Some(role) = role {
        tracing::debug!(?peer, role = role.name, "a peer of the store connected");
        Connection::new(store, role).run(source, sink).await;
    }
}

/// The handshake; an error says why the peer was refused.
async fn greet(source: &mut Source, sink: &mut Sink, known: bool) -> Result<(), StoreError> {
    let lost = |e: std::io::Error| StoreError::Unavailable(e.to_string());
    let frame = source.next().await.ok_or_else(|| StoreError::Unavailable("closed".into()))?.map_err(lost)?;
    let hello: Hello = protocol::decode(&frame)?;
    let version = VERSIONS.iter().find(|v| hello.versions.contains(v));
    let (welcome, result) = match version {
        Some(version) if known => (Welcome::Version(*version), Ok(())),
        Some(_) => refuse("this user has no role on this node".into()),
        None => refuse(format!("no common version: spoken here {VERSIONS:?}, there {:?}", hello.versions)),
    };
    sink.send(protocol::encode(&welcome)?).await.map_err(lost)?;
    result
}

fn refuse(why: String) -> (Welcome, Result<(), StoreError>) {
    (Welcome::Refused(why.clone()), Err(StoreError::Unavailable(why)))
}
