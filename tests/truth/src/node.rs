//! A node: a storage agent as Cairn runs it, in a process of its own, with the cloud's store behind a socket.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cairn_shards::agent::{self, Cluster, Options};
use cairn_shards::replication::remote::Net;
use cairn_state::{AgentArgs, Reporter, SharedStore};
use cairn_wire::RemoteStore;
use cairn_wire::remote::{Credentials, Endpoint, PeerId, Peers, Trust, TrustSet, Versions};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};

/// Where a node's settings are in its directory.
pub const SETTINGS: &str = "node.json";
/// Where the disks are mounted.
pub const DISKS: &str = "disks";
/// The way to the store.
pub const STORE: &str = "store.sock";
/// The cloud of the disks.
pub const CLOUD: &str = "truth";

/// What a node is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub name: String,
    pub key: Vec<u8>,
    pub certificate: Vec<u8>,
    pub listen: SocketAddr,
    /// Name, key and address of every node, itself included.
    pub nodes: Vec<(String, String, SocketAddr)>,
    pub boot: String,
}

/// Who a node is.
pub struct Identity {
    pub key: Vec<u8>,
    pub certificate: Vec<u8>,
    pub id: PeerId,
}

impl Identity {
    /// A new one.
    pub fn make() -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::default().self_signed(&key)?.der().to_vec();
        let key = key.serialize_der();
        let id = credentials(&key, &certificate)?.id();
        Ok(Identity { key, certificate, id })
    }
}

fn credentials(key: &[u8], certificate: &[u8]) -> Result<Credentials> {
    Ok(Credentials::new(PrivatePkcs8KeyDer::from(key.to_vec()).into(), certificate.to_vec().into())?)
}

/// Runs until it is killed.
pub fn run(directory: &Path) -> Result<()> {
    // The checker's end is its own.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let settings = std::fs::read(directory.join(SETTINGS)).context("no settings")?;
    let settings: Settings = serde_json::from_slice(&settings)?;
    log(directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(directory, settings))
}

fn log(directory: &Path) -> Result<()> {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log"))?;
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(log))
        .init();
    Ok(())
}

async fn serve(directory: &Path, settings: Settings) -> Result<()> {
    let node = settings.name.clone();
    let store: SharedStore = Arc::new(RemoteStore::new(directory.join(STORE)));
    let run_dir: PathBuf = directory.join("run");
    std::fs::create_dir_all(&run_dir)?;
    let args = AgentArgs {
        node: node.clone(),
        store: store.clone(),
        reporter: Reporter::new(store, &node, "storage"),
        state_dir: directory.join("state"),
        run_dir,
    };
    let options = Options {
        cloud: Some(CLOUD.into()),
        socket_group: None,
        disks_interval: Duration::from_millis(500),
        cluster: Some(cluster(&settings)?),
        boot: settings.boot,
        ..Options::default()
    };
    agent::run_with(args, directory.join(DISKS), options).await;
    Ok(())
}

fn cluster(settings: &Settings) -> Result<Cluster> {
    let mut names: Vec<(String, PeerId)> = Vec::new();
    for (name, id, _) in &settings.nodes {
        names.push((name.clone(), id.parse()?));
    }
    let members = names.iter().map(|(_, id)| *id).collect();
    let trust = Trust::new(TrustSet { members, ..TrustSet::default() });
    let credentials = credentials(&settings.key, &settings.certificate)?;
    let endpoint = Endpoint { credentials, trust, versions: Versions::OURS };
    let peers = Peers::new(endpoint.clone());
    for ((_, id), (_, _, address)) in names.iter().zip(&settings.nodes) {
        peers.set_addresses(*id, vec![*address]);
    }
    let who_is = move |name: &str| names.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
    Ok(Cluster { endpoint, listen: settings.listen, net: Net { peers, who_is: Arc::new(who_is) } })
}
