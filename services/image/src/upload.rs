//! How content comes into an image: queued, saving, active; or back to where it was, with nothing left.
//!
//! Each step is one transaction that checks what it finds: an image may be deleted, and a controller restarted,
//! while its content streams in.

use std::sync::Arc;

use axum::body::Body;
use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_shards::model::VolumeSpec;
use cairn_shards::volumes;
use cairn_state::{Abort, Tx};
use jiff::Timestamp;

use crate::data::{DataError, Stored};
use crate::model::{Doomed, Image, Incoming, Status};
use crate::{Service, access};

/// The largest disk an image may describe, in bytes: 4 TiB.
pub const VIRTUAL_BYTES_MAX: u64 = 4 << 40;

/// Stores a stream as the content of a queued image. It goes on to its end, good or bad, even if the future is
/// dropped: so a client that goes away leaves a queued image, never a half-saved one.
pub async fn upload(svc: &Arc<Service>, caller: &Caller, id: &str, body: Body) -> ApiResult<()> {
    let incoming = Incoming::Upload { run: svc.run.clone(), id: uuid::Uuid::new_v4().to_string() };
    let begun = svc.store.transact(|tx| begin(tx, caller, id, &incoming)).await?;
    let format = begun.disk_format.unwrap_or_default();
    let (svc, id) = (svc.clone(), id.to_owned());
    let task = tokio::spawn(async move {
        let stored = svc.data.import(&id, &format, VIRTUAL_BYTES_MAX, body).await;
        settle(&svc, &id, &incoming, stored).await
    });
    task.await.map_err(ApiError::internal)?
}

fn begin(tx: &mut Tx, caller: &Caller, id: &str, incoming: &Incoming) -> ApiResult<Image> {
    let mut image = access::writable(tx, caller, id)?;
    if image.status != Status::Queued {
        let now = image.status.name();
        return Err(ApiError::conflict(format!(
            "Image status transition from {now} to saving is not allowed"
        )));
    }
    if image.disk_format.is_none() || image.container_format.is_none() {
        return Err(ApiError::bad_request(
            "Properties disk_format, container_format must be set prior to saving data.",
        ));
    }
    if tx.get::<VolumeSpec>(id)?.is_some() {
        return Err(ApiError::conflict(
            "What an earlier upload to this image left is still being removed; try again in a moment.",
        ));
    }
    image.status = Status::Saving;
    image.incoming = Some(incoming.clone());
    image.updated_at = Timestamp::now();
    tx.put(&image)?;
    Ok(image)
}

/// Ends an upload or a capture, whichever way it went.
pub(crate) async fn settle(
    svc: &Service,
    id: &str,
    incoming: &Incoming,
    stored: Result<Stored, DataError>,
) -> ApiResult<()> {
    match stored {
        Ok(stored) => {
            let kept = svc.store.transact(|tx| finish(tx, id, incoming, &svc.node, &stored)).await?;
            if kept {
                return Ok(());
            }
            Err(ApiError::new(http::StatusCode::GONE, format!("Image {id} was deleted during the upload.")))
        }
        Err(e) => {
            // A broken connection leaves it open whether something was kept; so does a capture that finds what
            // an earlier try has kept, just before a restart.
            let unsure = matches!(
                (&e, incoming),
                (DataError::Broken(_), _) | (DataError::Refused(_), Incoming::Capture { .. })
            );
            svc.store.transact(|tx| fail(tx, id, incoming, unsure.then_some(svc.node.as_str()))).await?;
            Err(e.into())
        }
    }
}

/// Makes the image active. False if it is no longer there for this content, which is then removed.
fn finish(tx: &mut Tx, id: &str, incoming: &Incoming, node: &str, stored: &Stored) -> ApiResult<bool> {
    let Some(mut image) = awaiting(tx, id, incoming)? else {
        doom(tx, id, Some(node))?;
        return Ok(false);
    };
    let content = VolumeSpec::new(id, node, stored.virtual_size);
    let key = match incoming {
        Incoming::Capture { key, .. } => key.clone(),
        Incoming::Upload { .. } => None,
    };
    volumes::create_under(tx, VolumeSpec { read_only: true, ..content }, key)?;
    image.status = Status::Active;
    image.incoming = None;
    image.size = Some(stored.size);
    image.virtual_size = Some(stored.virtual_size);
    image.checksum = Some(stored.md5.clone());
    image.os_hash_value = Some(stored.sha512.clone());
    image.updated_at = Timestamp::now();
    tx.put(&image)?;
    Ok(true)
}

/// Puts the image back to where it was (a capture cannot be repeated by its user, so its image is killed).
/// With a node, whatever content may lie there is removed.
pub(crate) fn fail(tx: &mut Tx, id: &str, incoming: &Incoming, node: Option<&str>) -> Result<(), Abort> {
    if node.is_some() {
        doom(tx, id, node)?;
    }
    let Some(mut image) = awaiting(tx, id, incoming)? else { return Ok(()) };
    image.status = match incoming {
        Incoming::Upload { .. } => Status::Queued,
        Incoming::Capture { .. } => Status::Killed,
    };
    image.incoming = None;
    image.updated_at = Timestamp::now();
    tx.put(&image)
}

/// The image, if it is still waiting for just this content.
fn awaiting(tx: &mut Tx, id: &str, incoming: &Incoming) -> Result<Option<Image>, Abort> {
    Ok(tx.get::<Image>(id)?.filter(|i| i.status == Status::Saving && i.incoming.as_ref() == Some(incoming)))
}

/// Asks for the end of an image's content. With a node, content that no spec names yet is looked for there.
pub(crate) fn doom(tx: &mut Tx, id: &str, node: Option<&str>) -> Result<(), Abort> {
    match node {
        Some(node) => volumes::abandon(tx, id, node)?,
        None => volumes::delete(tx, id)?,
    }
    if tx.get::<VolumeSpec>(id)?.is_some() {
        tx.put(&Doomed { id: id.into() })?;
    }
    Ok(())
}
