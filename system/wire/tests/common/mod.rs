//! What the tests of the sockets share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cairn_state::{LocalStore, Op, Txn};
use cairn_wire::{Peer, Role, local_socket, store_server};
use tokio::task::JoinHandle;

/// A transaction that puts one key.
pub fn put(key: &str, value: &str) -> Txn {
    let value = value.to_owned().into();
    Txn { compares: vec![], ops: vec![Op::Put { key: key.into(), value, lease: None }] }
}

/// Serves the store to a role that may write these prefixes.
pub fn serve(path: &Path, store: LocalStore, may_write: &[&str]) -> JoinHandle<()> {
    serve_to(path, store, may_write, &[""])
}

/// The same, to a role that may read no other than these prefixes.
pub fn serve_to(path: &Path, store: LocalStore, may_write: &[&str], may_read: &[&str]) -> JoinHandle<()> {
    let [may_write, may_read] = [may_write, may_read].map(|p| p.iter().map(|p| p.to_string()).collect());
    serve_role(path, store, Role { name: "compute".into(), may_write, may_swap: vec![], may_read })
}

/// The same, to this role.
pub fn serve_role(path: &Path, store: LocalStore, role: Role) -> JoinHandle<()> {
    let listener = local_socket::bind(path, 0o600).unwrap();
    let policy = move |peer: Peer| (peer.pid == std::process::id() as i32).then(|| role.clone());
    tokio::spawn(store_server::serve(listener, store, Arc::new(policy)))
}

/// Stops a server and waits until it has let go of the store.
pub async fn stop(server: JoinHandle<()>) {
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
}

/// What the future gives; it must not take long.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("nothing came")
}
