//! The data socket: images in and out, over HTTP on a Unix socket of the node.
//!
//! `PUT /images/{id}` imports an upload, `GET /images/{id}` gives it back, `PUT /images/{id}/from-volume/{volume}`
//! makes an image of a volume. [`Client`] wraps these for the controller. An import ends as a whole read-only
//! volume or leaves nothing, whatever breaks; its removal is the tombstone of its spec, like any volume's.
//!
//! An upload is hostile. It is never opened by format guessing: as what it was declared, or not at all; qcow2 is
//! looked at by us first ([`qcow2`]), then by a confined `qemu-img` ([`convert`]).

mod client;
mod convert;
mod import;
mod ingest;
mod qcow2;
mod read;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use cairn_state::Mirror;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

pub use client::{Client, ImportError};
pub use convert::ConvertLimits;

use crate::external::check::{self, Found};
use crate::external::driver::Driver;
use crate::external::family::Family;
use crate::external::orders::NewBackend;
use crate::fsio;
use crate::model::VolumeSpec;
use crate::pool::{self, Claim, Pool};
use crate::replication::set::ReplicaSet;

/// The largest virtual size accepted where the request names no cap, in bytes: 2 TiB.
const CAP_DEFAULT: u64 = 2 << 40;

/// The answer to a finished import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageImported {
    /// Bytes that came in.
    pub size: u64,
    /// Their MD5, in hex.
    pub md5: String,
    /// Their SHA-512, in hex.
    pub sha512: String,
    /// Bytes of the volume that was made.
    pub virtual_size: u64,
}

/// An error of this API; its body is `{"error": text}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataError {
    status: StatusCode,
    text: String,
}

impl DataError {
    fn new(status: StatusCode, text: impl Into<String>) -> DataError {
        DataError { status, text: text.into() }
    }

    /// 400: what was sent cannot be an image.
    fn refused(text: impl Into<String>) -> DataError {
        DataError::new(StatusCode::BAD_REQUEST, text)
    }

    fn not_found(id: &str) -> DataError {
        DataError::new(StatusCode::NOT_FOUND, format!("there is no image {id} on this node"))
    }

    /// 507: there is no room.
    fn full() -> DataError {
        DataError::new(StatusCode::INSUFFICIENT_STORAGE, "the data disks of this node are full")
    }
}

impl From<io::Error> for DataError {
    fn from(e: io::Error) -> DataError {
        match e.kind() {
            _ if fsio::is_full(&e) => DataError::full(),
            io::ErrorKind::AlreadyExists => DataError::new(StatusCode::CONFLICT, "it exists already"),
            io::ErrorKind::NotFound => DataError::new(StatusCode::NOT_FOUND, e.to_string()),
            io::ErrorKind::InvalidInput => DataError::refused(e.to_string()),
            _ => DataError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
        }
    }
}

impl IntoResponse for DataError {
    fn into_response(self) -> Response {
        (self.status, axum::Json(serde_json::json!({"error": self.text}))).into_response()
    }
}

/// What serves the data socket. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Arc<Pool>,
    specs: Mirror<VolumeSpec>,
    /// This node, and which replicas of volumes are in sync.
    sets: Option<(String, Mirror<ReplicaSet>)>,
    /// The volumes that other systems keep, and where sockets are.
    backends: Option<(Arc<Family>, PathBuf)>,
    limits: ConvertLimits,
    /// Bounds how many images are checked and converted at once.
    converting: Semaphore,
}

impl Service {
    /// Serves the images of this pool. `specs` tells which ids are spoken for.
    pub fn new(pool: Arc<Pool>, specs: Mirror<VolumeSpec>, limits: ConvertLimits) -> Service {
        let converting = Semaphore::new(limits.concurrency.max(1));
        Service { inner: Arc::new(Inner { pool, specs, sets: None, backends: None, limits, converting }) }
    }

    /// Gives nothing of replicas that `sets` does not say are in sync on `node`.
    pub fn with_replicas(self, node: &str, sets: Mirror<ReplicaSet>) -> Service {
        self.with(Some((node.to_owned(), sets)), None)
    }

