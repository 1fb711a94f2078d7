//! The node side of compute: makes the guests of this node what the store says they should be.
//!
//! `plan` and `domain_xml` decide and render, without touching anything; `reconcile` compares and drives;
//! `libvirt`, `console` and `probe` touch the node. The agent writes [`InstanceStatus`] and [`HostStatus`] of its
//! own node and nothing else. It never destroys a guest whose server is not tombstoned, and never one it does not
//! know: those are only reported. Guests run on while it is away.
//!
//! [`InstanceStatus`]: crate::model::InstanceStatus
//! [`HostStatus`]: crate::model::HostStatus

pub mod console;
pub mod domain_xml;
mod guest;
mod host;
mod libvirt;
pub mod observe;
pub mod plan;
mod probe;
mod reconcile;
mod socket;

pub use self::socket::Diagnostics;

use std::sync::Arc;
use std::time::Duration;

use cairn_state::reconcile as driver;
use cairn_state::{AgentArgs, Mirror};

use self::console::Logs;
use self::libvirt::Libvirt;
use self::reconcile::{Guests, Mirrors};

/// How often guests are looked at when nothing in the store changes: so soon a guest that turned itself off shows.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Runs the agent of this node; never returns.
pub async fn run(args: AgentArgs) {
    let libvirt = Arc::new(Libvirt::new(setting("CAIRN_LIBVIRT_URI", "qemu:///system")));
    let logs = Logs::new(args.state_dir.join("console"));
    let ledger = Some(args.state_dir.as_path());
    let mirrors = Mirrors {
        servers: Mirror::start(args.store.clone(), ledger).await,
        specs: Mirror::start(args.store.clone(), ledger).await,
        volumes: Mirror::start(args.store.clone(), ledger).await,
        ports: Mirror::start(args.store.clone(), ledger).await,
        past: Mirror::start(args.store.clone(), ledger).await,
    };
    let platform = host::follow(&args, libvirt.clone());
    tokio::spawn(socket::serve(args.run_dir.join("compute.sock"), logs.clone(), libvirt.clone()));
    let (finished, finishes) = tokio::sync::watch::channel(0);
    let wake = vec![mirrors.servers.changes(), mirrors.volumes.changes(), mirrors.ports.changes(), finishes];
    let reporter = args.reporter.clone();
    let guests = Guests::new(args, libvirt, logs, mirrors, platform, finished);
    driver::run(guests, wake, LOOK_EVERY, reporter).await;
}

/// A setting of the environment, which the service's unit may give.
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.into())
}
