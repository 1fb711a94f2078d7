//! The metadata socket of a network or router, in its namespace.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cairn_state::Mirror;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Tenants, find};
use crate::agent::desired::METADATA_IP;
use crate::agent::netns;
use crate::model::ServerMetadata;

const PORT: u16 = 80;
/// The most connections at a time, of all guests and of one.
const CONNECTIONS_MAX: usize = 128;
const CONNECTIONS_MAX_EACH: usize = 8;
/// How long a connection may last, and how long it may take to say what it wants.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
const HEADER_MAX: Duration = Duration::from_secs(10);
/// The longest request head, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// Opens the socket in a namespace.
pub async fn open(space: &str) -> io::Result<TcpListener> {
    netns::within(Some(space), || {
        let listener = std::net::TcpListener::bind((METADATA_IP, PORT))?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    })
    .await
}

/// Answers until it is dropped. A socket that fails ends it; the next pass opens a new one.
pub async fn serve(
    listener: TcpListener,
    tenants: watch::Receiver<Tenants>,
    records: Mirror<ServerMetadata>,
) -> io::Error {
    let open = Arc::new(Open::default());
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // One connection that broke before it was taken is not the socket's end.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(e) => return e,
        };
        while connections.try_join_next().is_some() {}
        let Some(slot) = open.take(peer.ip()) else { continue };
        let (tenants, records) = (tenants.clone(), records.clone());
        connections.spawn(async move {
            let _slot = slot;
            // A guest that is slow or breaks off harms only itself.
            let _ = tokio::time::timeout(CONNECTION_MAX, converse(stream, peer, tenants, records)).await;
        });
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    tenants: watch::Receiver<Tenants>,
    records: Mirror<ServerMetadata>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, peer.ip(), &tenants.borrow(), &records);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(e) = served {
        tracing::debug!(error = %e, %peer, "a metadata connection broke");
    }
}

fn respond<B>(
    request: &Request<B>,
    from: IpAddr,
    tenants: &Tenants,
    records: &Mirror<ServerMetadata>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "This is read only.\n");
    }
    let known = tenants.get(&from).and_then(|t| Some((t, records.get(&t.server)?)));
    let found = known.and_then(|(tenant, data)| find(request.uri().path(), &data, tenant, from));
    match found {
        Some(found) => answer(StatusCode::OK, found.kind, found.body),
        None => plain(StatusCode::NOT_FOUND, "Not found.\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", text.into())
}

fn answer(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// The connections that are open, by guest.
#[derive(Default)]
struct Open(Mutex<HashMap<IpAddr, usize>>);

struct Slot(Arc<Open>, IpAddr);

impl Open {
    fn take(self: &Arc<Open>, ip: IpAddr) -> Option<Slot> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all: usize = open.values().sum();
        let of_one = open.get(&ip).copied().unwrap_or(0);
        if of_all >= CONNECTIONS_MAX || of_one >= CONNECTIONS_MAX_EACH {
            return None;
        }
        open.insert(ip, of_one + 1);
        Some(Slot(self.clone(), ip))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}