    /// Takes content from volumes that other systems keep, too. `sockets` is the directory of sockets.
    pub(crate) fn with_backends(self, family: Arc<Family>, sockets: PathBuf) -> Service {
        let sets = self.inner.sets.clone();
        self.with(sets, Some((family, sockets)))
    }

    fn with(
        self,
        sets: Option<(String, Mirror<ReplicaSet>)>,
        backends: Option<(Arc<Family>, PathBuf)>,
    ) -> Service {
        let Inner { pool, specs, limits, .. } = &*self.inner;
        let converting = Semaphore::new(limits.concurrency.max(1));
        let (pool, specs, limits) = (pool.clone(), specs.clone(), limits.clone());
        Service { inner: Arc::new(Inner { pool, specs, sets, backends, limits, converting }) }
    }

    /// Its routes.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/images/{id}", put(put_image).get(get_image))
            .route("/images/{id}/from-volume/{volume}", put(put_from_volume))
            .route("/backends/check", post(check_backend))
            .route("/health", get(|| async { StatusCode::NO_CONTENT }))
            .with_state(self.clone())
    }
}

impl Inner {
    /// What the volume goes by here; refuses what may lack something.
    fn whole(&self, id: &str) -> Result<String, DataError> {
        let set = self.sets.as_ref().and_then(|(node, sets)| sets.get(id).map(|set| (node, set)));
        match set {
            Some((node, set)) => set.whole_on(node).ok_or_else(|| DataError::not_found(id)),
            None => Ok(id.to_owned()),
        }
    }

    /// What keeps a volume, if that is not this engine.
    fn driver_of(&self, id: &str) -> Result<Option<Arc<dyn Driver>>, DataError> {
        let Some(backend) = self.specs.get(id).and_then(|spec| spec.backend.clone()) else { return Ok(None) };
        let driver = self.backends.as_ref().and_then(|(family, _)| family.get(&backend));
        let absent = || {
            let why = format!("the backend {backend} is not known on this node yet");
            DataError::new(StatusCode::SERVICE_UNAVAILABLE, why)
        };
        driver.map(Some).ok_or_else(absent)
    }

    fn claim(&self, id: &str) -> Result<Claim, DataError> {
        pool::check_id(id)?;
        // Claimed first: a tombstone that comes from here on waits for the import's end, one that was there is seen.
        let claim = self.pool.claim(id).filter(|_| self.specs.get(id).is_none());
        claim
            .ok_or_else(|| DataError::new(StatusCode::CONFLICT, format!("{id} exists, or is being imported")))
    }
}

#[derive(Deserialize)]
struct PutQuery {
    disk_format: String,
    cap: Option<u64>,
}

async fn put_image(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(query): Query<PutQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<ImageImported>, DataError> {
    let length = headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let wanted = import::Wanted { format: query.disk_format, cap: query.cap.unwrap_or(CAP_DEFAULT), length };
    import::upload(&service.inner, &id, wanted, body).await.map(axum::Json)
}

async fn put_from_volume(
    State(service): State<Service>,
    Path((id, volume)): Path<(String, String)>,
) -> Result<axum::Json<ImageImported>, DataError> {
    pool::check_id(&volume)?;
    if let Some(driver) = service.inner.driver_of(&volume)? {
        return import::from_backend(&service.inner, &id, &volume, driver).await.map(axum::Json);
    }
    let volume = service.inner.whole(&volume)?;
    import::from_volume(&service.inner, &id, &volume).await.map(axum::Json)
}

async fn get_image(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, DataError> {
    let name = service.inner.whole(&id)?;
    read::image(&service.inner.pool, &name, headers.get(http::header::RANGE)).await
}

async fn check_backend(
    State(service): State<Service>,
    axum::Json(new): axum::Json<NewBackend>,
) -> Result<axum::Json<Found>, DataError> {
    let Some((_, sockets)) = &service.inner.backends else {
        return Err(DataError::refused("this process serves no volumes that others keep"));
    };
    check::check(sockets, &new).await.map(axum::Json).map_err(|e| DataError::refused(e.to_string()))
}
