//! A connection to another node, and calls on it, many at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::message::{Body, Messages, Outgoing};
use super::peer::{Peer, PeerId, Standing};
use super::tls::{self, Expect};
use super::{Endpoint, WINDOW_BYTES, hello, trust};

/// How long an address may take to connect and shake hands.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// How long an address is tried before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(150);
/// How many addresses of a node are tried.
const ADDRESSES_MAX: usize = 16;
/// How many calls are on their way at a time; more wait.
const CALLS_MAX: usize = 256;
/// The longest message that is taken as an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_MAX: Duration = Duration::from_secs(10);

/// A connection to another node. Cheap to clone; it is closed when the last clone is dropped.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Body>,
    calls: Arc<Semaphore>,
    peer: Arc<Peer>,
    version: u16,
}

impl Connection {
    /// Connects to whichever of these addresses answers first as whom it is expected to be.
    pub async fn open(
        endpoint: &Endpoint,
        addresses: &[SocketAddr],
        expect: Expect,
    ) -> Result<Connection, Error> {
        let mut attempts: FuturesUnordered<_> = addresses
            .iter()
            .take(ADDRESSES_MAX)
            .zip(0u32..)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(address, turn)| async move {
                sleep(HEAD_START * turn).await;
                match timeout(OPEN_MAX, dial(endpoint, *address, expect)).await {
                    Ok(result) => result,
                    Err(_) => Err(Error::Unreachable(address.to_string())),
                }
            })
            .collect();
        let mut worst = Error::Unreachable("a node without addresses".into());
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok(connection) => return Ok(connection),
                Err(e) if telling(&e) >= telling(&worst) => worst = e,
                Err(_) => {}
            }
        }
        Err(worst)
    }

    /// Who is at the other end, as it was when the connection was made.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The version that is spoken on it.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Whether it can still be used.
    pub fn alive(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Calls `service/method` with one message, for one.
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: &str,
        message: &Q,
        within: Duration,
    ) -> Result<A, Error> {
        let answered = async {
            // The semaphore is never closed.
            let _permit = self.calls.acquire().await.map_err(|e| Error::Broken(e.to_string()))?;
            self.send(method, Outgoing::message(message)?).await?.only().await
        };
        timeout(within, answered).await.map_err(|_| Error::TimedOut(within.as_millis()))?
    }

    /// Calls `service/method` with a stream of messages, for another. Gives it as soon as the answer begins.
    pub async fn stream(
        &self,
        method: &str,
        messages: Outgoing,
        within: Duration,
    ) -> Result<Messages, Error> {
        let begun = timeout(within, self.send(method, messages)).await;
        begun.map_err(|_| Error::TimedOut(within.as_millis()))?
    }

    async fn send(&self, method: &str, messages: Outgoing) -> Result<Messages, Error> {
        // HTTP/2 wants a whole URI; nothing is read of it but the path.
        let request = Request::builder().method(Method::POST).uri(format!("https://node/{method}"));
        let request =
            request.body(messages.into_body(self.version)).map_err(|e| Error::Garbled(e.to_string()))?;
        let answer = self.sender.clone().try_send_request(request).await.map_err(|mut e| {
            // A request that comes back was never sent.
            match e.take_message() {
                Some(_) => Error::Unreachable(format!("{}: the connection had ended; it", self.peer.address)),
                None => Error::http(e.error()),
            }
        })?;
        Ok(Messages::new(answer.into_body(), self.version, ANSWER_BYTES_MAX))
    }
}

/// What hyper runs beside a connection, its socket's driver among it; all of it ends with the connection.
#[derive(Clone, Default)]
struct Tasks(CancellationToken);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        tokio::spawn(self.0.clone().run_until_cancelled_owned(task));
    }
}

/// How much an error tells about what is wrong, of several.
fn telling(e: &Error) -> u8 {
    match e {
        Error::Removed => 4,
        Error::NoCommonVersion { .. } => 3,
        Error::Untrusted(_) => 2,
        Error::Unreachable(_) => 0,
        _ => 1,
    }
}

async fn dial(endpoint: &Endpoint, address: SocketAddr, expect: Expect) -> Result<Connection, Error> {
    let unreachable = |e: std::io::Error| Error::Unreachable(format!("{address} ({e})"));
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(Error::io)?;
    let config = tls::client(&endpoint.credentials, &endpoint.trust, expect);
    let config = config.map_err(|e| Error::Broken(e.to_string()))?;
    let name = ServerName::try_from("node").map_err(|e| Error::Broken(e.to_string()))?;
    let mut stream = TlsConnector::from(config).connect(name, stream).await.map_err(Error::io)?;
    let version = hello::greet(&mut stream, endpoint.versions).await?;
    let (peer, certificate) = peer(endpoint, &stream, address)?;
    let tasks = Tasks::default();
    let mut builder = http2::Builder::new(tasks.clone());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_MAX)
        .keep_alive_while_idle(true);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| Error::http(&e))?;
    let endpoint = endpoint.clone();
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => if let Err(e) = ended {
                tracing::debug!(%address, error = %e, "the connection to a node broke");
            },
            () = distrusted(endpoint, certificate, expect) => {
                tracing::info!(%address, "the connection to a node that is no longer trusted is closed");
            }
        }
        tasks.0.cancel();
    });
    Ok(Connection { sender, calls: Arc::new(Semaphore::new(CALLS_MAX)), peer: Arc::new(peer), version })
}

fn peer(
    endpoint: &Endpoint,
    stream: &TlsStream<TcpStream>,
    address: SocketAddr,
) -> Result<(Peer, CertificateDer<'static>), Error> {
    let untrusted = |e: &dyn std::fmt::Display| Error::Untrusted(e.to_string());
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate =
        chain.first().ok_or_else(|| untrusted(&"it shows no certificate"))?.clone().into_owned();
    let public_key = trust::public_key(&certificate).map_err(|e| untrusted(&e))?;
    let standing = endpoint.trust.standing(&certificate).map_err(|e| untrusted(&e))?;
    let id = PeerId::of_key(&public_key);
    Ok((Peer { id, public_key, standing, address }, certificate))
}

/// Ends when trust is such that this peer would not be connected to any more.
async fn distrusted(endpoint: Endpoint, certificate: CertificateDer<'static>, expect: Expect) {
    let mut changes = endpoint.trust.changes();
    loop {
        match (endpoint.trust.standing(&certificate), expect) {
            (Ok(Standing::Removed) | Err(_), _) => return,
            (Ok(Standing::Stranger), Expect::Node(_) | Expect::Ours) => return,
            _ => {}
        }
        if changes.changed().await.is_err() {
            // Nobody is left to change it.
            std::future::pending().await
        }
    }
}
