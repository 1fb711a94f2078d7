//! HTTP/1.1 over Unix sockets, between the roles of one node.
//!
//! Bodies stream in both directions and are never gathered here (images of many GiB go through); only the
//! JSON conveniences read a whole body, up to a limit. A handler may know its peer: it takes
//! `ConnectInfo<Peer>`.

use std::io;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};

use crate::local_socket::{self, Peer};

/// The longest body that the JSON conveniences read.
const JSON_BYTES_MAX: usize = 64 << 20;
/// How much of an error's body is kept.
const ERROR_BYTES_MAX: usize = 64 << 10;

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        // A peer whose credentials cannot be had is nobody.
        Peer::of(stream.io()).unwrap_or(Peer { uid: u32::MAX, gid: u32::MAX, pid: 0 })
    }
}

/// Serves `router` at the socket `path` with these permissions, in the place of whatever socket was there.
/// It serves until the future is dropped.
pub async fn serve(path: &Path, mode: u32, router: Router) -> io::Result<()> {
    let listener = local_socket::bind(path, mode)?;
    axum::serve(listener, router.into_make_service_with_connect_info::<Peer>()).await
}

/// Why a request had no (good) answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens at the socket.
    #[error("{path} cannot be reached: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The request cannot be built.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
    /// The answer was an error.
    #[error("answered {status}: {body}")]
    Status {
        /// Its status.
        status: StatusCode,
        /// Its body, cut at a limit.
        body: String,
    },
    /// The JSON was not what was expected.
    #[error("not the JSON expected: {0}")]
    Json(#[from] serde_json::Error),
}

/// A client of one socket. Each request has a connection of its own, so a restart of the other end is never
/// noticed but by requests in flight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client of the socket at `path`; nothing is connected yet.
    pub fn new(path: impl Into<PathBuf>) -> Client {
        Client { path: path.into() }
    }

    /// Sends a request and gives the answer as soon as its head is here; both bodies stream. Any status is
    /// an answer. Upgrades (`hyper::upgrade::on`) work.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| Error::Connect { path: self.path.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            if let Err(e) = connection.with_upgrades().await {
                tracing::debug!(error = %e, "a local HTTP connection broke");
            }
        });
        let host = http::HeaderValue::from_static("localhost");
        request.headers_mut().entry(http::header::HOST).or_insert(host);
        sender.send_request(request).await.map_err(broken)
    }

    /// Gets JSON.
    pub async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.json(Request::get(path).body(Body::empty())?).await
    }

    /// Posts JSON, gets JSON.
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.send_json(Method::POST, path, body).await
    }

    /// Sends JSON by any method, gets JSON (`null` if there is no body).
    pub async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(http::header::CONTENT_TYPE, "application/json");
        self.json(request.body(Body::from(serde_json::to_vec(body)?))?).await
    }

    /// Sends a request whose answer is JSON (an empty body counts as `null`).
    pub async fn json<T: DeserializeOwned>(&self, request: Request<Body>) -> Result<T, Error> {
        let response = self.send(request).await?;
        let status = response.status();
        if !status.is_success() {
            let body = whole(response.into_body(), ERROR_BYTES_MAX).await.unwrap_or_default();
            return Err(Error::Status { status, body: String::from_utf8_lossy(&body).into_owned() });
        }
        let body = whole(response.into_body(), JSON_BYTES_MAX).await?;
        Ok(serde_json::from_slice(if body.is_empty() { b"null" } else { &body })?)
    }
}

async fn whole(body: Incoming, limit: usize) -> Result<bytes::Bytes, Error> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) => Err(Error::Broken(e.to_string())),
    }
}

fn broken(e: hyper::Error) -> Error {
    let source = std::error::Error::source(&e).map(|s| format!(": {s}")).unwrap_or_default();
    Error::Broken(format!("{e}{source}"))
}
