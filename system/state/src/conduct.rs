//! The loop every conductor runs in the controller: a pass, then wait until something it follows has changed (or
//! time passes), and again.
//!
//! It drives; what a pass does is the conductor's. A pass must be idempotent and may be stopped anywhere.

use std::fmt::Display;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::select_all;

use crate::LocalStore;
use crate::kv::{Revision, Store};

/// How long it waits for a change before it looks by itself.
const RESYNC: Duration = Duration::from_secs(30);
/// How long it waits after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// How long changes gather before a pass: one transaction is several events.
const GATHER: Duration = Duration::from_millis(5);

/// Runs `pass` for ever: at once, after each change of a key under one of `prefixes`, and some time after a pass
/// that failed, which the log is told under `name`.
pub async fn conduct<F, E>(store: &LocalStore, name: &str, prefixes: &[String], mut pass: impl FnMut() -> F)
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    loop {
        // What changes from here on is for the next pass.
        let seen = store.snapshot().map_or(Revision(0), |s| s.revision());
        match pass().await {
            Ok(()) => change(store, prefixes, seen).await,
            Err(error) => {
                tracing::warn!(conductor = name, %error, "a pass failed");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Waits until a key under one of these prefixes has changed after this revision, or for [`RESYNC`].
async fn change(store: &LocalStore, prefixes: &[String], seen: Revision) {
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
