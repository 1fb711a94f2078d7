//! A watcher that follows while faults strike, and what it must have seen.

use std::sync::Arc;
use std::time::Duration;

use cairn_state::{Event, Revision, Store};
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::runtime::{below, live};
use crate::world::World;

/// Whether this is just how what was written began.
pub fn agrees(written: &[Event], seen: &[Event]) -> Result<(), String> {
    match written.starts_with(seen) {
        true => Ok(()),
        false => Err(format!("a watcher saw {seen:#?}, but written was {written:#?}")),
    }
}

/// Follows the changes, on another node whenever the one it follows is lost. (Each revision here changes one key:
/// a watcher that is lost within one would see the rest of it only by reading anew.)
pub async fn follow(world: Arc<World>, until: Instant) -> Result<Vec<Event>, String> {
    let mut seen: Vec<Event> = Vec::new();
    while Instant::now() < until {
        let Some((store, life)) = world.store(world.any()) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let last = seen.last().map_or(Revision(0), Event::revision);
        let opened = tokio::time::timeout(Duration::from_secs(3), live(&life, store.watch("", last))).await;
        drop(store);
        let Ok(Ok(mut watch)) = opened else { continue };
        let patience = Duration::from_millis(200 + below(800));
        while let Ok(Some(Ok(event))) = tokio::time::timeout(patience, watch.next()).await {
            seen.push(event);
        }
    }
    Ok(seen)
}
