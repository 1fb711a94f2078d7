//! What was written in the end, as a watch from the beginning tells, and a watcher that has followed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cairn_state::{Event, Revision, Store};
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::runtime::{below, live};
use crate::world::World;

/// All that was ever written.
#[derive(Debug, Default)]
pub struct Written {
    events: Vec<Event>,
    /// The revision of each value that clients have put.
    values: BTreeMap<u64, u64>,
    /// The revisions of keys that are not the clients'.
    foreign: Arc<BTreeSet<u64>>,
}

impl Written {
    /// Of values, which are never the same twice, and foreign revisions.
    pub fn of(values: BTreeMap<u64, u64>, foreign: BTreeSet<u64>) -> Written {
        Written { events: Vec::new(), values, foreign: Arc::new(foreign) }
    }

    /// What the first node tells.
    pub async fn read(world: &World) -> Result<Written, String> {
        let (store, _) = world.store(0).ok_or("a node is down in the calm")?;
        let mut watch = store.watch("", Revision(0)).await.map_err(|e| e.to_string())?;
        let mut events = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(1), watch.next()).await {
            events.push(event.map_err(|e| e.to_string())?);
        }
        let (mut values, mut foreign) = (BTreeMap::new(), BTreeSet::new());
        for event in &events {
            let at = event.revision().0;
            match event {
                Event::Put(entry) if entry.key.starts_with("k/") => {
                    let value = String::from_utf8_lossy(&entry.value).parse().map_err(|e| format!("{e}"))?;
                    if let Some(before) = values.insert(value, at) {
                        return Err(format!("{value} was put once, but at {before} and at {at}"));
                    }
                }
                Event::Delete { key, .. } if key.starts_with("k/") => {}
                _ => drop(foreign.insert(at)),
            }
        }
        Ok(Written { events, ..Written::of(values, foreign) })
    }

    /// The revision at which a value was put, if it ever was.
    pub fn at(&self, value: u64) -> Option<u64> {
        self.values.get(&value).copied()
    }

    /// The revisions that are none of the clients'.
    pub fn foreign(&self) -> Arc<BTreeSet<u64>> {
        self.foreign.clone()
    }

    /// Whether this is just how it began.
    pub fn follows(&self, seen: &[Event]) -> Result<(), String> {
        match self.events.starts_with(seen) {
            true => Ok(()),
            false => Err(format!("a watcher saw {seen:#?}, but written was {:#?}", self.events)),
        }
    }
}

/// Follows the changes, on another node whenever the one it follows is lost. (Each revision here changes one key:
/// a watcher that is lost within one would see the rest of it only by reading anew.)
pub async fn follow(world: Arc<World>, until: Instant) -> Result<Vec<Event>, String> {
    let mut seen: Vec<Event> = Vec::new();
    while Instant::now() < until {
        let Some((store, life)) = world.store(below(world.places() as u64) as usize) else {
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
