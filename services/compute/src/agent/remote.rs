//! What this node's guests have said and used, for the controllers of other nodes: what `socket` tells its own.
//!
//! Read-only. Answers are bounded; ids are checked before they become paths.

use std::sync::Arc;

use async_trait::async_trait;
use cairn_wire::remote::{Call, Outgoing, Refusal, Service};
use serde::{Deserialize, Serialize};

use super::console::Logs;
use super::libvirt::Libvirt;
use super::socket::Diagnostics;

/// The service's name.
pub const SERVICE: &str = "guest";
/// The method for the end of a console log: answers its text.
pub const CONSOLE: &str = "console";
/// The method for what a guest has used: answers [`Diagnostics`].
pub const DIAGNOSTICS: &str = "diagnostics";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The server.
    pub server_id: String,
    /// How many lines of its log; none for all that is kept.
    pub lines: Option<u64>,
}

/// Answers for this node's guests.
pub struct Guests {
    /// Their logs.
    pub logs: Logs,
    /// Their libvirt.
    pub libvirt: Arc<Libvirt>,
}

#[async_trait]
impl Service for Guests {
    async fn call(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        let Question { server_id, lines } = call.message().await?;
        let id = uuid::Uuid::parse_str(&server_id).map_err(|_| Refusal::invalid("not a server's id"))?;
        let (id, logs, libvirt) = (id.to_string(), self.logs.clone(), self.libvirt.clone());
        match call.method.as_str() {
            CONSOLE => {
                let lines = lines.and_then(|n| usize::try_from(n).ok());
                let text = blocking(move || logs.tail(&id, lines).map_err(|e| e.to_string())).await?;
                Outgoing::message(&text)
            }
            DIAGNOSTICS => {
                let load = blocking(move || libvirt.load(&id).map_err(|e| e.to_string())).await?;
                let (cpu_time_ns, memory_kib) = (load.cpu_time_ns, load.memory_kib);
                Outgoing::message(&Diagnostics { cpu_time_ns, memory_kib })
            }
            _ => Err(call.unknown_method()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Refusal::unavailable),
        Err(panic) => Err(Refusal::unavailable(panic.to_string())),
    }
}
