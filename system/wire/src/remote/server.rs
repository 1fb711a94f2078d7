//! The node's door: accepts connections from other nodes, finds out who they are, and hands their calls to
//! the services.
//!
//! Whoever is not yet known to be a member costs little: few connections at a time, in all and from one
//! address, a few seconds to shake hands, and a minute in all. A peer that is removed is cut off at once.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::door::{Door, Waiting};
use super::error::{Code, Error, Refusal};
use super::message::{Body, Messages, Outgoing};
use super::peer::{Peer, PeerId, Standing};
use super::service::{Call, Services};
use super::{Endpoint, STREAMS_MAX, WINDOW_BYTES, hello, tls, trust};

/// How long a peer may take to shake hands.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long a stranger's connection may last.
const STRANGER_MAX: Duration = Duration::from_secs(60);
/// The most connections, strangers' included.
const CONNECTIONS_MAX: usize = 1024;
/// How often a silent peer is asked whether it lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_MAX: Duration = Duration::from_secs(10);
/// The longest head of a call.
const HEAD_BYTES_MAX: u32 = 4 << 10;

/// Serves `services` to other nodes until the future is dropped, which ends all their connections.
pub async fn serve(listener: TcpListener, endpoint: Endpoint, services: Services) -> Result<(), Error> {
    let config = tls::server(&endpoint.credentials, &endpoint.trust);
    let acceptor = TlsAcceptor::from(config.map_err(|e| Error::Broken(e.to_string()))?);
    let server = Arc::new(Server { endpoint, services, acceptor });
    let (door, mut connections) = (Door::default(), JoinSet::new());
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    // No room: the connection is closed at once, rather than left to wait in the dark.
                    let Ok(place) = room.clone().try_acquire_owned() else { continue };
                    let Some(waiting) = door.admit(from.ip()) else { continue };
                    let server = server.clone();
                    connections.spawn(async move {
                        server.welcome(stream, from, waiting).await;
                        drop(place);
                    });
                }
                Err(e) => {
                    // Out of file descriptors, most likely; others must end first.
                    tracing::warn!(error = %e, "no connection of another node could be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

struct Server {
    endpoint: Endpoint,
    services: Services,
    acceptor: TlsAcceptor,
}

impl Server {
    async fn welcome(self: Arc<Self>, stream: TcpStream, from: SocketAddr, waiting: Waiting) {
        match tokio::time::timeout(HANDSHAKE_MAX, self.shake_hands(stream)).await {
            Ok(Ok((stream, version))) => self.converse(stream, version, from, waiting).await,
            Ok(Err(e)) => tracing::debug!(%from, error = %e, "a node was not let in"),
            Err(_) => tracing::debug!(%from, "a node did not shake hands in time"),
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, u16), Error> {
        stream.set_nodelay(true).map_err(Error::io)?;
        let mut stream = self.acceptor.accept(stream).await.map_err(Error::io)?;
        let version = hello::answer(&mut stream, self.endpoint.versions).await?;
        Ok((stream, version))
    }

    async fn converse(
        self: Arc<Self>,
        stream: TlsStream<TcpStream>,
        version: u16,
        from: SocketAddr,
        waiting: Waiting,
    ) {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let Some(caller) = certificate.and_then(|c| Caller::new(c.clone().into_owned(), from)) else {
            return;
        };
        let strange = caller.standing(&self.endpoint) == Some(Standing::Stranger);
        // A member makes room at the door.
        let _waiting = strange.then_some(waiting);
        let mut changes = self.endpoint.trust.changes();
        let (server, known) = (self.clone(), Arc::new(caller));
        let caller = known.clone();
        let service = service_fn(move |request| {
            let (server, caller) = (server.clone(), known.clone());
            async move { Ok::<_, Infallible>(server.answer(request, version, &caller).await) }
        });
        let connection = builder().serve_connection(TokioIo::new(stream), service);
        let stranger_leaves = async {
            match strange {
                true => tokio::time::sleep(STRANGER_MAX).await,
                false => std::future::pending().await,
            }
        };
        let removed = async {
            while caller.standing(&self.endpoint).is_some_and(|s| s != Standing::Removed) {
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            ended = connection => if let Err(e) = ended {
                tracing::debug!(%from, error = %e, "the connection of a node broke");
            },
            () = stranger_leaves => {}
            () = removed => tracing::info!(peer = %caller.id, "a node was removed and is cut off"),
        }
    }

    async fn answer(&self, request: Request<Incoming>, version: u16, caller: &Caller) -> Response<Body> {
        let outgoing = self.call(request, version, caller).await.unwrap_or_else(Outgoing::refusal);
        Response::new(outgoing.into_body(version))
    }

    async fn call(
        &self,
        request: Request<Incoming>,
        version: u16,
        caller: &Caller,
    ) -> Result<Outgoing, Refusal> {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let (service, method) = path.split_once('/').ok_or_else(|| Refusal::invalid("no method is named"))?;
        let bytes_max = self.services.message_bytes(service).unwrap_or_default();
        let messages = Messages::new(request.into_body(), version, bytes_max);
        let peer = caller.peer(&self.endpoint)?;
        self.services.call(service, Call { peer, method: method.to_owned(), messages }).await
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_MAX);
    builder
}

/// Who is at the other end of one connection.
struct Caller {
    id: PeerId,
    public_key: Vec<u8>,
    certificate: CertificateDer<'static>,
    address: SocketAddr,
}

impl Caller {
    fn new(certificate: CertificateDer<'static>, address: SocketAddr) -> Option<Caller> {
        let public_key = trust::public_key(&certificate).ok()?;
        Some(Caller { id: PeerId::of_key(&public_key), public_key, certificate, address })
    }

    /// What it is to the cloud just now.
    fn standing(&self, endpoint: &Endpoint) -> Option<Standing> {
        endpoint.trust.standing(&self.certificate).ok()
    }

    fn peer(&self, endpoint: &Endpoint) -> Result<Peer, Refusal> {
        match self.standing(endpoint) {
            Some(standing) if standing != Standing::Removed => {
                Ok(Peer { id: self.id, public_key: self.public_key.clone(), standing, address: self.address })
            }
            _ => Err(Refusal::new(Code::Forbidden, "this node was removed from the cloud")),
        }
    }
}

/// Whose connections are counted together: an address, or a network where a host has as many as it likes.
pub(super) fn source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            // All neighbours share the link-local prefix.
            None if v6.is_unicast_link_local() => ip,
            None => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        },
        v4 => v4,
    }
}
