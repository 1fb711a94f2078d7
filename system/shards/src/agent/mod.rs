//! The node side: the storage process. It makes the disks and sockets of this node match the volumes' specs, and
//! reports what it sees.
//!
//! [`attention`] says what is looked at, [`plan`] decides (pure), [`reconcile`] acts on volumes, [`disks`] watches over
//! the disks; [`replicated_plan`] and [`replicated`] do so for volumes that have replicas on several nodes; [`care`] is
//! what nobody asks for. Everything that blocks runs on blocking threads. It never destroys what merely has no spec:
//! that is reported as an orphan.

mod attention;
mod care;
mod disks;
mod failures;
mod keyed;
mod plan;
mod reconcile;
mod replicated;
mod replicated_plan;
pub(crate) mod report;
mod survey;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_state::{AgentArgs, Mirror, reconcile as driver};
use cairn_wire::remote::{Endpoint, Services};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::reconcile::Mirrors;
use crate::backup::agent::Backups;
use crate::blk::ServeOptions;
use crate::crypt::keys::Keyring;
use crate::data;
use crate::external::agent::{External, Mirrors as ExternalMirrors};
use crate::external::family::Family;
use crate::model::DiskOwner;
use crate::pool::Pool;
use crate::replication::group::{Means, Renewed};
use crate::replication::remote::{Everywhere, Net};
use crate::replication::replica::{Replicas, boot_id};
use crate::replication::service::{ReplicaService, SERVICE};

/// How often volumes are looked at without any news (a full disk makes none).
const VOLUMES_RESYNC: Duration = Duration::from_secs(5);
/// How long the data socket rests after it failed.
const SOCKET_REST: Duration = Duration::from_secs(2);

/// What a node may set about its storage process.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cloud whose disks may be used; `None` leaves that to who mounts them.
    pub cloud: Option<String>,
    /// The group of the emulator's processes, which may connect to the volumes' sockets.
    pub socket_group: Option<String>,
    /// Permissions of the data socket.
    pub data_socket_mode: u32,
    /// How often disks are looked for and probed.
    pub disks_interval: Duration,
    /// How images are checked and converted.
    pub convert: data::ConvertLimits,
    /// The other nodes, if there may be any.
    pub cluster: Option<Cluster>,
    /// How long ago the cloud last knew this node to be alive; `None` if that is not told.
    pub renewed: Renewed,
    /// The boot of the machine: what was not on stable media does not outlive it. The kernel's word for it in earnest.
    pub boot: String,
}

/// The way to other nodes, and theirs to this one.
#[derive(Clone)]
pub struct Cluster {
    /// What this node proves itself by, and whom it trusts.
    pub endpoint: Endpoint,
    /// Where it listens for writers on other nodes; the port is [`crate::replication::service::PORT`] in earnest.
    pub listen: SocketAddr,
    /// The other nodes, by name.
    pub net: Net,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cloud: None,
            socket_group: Some("kvm".into()),
            data_socket_mode: 0o660,
            disks_interval: Duration::from_secs(10),
            convert: data::ConvertLimits::default(),
            cluster: None,
            renewed: Renewed::default(),
            boot: boot_id(),
        }
    }
}

/// Runs the storage process over the disks mounted below `disks_dir`. Never returns.
pub async fn run(args: AgentArgs, disks_dir: PathBuf) {
    run_with(args, disks_dir, Options::default()).await;
}

