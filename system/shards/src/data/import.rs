//! Making images: of an upload, and of a volume. Each is built in staging and published whole.
//!
//! If anything fails, or the caller goes away (its future is dropped), staging vanishes with the last task that
//! uses it, and nothing is left.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use axum::body::Body;
use tokio::task::spawn_blocking;

use super::ingest::{self, Hashes, OneFile, Segments};
use super::{DataError, ImageImported, Inner, qcow2};
use crate::disk::Staging;
use crate::external::driver::Driver;
use crate::format::{self, ImageSource, Manifest};
use crate::fsio;
use crate::pool::Claim;
use crate::volume::{self, Volume};

/// The raw file between a conversion and its cutting into segments.
const CONVERTED: &str = "converted";
/// How much of a volume is hashed at a time, in bytes.
const HASH_CHUNK: u64 = 1 << 20;

/// What an upload is declared to be.
pub struct Wanted {
    /// `raw`, `iso` or `qcow2`.
    pub format: String,
    /// The largest virtual size, in bytes.
    pub cap: u64,
    /// Bytes to come, if that was said.
    pub length: Option<u64>,
}

/// Imports an upload as the image `id`.
pub async fn upload(
    inner: &Arc<Inner>,
    id: &str,
    wanted: Wanted,
    body: Body,
) -> Result<ImageImported, DataError> {
    let (claim, staging) = match begin(inner, id, &wanted) {
        Ok(begun) => begun,
        Err(e) => {
            ingest::drain(body.into_data_stream()).await;
            return Err(e);
        }
    };
    match wanted.format.as_str() {
        "qcow2" => upload_qcow2(inner, claim, staging, wanted, body).await,
        _ => upload_raw(claim, staging, wanted, body).await,
    }
}

/// Refuses what need not be read to be refused; makes a place for the rest.
fn begin(inner: &Arc<Inner>, id: &str, wanted: &Wanted) -> Result<(Claim, Staging), DataError> {
    if !["raw", "iso", "qcow2"].contains(&wanted.format.as_str()) {
        let format = &wanted.format;
        return Err(DataError::refused(format!(
            "the disk format {format} is not supported: convert it to raw or qcow2 first"
        )));
    }
    let claim = inner.claim(id)?;
    let disk = inner.pool.roomiest()?;
    if wanted.length.is_some_and(|length| disk.space().is_ok_and(|(_, free)| length > free)) {
        return Err(DataError::full());
    }
    Ok((claim, disk.stage(id)?))
}

/// What comes in is stored as it is, whatever it looks like: a raw image is never opened as anything else.
async fn upload_raw(
    claim: Claim,
    staging: Staging,
    wanted: Wanted,
    body: Body,
) -> Result<ImageImported, DataError> {
    let target = Segments { dir: staging.path().into(), size: format::SEGMENT_SIZE, open: None };
    // The writer holds staging too: dropping this future must not clear a directory that is being written.
    let (hashes, Kept(_, staging)) = ingest::take(body, wanted.cap, Kept(target, staging)).await?;
    let (size, md5, sha512) = hashes.finish();
    if size == 0 {
        return Err(DataError::refused("the upload is empty"));
    }
    if let Some(other) =
        first_bytes(staging.path(), &format::segment_name(0)).as_deref().and_then(qcow2::looks_formatted)
    {
        tracing::warn!(
            image = claim.id(),
            other,
            "a raw image begins like another format; it is kept as raw bytes"
        );
    }
    let source = ImageSource { disk_format: wanted.format, size, md5, sha512, original_kept: false };
    publish(claim, staging, source, size).await
}

async fn upload_qcow2(
    inner: &Inner,
    claim: Claim,
    staging: Staging,
    wanted: Wanted,
    body: Body,
) -> Result<ImageImported, DataError> {
    let original = staging.path().join(format::ORIGINAL);
    let file = File::create_new(&original)?;
    // A qcow2 file may be a little larger than the disk it describes.
    let max = wanted.cap.saturating_add(wanted.cap / 8).saturating_add(64 << 20);
    let (hashes, Kept(_, staging)) = ingest::take(body, max, Kept(OneFile(file), staging)).await?;
    let (size, md5, sha512) = hashes.finish();
    let head = first_bytes(staging.path(), format::ORIGINAL).unwrap_or_default();
    qcow2::inspect(&head, wanted.cap).map_err(DataError::refused)?;
    let converted = staging.path().join(CONVERTED);
    let virtual_size = {
        let _turn = inner.converting.acquire().await.map_err(io::Error::other)?;
        let virtual_size = inner.limits.check(&original, wanted.cap).await?;
        inner.limits.to_raw(&original, &converted, virtual_size).await?;
        virtual_size
    };
    let staging = spawn_blocking(move || cut(&staging, virtual_size).map(|()| staging));
    let staging = staging.await.map_err(io::Error::other)??;
    let source = ImageSource { disk_format: wanted.format, size, md5, sha512, original_kept: true };
    publish(claim, staging, source, virtual_size).await
}

