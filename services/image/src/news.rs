//! Waiting for changes of the store: what a conductor does between two passes.

use std::time::Duration;

use cairn_state::{LocalStore, Revision, Store};
use futures_util::StreamExt;
use futures_util::stream::select_all;

/// How long a conductor waits for news before it looks by itself.
const RESYNC: Duration = Duration::from_secs(60);
/// How long it waits when it cannot hear any.
const RETRY: Duration = Duration::from_secs(2);
/// How long changes gather before a pass: one transaction is several events.
const GATHER: Duration = Duration::from_millis(5);

/// Waits until a key under one of these prefixes has changed after this revision, or for a minute.
pub async fn wait(store: &LocalStore, prefixes: &[String], seen: Revision) {
    let mut streams = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        match store.watch(prefix, seen).await {
            Ok(stream) => streams.push(stream),
            // The history since then is gone: something has surely changed.
            Err(_) => return tokio::time::sleep(GATHER).await,
        }
    }
    match tokio::time::timeout(RESYNC, select_all(streams).next()).await {
        Ok(Some(Ok(_))) => tokio::time::sleep(GATHER).await,
        Ok(_) => tokio::time::sleep(RETRY).await,
        Err(_) => {}
    }
}
