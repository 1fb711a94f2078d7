//! The agent's data socket: console logs and diagnostics, for the controller of the same node.
//!
//! Read-only. Answers are bounded; ids are checked before they become paths.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::Query;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::console::Logs;
use super::libvirt::Libvirt;

/// The socket's permissions: its user and group.
const MODE: u32 = 0o660;

/// What a guest has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// Time its CPUs have run, in nanoseconds.
    pub cpu_time_ns: u64,
    /// Its memory in KiB.
    pub memory_kib: u64,
}

#[derive(Clone)]
struct Shared {
    logs: Logs,
    libvirt: Arc<Libvirt>,
}

/// Serves the socket, again and again if it cannot be opened.
pub async fn serve(path: PathBuf, logs: Logs, libvirt: Arc<Libvirt>) {
    let router = Router::new()
        .route("/console/{id}", get(console))
        .route("/diagnostics/{id}", get(diagnostics))
        .with_state(Shared { logs, libvirt });
    loop {
        if let Err(error) = cairn_wire::local_http::serve(&path, MODE, router.clone()).await {
            tracing::warn!(%error, path = %path.display(), "the data socket cannot be served");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn console(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    query: Query,
) -> Result<String, (StatusCode, String)> {
    let id = checked(&id)?;
    let bad = |_| (StatusCode::BAD_REQUEST, "lines must be a number".to_owned());
    let lines = query.get("lines").map(str::parse::<usize>).transpose().map_err(bad)?;
    blocking(move || shared.logs.tail(&id, lines).map_err(|e| e.to_string())).await
}

async fn diagnostics(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Diagnostics>, (StatusCode, String)> {
    let id = checked(&id)?;
    let load = blocking(move || shared.libvirt.load(&id).map_err(|e| e.to_string())).await?;
    Ok(Json(Diagnostics { cpu_time_ns: load.cpu_time_ns, memory_kib: load.memory_kib }))
}

fn checked(id: &str) -> Result<String, (StatusCode, String)> {
    match uuid::Uuid::parse_str(id) {
        Ok(id) => Ok(id.to_string()),
        Err(_) => Err((StatusCode::BAD_REQUEST, "not a server's id".into())),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, (StatusCode, String)> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err((StatusCode::INTERNAL_SERVER_ERROR, e)),
        Err(e) => Err((StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
    }
}
