//! The controller's way to the data socket.

use std::path::PathBuf;

use axum::body::Body;
use axum::response::Response;
use cairn_wire::local_http;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::ImageImported;
use crate::external::check::Found;
use crate::external::orders::NewBackend;

/// The longest answer that is read whole, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// Why an image was not imported or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// What was sent is not acceptable; nothing was kept.
    #[error("{0}")]
    Refused(String),
    /// There is no room for it; nothing was kept.
    #[error("{0}")]
    Full(String),
    /// There is no such image (or volume) on the node.
    #[error("{0}")]
    Missing(String),
    /// The range asked for lies beyond the end.
    #[error("{0}")]
    Range(String),
    /// The storage process failed or cannot be reached. Whether anything was kept is not known.
    #[error("{0}")]
    Broken(String),
}

/// A client of a node's data socket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: local_http::Client,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

impl Client {
    /// A client of the socket at this path.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { http: local_http::Client::new(socket) }
    }

    /// Imports a stream as the image `id`. `format` is `raw`, `iso` or `qcow2`; a disk of more than `cap` bytes
    /// is refused.
    pub async fn import(
        &self,
        id: &str,
        format: &str,
        cap: u64,
        body: Body,
    ) -> Result<ImageImported, ImportError> {
        self.put(format!("/images/{id}?disk_format={format}&cap={cap}"), body).await
    }

    /// Makes the image `id` of a volume of that node, as it is at one moment.
    pub async fn import_volume(&self, id: &str, volume: &str) -> Result<ImageImported, ImportError> {
        self.put(format!("/images/{id}/from-volume/{volume}"), Body::empty()).await
    }

    /// Reads an image, or the part that the value of a `Range` header names. The answer has status 200 or 206,
    /// its length and range in its headers, and streams.
    pub async fn read(&self, id: &str, range: Option<&str>) -> Result<Response<Body>, ImportError> {
        let mut request = Request::get(format!("/images/{id}"));
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        self.send(request.body(Body::empty()).map_err(broken)?).await
    }

    /// Asks whether a cluster can be used as a backend. Refused with the reason if it cannot.
    pub async fn check_backend(&self, new: &NewBackend) -> Result<Found, ImportError> {
        let body = Body::from(serde_json::to_vec(new).map_err(broken)?);
        let request = Request::post("/backends/check").header(header::CONTENT_TYPE, "application/json");
        let response = self.send(request.body(body).map_err(broken)?).await?;
        let answer = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(broken)?;
        serde_json::from_slice(&answer.to_bytes()).map_err(broken)
    }

    async fn put(&self, path: String, body: Body) -> Result<ImageImported, ImportError> {
        let response = self.send(Request::put(path).body(body).map_err(broken)?).await?;
        let answer = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(broken)?;
        serde_json::from_slice(&answer.to_bytes()).map_err(broken)
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ImportError> {
        let response = self.http.send(request).await.map_err(broken)?.map(Body::new);
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map(|b| b.to_bytes()).unwrap_or_default();
        let text = serde_json::from_slice::<ErrorBody>(&body).map_or(status.to_string(), |e| e.error);
        Err(match status {
            StatusCode::NOT_FOUND => ImportError::Missing(text),
            StatusCode::INSUFFICIENT_STORAGE => ImportError::Full(text),
            StatusCode::RANGE_NOT_SATISFIABLE => ImportError::Range(text),
            s if s.is_client_error() => ImportError::Refused(text),
            _ => ImportError::Broken(text),
        })
    }
}

fn broken(e: impl std::fmt::Display) -> ImportError {
    ImportError::Broken(e.to_string())
}
