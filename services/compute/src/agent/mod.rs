//! The node side of compute: makes the guests of this node what the store says they should be.
//!
//! `plan` and `domain_xml` decide and render, without touching anything; `reconcile` compares and drives;
//! `libvirt`, `console` and `probe` touch the node; `moving` takes guests to other nodes and in from them; `fence`
//! stops guests that others may start. The agent writes [`InstanceStatus`], [`HostStatus`] and [`MoveStatus`] of its own
//! node and nothing else. It destroys a guest only if its server is tombstoned or is another node's, and never one it
//! does not know: those are only reported. Guests run on while it is away.
//!
//! [`InstanceStatus`]: crate::model::InstanceStatus
//! [`HostStatus`]: crate::model::HostStatus
//! [`MoveStatus`]: crate::model::MoveStatus

pub mod console;
pub mod domain_xml;
mod fence;
mod guest;
mod host;
mod libvirt;
pub mod moving;
pub mod observe;
pub mod plan;
mod probe;
mod ready;
mod reconcile;
pub(crate) mod remote;
mod socket;

pub use self::fence::Renewal;
pub use self::moving::{Book, Transport};
pub use self::socket::Diagnostics;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_state::reconcile as driver;
use cairn_state::{AgentArgs, Mirror};
use cairn_wire::remote::Services;

use self::console::Logs;
use self::fence::Guard;
use self::libvirt::Libvirt;
use self::moving::tunnel::Doorway;
use self::moving::{Mover, Parts, Sockets, Way};
use self::ready::Mirrors;
use self::reconcile::Guests;

/// How often guests are looked at when nothing in the store changes: so soon a guest that turned itself off shows.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How this node stands to the others.
pub struct Options {
    /// How long ago its lease was renewed.
    pub renewal: Renewal,
    /// How guests come and go; without it none can, live.
    pub transport: Option<Transport>,
    /// libvirt's URI.
    pub libvirt_uri: String,
    /// The socket of the same libvirt, for those that send guests here.
    pub libvirt_socket: PathBuf,
}

impl Default for Options {
    /// A node that is alone in its cloud.
    fn default() -> Options {
        Options {
            renewal: Arc::new(|| Some(Duration::ZERO)),
            transport: None,
            libvirt_uri: setting("CAIRN_LIBVIRT_URI", "qemu:///system"),
            libvirt_socket: setting("CAIRN_LIBVIRT_SOCKET", "/run/libvirt/libvirt-sock").into(),
        }
    }
}

/// Runs the agent of a node that is alone; never returns.
pub async fn run(args: AgentArgs) {
    run_with(args, Options::default()).await;
}

/// Runs the agent of this node; never returns.
pub async fn run_with(args: AgentArgs, options: Options) {
    let libvirt = Arc::new(Libvirt::new(options.libvirt_uri));
    let logs = Logs::new(args.state_dir.join("console"));
    let ledger = Some(args.state_dir.as_path());
    let mirrors = Mirrors {
        servers: Mirror::start(args.store.clone(), ledger).await,
        specs: Mirror::start(args.store.clone(), ledger).await,
        volumes: Mirror::start(args.store.clone(), ledger).await,
        volumes_prepared: Mirror::start(args.store.clone(), None).await,
        ports: Mirror::start(args.store.clone(), ledger).await,
        ports_prepared: Mirror::start(args.store.clone(), None).await,
        past: Mirror::start(args.store.clone(), ledger).await,
        moves: Mirror::start(args.store.clone(), ledger).await,
    };
    let hosts = Mirror::start(args.store.clone(), ledger).await;
    let guard = Arc::new(Guard::new(args.node.clone(), args.store.clone(), options.renewal, hosts));
    let platform = host::follow(&args, libvirt.clone());
    tokio::spawn(socket::serve(args.run_dir.join("compute.sock"), logs.clone(), libvirt.clone()));
    tokio::spawn(fence::watch(guard.clone(), libvirt.clone(), args.reporter.clone()));
    let sockets = Sockets::new(args.state_dir.join("moving"));
    let way = options.transport.map(|transport| {
        let Transport { endpoint, peers, listener, book } = transport;
        let doorway = Doorway {
            node: args.node.clone(),
            servers: mirrors.servers.clone(),
            book: book.clone(),
            sockets: sockets.clone(),
            libvirt: options.libvirt_socket,
        };
        let guests = remote::Guests { logs: logs.clone(), libvirt: libvirt.clone() };
        let services = Services::new()
            .with(moving::tunnel::SERVICE, Arc::new(doorway))
            .with(remote::SERVICE, Arc::new(guests));
        tokio::spawn(moving::tunnel::serve(endpoint, listener, services));
        Way { peers, book }
    });
    let (finished, finishes) = tokio::sync::watch::channel(0);
    let finished = Arc::new(finished);
    let mover = Mover::new(Parts {
        node: args.node.clone(),
        store: args.store.clone(),
        libvirt: libvirt.clone(),
        logs: logs.clone(),
        sockets,
        way,
        said: mirrors.moves.clone(),
        finished: finished.clone(),
    });
    let wake = vec![
        mirrors.servers.changes(),
        mirrors.volumes.changes(),
        mirrors.ports.changes(),
        mirrors.volumes_prepared.changes(),
        mirrors.ports_prepared.changes(),
        mirrors.moves.changes(),
        finishes,
    ];
    let reporter = args.reporter.clone();
    let guests = Guests::new(args, libvirt, logs, mirrors, (guard, mover), platform, finished);
    driver::run(guests, wake, LOOK_EVERY, reporter).await;
}

/// A setting of the environment, which the service's unit may give.
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.into())
}