/// Cuts the converted file into segments.
fn cut(staging: &Staging, size: u64) -> io::Result<()> {
    let path = staging.path().join(CONVERTED);
    if size <= format::SEGMENT_SIZE {
        return std::fs::rename(path, staging.path().join(format::segment_name(0)));
    }
    let whole = File::open(&path)?;
    for index in 0..size.div_ceil(format::SEGMENT_SIZE) {
        let offset = index * format::SEGMENT_SIZE;
        let len = (size - offset).min(format::SEGMENT_SIZE);
        let to = File::create_new(staging.path().join(format::segment_name(index as usize)))?;
        fsio::clone_range(&whole, offset, len, &to)?;
    }
    std::fs::remove_file(path)
}

/// Makes the image `id` of a volume that another system keeps, as it is at one moment.
pub async fn from_backend(
    inner: &Arc<Inner>,
    id: &str,
    volume: &str,
    driver: Arc<dyn Driver>,
) -> Result<ImageImported, DataError> {
    let wanted = Wanted { format: "raw".into(), cap: u64::MAX, length: None };
    let (claim, staging) = begin(inner, id, &wanted)?;
    let content = driver.read(volume, id).await?;
    let stored = upload_raw(claim, staging, wanted, Body::from_stream(content)).await;
    // If the caller goes away instead, it is done when it asks again, or with the volume.
    driver.read_ended(volume, id).await?;
    stored
}

/// Makes the image `id` of a volume, as that goes by here, as it is at one moment.
pub async fn from_volume(inner: &Arc<Inner>, id: &str, volume: &str) -> Result<ImageImported, DataError> {
    let claim = inner.claim(id)?;
    // If the caller goes away, the hashing (the long part) must end too.
    let gone = CancelOnDrop::default();
    let (pool, cancelled, id, volume) =
        (inner.pool.clone(), gone.0.clone(), id.to_owned(), volume.to_owned());
    let built = spawn_blocking(move || {
        let size = pool.open(&volume)?.size();
        let mut manifest = Manifest::new(&id, size, true);
        let staging = pool.stage_clone(&volume, &mut manifest)?;
        volume::write_manifest(staging.path(), &manifest)?;
        let hashes = hash(staging.path(), &id, &cancelled)?;
        Ok::<_, io::Error>((staging, manifest, hashes))
    });
    let (staging, manifest, hashes) = built.await.map_err(io::Error::other)??;
    let (size, md5, sha512) = hashes.finish();
    let source = ImageSource { disk_format: "raw".into(), size, md5, sha512, original_kept: false };
    finish(claim, staging, Manifest { image: Some(source), ..manifest }).await
}

#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Hashes what a staged volume holds.
fn hash(dir: &Path, id: &str, cancelled: &AtomicBool) -> io::Result<Hashes> {
    let volume = Volume::open_as(dir, id)?;
    let mut hashes = Hashes::default();
    let mut buffer = vec![0; HASH_CHUNK as usize];
    let mut offset = 0;
    while offset < volume.size() {
        if cancelled.load(SeqCst) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = HASH_CHUNK.min(volume.size() - offset);
        let chunk = &mut buffer[..len as usize];
        volume.read_slice(offset, chunk)?;
        hashes.update(chunk);
        offset += len;
    }
    Ok(hashes)
}

async fn publish(
    claim: Claim,
    staging: Staging,
    source: ImageSource,
    virtual_size: u64,
) -> Result<ImageImported, DataError> {
    // Its segments were written past the volume: it has no sums before they are made.
    let format = format::VOLUME_FORMAT_UNSUMMED;
    let manifest = Manifest { image: Some(source), format, ..Manifest::new(claim.id(), virtual_size, true) };
    finish(claim, staging, manifest).await
}

async fn finish(claim: Claim, staging: Staging, manifest: Manifest) -> Result<ImageImported, DataError> {
    let image = manifest.image.clone().ok_or_else(|| DataError::refused("not an image"))?;
    let virtual_size = manifest.size;
    let published = spawn_blocking(move || {
        volume::write_manifest(staging.path(), &manifest)?;
        if !manifest.is_summed() {
            volume::make_sums(staging.path(), &manifest.id)?;
        }
        staging.publish(&manifest.id)?;
        drop(claim);
        Ok::<_, io::Error>(())
    });
    published.await.map_err(io::Error::other)??;
    Ok(ImageImported { size: image.size, md5: image.md5, sha512: image.sha512, virtual_size })
}

fn first_bytes(dir: &Path, name: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut head = Vec::new();
    File::open(dir.join(name)).ok()?.take(qcow2::HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    Some(head)
}

/// A target and the staging directory it writes into.
struct Kept<T>(T, Staging);

impl<T: ingest::Target> ingest::Target for Kept<T> {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(offset, bytes)
    }
}