/// Like [`run`], with options.
pub async fn run_with(args: AgentArgs, disks_dir: PathBuf, options: Options) {
    // A volume has a file per GiB: as many open ones as the system grants.
    if let Err(e) = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
    {
        tracing::warn!(error = %e, "the limit of open files was not raised");
    }
    let pool = Arc::new(Pool::new(&disks_dir, options.cloud.clone()).of_node(&args.node));
    let serve = ServeOptions {
        dir: args.run_dir.join("storage"),
        gid: options.socket_group.as_deref().and_then(gid),
    };
    let _ = tokio::fs::create_dir_all(&args.state_dir).await;
    // Volumes that were exported come back before anything is asked of the controller.
    let owners: Mirror<DiskOwner> = Mirror::start(args.store.clone(), Some(&args.state_dir)).await;
    pool.believe(disks::beliefs(&owners.all(), &[], false));
    let scanned = pool.clone();
    if let Ok(Err(e)) = tokio::task::spawn_blocking(move || scanned.scan()).await {
        tracing::error!(disks_dir = %disks_dir.display(), error = %e, "no data disks");
    }
    let mirrors = mirrors(&args).await;
    let (news, news_seen) = watch::channel(0);
    let Mirrors { specs, statuses, sets, replica_statuses, keys } = &mirrors;
    let backup_sets = sets.clone();
    let wake = vec![
        specs.changes(),
        statuses.changes(),
        sets.changes(),
        replica_statuses.changes(),
        keys.changes(),
        news_seen,
    ];
    let family = Arc::new(Family::new(serve.dir.clone()));
    let service = data::Service::new(pool.clone(), specs.clone(), options.convert)
        .with_replicas(&args.node, sets.clone())
        .with_backends(family.clone(), serve.dir.clone());
    let elsewhere = ExternalMirrors {
        specs: specs.clone(),
        statuses: statuses.clone(),
        sets: sets.clone(),
        backends: Mirror::start(args.store.clone(), Some(&args.state_dir)).await,
        keys: keys.clone(),
    };
    let external =
        External::new(&args, pool.clone(), serve.clone(), elsewhere, family, watch::Sender::new(0));
    let external_wake = external.wake();
    let socket = args.run_dir.join("storage.sock");
    let boot = options.boot;
    let replicas = Arc::new(Replicas::new(pool.clone(), boot.clone()));
    let net = options.cluster.as_ref().map(|c| c.net.clone());
    let opener = Arc::new(Everywhere::new(&args.node, replicas.clone(), net));
    let (node, store, renewed) = (args.node.clone(), args.store.clone(), options.renewed);
    let means = Means { node, boot, store, opener, renewed, pace: Arc::default() };
    let volumes =
        reconcile::Volumes::new(&args, pool.clone(), serve, mirrors, means, replicas.clone(), news.clone());
    let backups = Backups::start(&args, pool.clone(), backup_sets, watch::Sender::new(0)).await;
    let backups_wake = backups.wake();
    let disks = disks::Disks::new(&args, pool.clone(), owners, news).await;
    let disks_wake = disks.wake();
    tokio::join!(
        driver::run(volumes, wake, VOLUMES_RESYNC, args.reporter.clone()),
        driver::run(external, external_wake, VOLUMES_RESYNC, args.reporter.clone()),
        driver::run(backups, backups_wake, VOLUMES_RESYNC, args.reporter.clone()),
        driver::run(disks, disks_wake, options.disks_interval, args.reporter.clone()),
        serve_data(service, socket, options.data_socket_mode),
        serve_replicas(options.cluster, replicas.clone()),
        care::run(&pool, &replicas, &args.reporter),
    );
}

/// Follows what is wanted. What must be known without the controller is kept on this node's disk.
async fn mirrors(args: &AgentArgs) -> Mirrors {
    let ledger = Some(args.state_dir.as_path());
    Mirrors {
        specs: Mirror::start(args.store.clone(), ledger).await,
        statuses: Mirror::start(args.store.clone(), None).await,
        sets: Mirror::start(args.store.clone(), ledger).await,
        replica_statuses: Mirror::start(args.store.clone(), None).await,
        keys: Keyring::start(args.store.clone(), ledger).await,
    }
}

/// Lets writers on other nodes at the replicas of this one.
async fn serve_replicas(cluster: Option<Cluster>, replicas: Arc<Replicas>) {
    let Some(Cluster { endpoint, listen, .. }) = cluster else { return };
    loop {
        let service = Arc::new(ReplicaService::new(replicas.clone()));
        let services = Services::new().with(SERVICE, service);
        let served = match TcpListener::bind(listen).await {
            Ok(listener) => cairn_wire::remote::serve(listener, endpoint.clone(), services).await,
            Err(e) => Err(cairn_wire::remote::Error::Broken(e.to_string())),
        };
        if let Err(e) = served {
            tracing::error!(%listen, error = %e, "replicas are not served to other nodes");
        }
        tokio::time::sleep(SOCKET_REST).await;
    }
}

async fn serve_data(service: data::Service, socket: PathBuf, mode: u32) {
    loop {
        if let Err(e) = cairn_wire::local_http::serve(&socket, mode, service.router()).await {
            tracing::error!(socket = %socket.display(), error = %e, "the data socket failed");
        }
        tokio::time::sleep(SOCKET_REST).await;
    }
}

fn gid(group: &str) -> Option<u32> {
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Some(found.gid.as_raw()),
        _ => {
            tracing::warn!(group, "no such group: only this user can connect to volumes");
            None
        }
    }
}
