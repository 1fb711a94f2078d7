//! What is done for volumes without anybody asking: marks are cleared, and damage is searched for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cairn_state::Reporter;
use serde_json::json;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::pool::Pool;
use crate::replication::replica::Replicas;
use crate::scrub::Scrub;

/// How often marks are cleared. They stay twice as long at least, so that what is written often is not marked often.
const EVERY: Duration = Duration::from_secs(5);

/// Takes care of the volumes of a pool. Never returns.
pub async fn run(pool: &Arc<Pool>, replicas: &Arc<Replicas>, reporter: &Reporter) {
    let scrub = Arc::new(Scrub::new(pool, replicas));
    let mut searches: HashMap<String, JoinHandle<()>> = HashMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let cleaned = pool.clone();
        let _ = spawn_blocking(move || clean(&cleaned)).await;
        for id in pool.disks().iter().map(|d| d.id().to_owned()) {
            if searches.get(&id).is_none_or(JoinHandle::is_finished) {
                let (scrub, disk) = (scrub.clone(), id.clone());
                searches.insert(id, spawn_blocking(move || scrub.search(&disk)));
            }
        }
        reporter.set_fact("search_for_damage", json!(scrub.progress()));
        reporter.set_fact("damage_met", met(pool));
    }
}

fn clean(pool: &Pool) {
    for (id, volume) in pool.opened() {
        if let Err(e) = volume.clean() {
            tracing::warn!(volume = id, error = %e, "marks of a volume stay");
        }
    }
}

/// Corrupt blocks that were met in use, and sums that were made right after a crash.
fn met(pool: &Pool) -> serde_json::Value {
    let found = pool.opened().into_iter().map(|(id, volume)| (id, volume.findings()));
    let found = found.filter(|(_, f)| f.corrupt + f.mended > 0);
    found.map(|(id, f)| (id, json!({"corrupt": f.corrupt, "mended": f.mended}))).collect()
}
