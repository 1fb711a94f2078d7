//! The image service's own work: taking content from volumes, removing what deleted images leave, and putting
//! back the images whose upload died with an earlier run of the controller.
//!
//! It is driven by state: each pass reads the (short) lists of images being saved and of doomed content.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_shards::crypt::keys::SealedKey;
use cairn_shards::model::VolumeStatus;
use cairn_shards::volumes;
use cairn_state::{Abort, Record, conduct, record};

use crate::model::{Doomed, INDEX_WORK, Image, Incoming, WORK_SAVING};
use crate::{Service, upload};

/// The captures that run in this process.
type Running = Arc<Mutex<BTreeSet<String>>>;

/// Runs for ever.
pub async fn conductor(svc: Arc<Service>) {
    let running = Running::default();
    let prefixes = [
        record::index_prefix::<Image>(INDEX_WORK, WORK_SAVING),
        record::prefix::<Doomed>(),
        record::prefix::<VolumeStatus>(),
    ];
    conduct(&svc.store, "image", &prefixes, || pass(&svc, &running)).await;
}

/// Does what can be done now.
async fn pass(svc: &Arc<Service>, running: &Running) -> Result<(), Abort> {
    for image in svc.store.read(|tx| tx.by_index::<Image>(INDEX_WORK, WORK_SAVING))? {
        match image.incoming.clone() {
            Some(Incoming::Upload { run, .. }) if run == svc.run || (svc.lives)(&run) => {}
            Some(Incoming::Capture { volume, key }) => start_capture(svc, running, image.id, volume, key),
            Some(dead) => {
                tracing::info!(image = image.id, "its upload died with an earlier run of the controller");
                svc.store.transact(|tx| upload::fail(tx, &image.id, &dead, Some(&svc.node))).await?;
            }
            None => tracing::error!(image = image.id, "it is being saved from nowhere"),
        }
    }
    for doomed in svc.store.read(|tx| tx.list_unfenced::<Doomed>())? {
        svc.store
            .transact(|tx| {
                if volumes::purge_if_gone(tx, &doomed.id)? {
                    tx.delete::<Doomed>(&doomed.id())?;
                }
                Ok::<_, Abort>(())
            })
            .await?;
    }
    Ok(())
}

fn start_capture(svc: &Arc<Service>, running: &Running, id: String, volume: String, key: Option<SealedKey>) {
    if !lock(running).insert(id.clone()) {
        return;
    }
    let (svc, running) = (svc.clone(), running.clone());
    tokio::spawn(async move {
        let stored = svc.data.capture(&id, &volume).await;
        if let Err(e) = upload::settle(&svc, &id, &Incoming::Capture { volume, key }, stored).await {
            tracing::warn!(image = id, error = %e, "a volume could not be made an image");
        }
        lock(&running).remove(&id);
    });
}

fn lock(running: &Running) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}
