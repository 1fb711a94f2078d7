//! Accepts connections and hands them to their protocol, within limits, until told to stop.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::connection;
use super::tls::Certificates;

/// The most connections at once, and the most of one client address.
const CONNECTIONS_MAX: usize = 4096;
const CONNECTIONS_PER_CLIENT_MAX: usize = 512;
/// How long open requests may go on after the stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Where to listen.
#[derive(Debug)]
pub struct Listen {
    https: Vec<TcpListener>,
    http: Vec<TcpListener>,
}

impl Listen {
    /// Binds the addresses: `https` for the APIs, `http` for the redirect to the first of them.
    pub async fn bind(https: &[SocketAddr], http: &[SocketAddr]) -> io::Result<Listen> {
        Ok(Listen { https: bind_all(https).await?, http: bind_all(http).await? })
    }

    /// The addresses really bound, HTTPS first (ports that were asked for as 0 are filled in).
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.https.iter().chain(&self.http).map(TcpListener::local_addr).collect()
    }
}

async fn bind_all(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}"));
        listeners.push(TcpListener::bind(address).await.map_err(named)?);
    }
    Ok(listeners)
}

/// Serves the application until `stop` is done, then lets open requests finish for a short time.
pub async fn serve(
    app: Router,
    certificates: Arc<Certificates>,
    listen: Listen,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let tls = TlsAcceptor::from(certificates.config().map_err(io::Error::other)?);
    let https_port = listen.https.first().map_or(Ok(443), |l| l.local_addr().map(|a| a.port()))?;
    let (stopping, stopped) = watch::channel(false);
    let places = Arc::new(Places::default());
    let mut tasks = JoinSet::new();
    for listener in listen.https {
        let (app, tls, stopped) = (app.clone(), tls.clone(), stopped.clone());
        tasks.spawn(accept(listener, places.clone(), stopped.clone(), move |stream, peer| {
            connection::https(stream, peer, tls.clone(), app.clone(), stopped.clone())
        }));
    }
    for listener in listen.http {
        tasks.spawn(accept(listener, places.clone(), stopped.clone(), move |stream, _| {
            connection::redirect(stream, https_port)
        }));
    }
    stop.await;
    stopping.send_replace(true);
    if tokio::time::timeout(DRAIN_MAX, tasks.join_all()).await.is_err() {
        tracing::warn!("connections were cut: they did not end in time");
    }
    Ok(())
}

/// Accepts until stopped, then waits for the connections it accepted.
async fn accept<F, Fut>(listener: TcpListener, places: Arc<Places>, stopped: watch::Receiver<bool>, handle: F)
where
    F: Fn(TcpStream, SocketAddr) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = connection::until(stopped.clone()) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // A refused client sees its connection closed at once.
                let Some(place) = places.take(peer.ip()) else { continue };
                let _ = stream.set_nodelay(true);
                let work = handle(stream, peer);
                connections.spawn(async move {
                    work.await;
                    drop(place);
                });
            }
            Err(e) => {
                // Out of file descriptors, most likely: pause rather than spin.
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.join_all().await;
}

/// How many connections each client has.
#[derive(Default)]
struct Places(Mutex<(usize, HashMap<IpAddr, usize>)>);

/// A connection's place; dropping it gives it back.
struct PlaceTaken {
    places: Arc<Places>,
    client: IpAddr,
}

impl Places {
    fn take(self: &Arc<Self>, client: IpAddr) -> Option<PlaceTaken> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, clients) = &mut *table;
        let own = clients.get(&client).copied().unwrap_or(0);
        if *total >= CONNECTIONS_MAX || own >= CONNECTIONS_PER_CLIENT_MAX {
            return None;
        }
        *total += 1;
        clients.insert(client, own + 1);
        Some(PlaceTaken { places: self.clone(), client })
    }
}

impl Drop for PlaceTaken {
    fn drop(&mut self) {
        let mut table = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, clients) = &mut *table;
        *total -= 1;
        if let Some(own) = clients.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_take_every_place() {
        let places = Arc::new(Places::default());
        let (a, b) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut held: Vec<_> = std::iter::from_fn(|| places.take(a)).collect();
        assert_eq!(held.len(), CONNECTIONS_PER_CLIENT_MAX);
        assert!(places.take(b).is_some());
        held.pop();
        assert!(places.take(a).is_some());
        drop(held);
        assert_eq!(*places.0.lock().unwrap(), (0, HashMap::new()));
    }
}
