//! Other nodes are served on a thread of its own: what they ask is what keeps the cloud's store together, and must not
//! wait for whatever the API is busy with.
//!
//! Only the thread and its end; who is let in is the transport's to say, and what is answered the services'.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use cairn_wire::remote::{self, Endpoint, Services};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Serves other nodes until the future that it gives is dropped.
pub fn serve(
    at: SocketAddr,
    endpoint: Endpoint,
    services: Services,
) -> Result<impl Future<Output = ()> + Send + 'static> {
    let listener = std::net::TcpListener::bind(at);
    let listener = listener.with_context(|| format!("cannot listen on {at} for other nodes"))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let body = move || {
        runtime.block_on(async {
            let served = async {
                remote::serve(TcpListener::from_std(listener)?, endpoint, services)
                    .await
                    .context("the transport")
            };
            tokio::select! {
                ended = served => if let Err(error) = ended {
                    tracing::error!(error = format!("{error:#}"), "other nodes are not served any more");
                },
                _ = stopped => {}
            }
        });
    };
    std::thread::Builder::new().name("nodes".into()).spawn(body).context("no thread to serve other nodes")?;
    Ok(async move {
        let _stop = stop;
        std::future::pending().await
    })
}
