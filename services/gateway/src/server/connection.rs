//! One connection: TLS handshake, then HTTP/2 or HTTP/1.1 as agreed, each within time and size limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::redirect;

/// How long a client may take for its handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a client may take for a request's head; also how long an idle HTTP/1.1 connection is kept.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most header lines.
const HEADERS_MAX: usize = 100;
/// How often an HTTP/2 client must show that it is there, and how long it has for it.
const PING: Duration = Duration::from_secs(20);

/// Serves the APIs on a connection until it ends or `stopped` turns true.
pub(super) async fn https(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    app: Router,
    stopped: watch::Receiver<bool>,
) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await else {
        tracing::debug!(%peer, "no TLS handshake");
        return;
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let app = app.clone();
        async move {
            let Ok(response) = app.oneshot(request.map(Body::new)).await;
            Ok::<_, Infallible>(response)
        }
    });
    let builder = protocol(is_h2);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until(stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(%peer, error = %e, "a connection broke");
    }
}

/// Waits until the receiver's value turns true (or its sender is gone).
pub(super) async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|s| *s).await;
}

/// Answers a plain connection with a redirect.
pub(super) async fn redirect(stream: TcpStream, https_port: u16) {
    let service = service_fn(move |request| redirect::answer(request, https_port));
    // One request and its answer: there is no need to wait longer than for a head.
    let builder = protocol(false);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(HEAD_MAX, connection).await;
}

/// The protocol is known from the handshake, so that no time is spent (or lost to a slow client) on guessing it.
fn protocol(is_h2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(128)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    if is_h2 { builder.http2_only() } else { builder.http1_only() }
}
