//! A whole cloud without a machine: every service on a store in memory, and nodes whose agents are played.
//!
//! The play follows the store as agents do and writes only what agents write; no guest runs, no disk is made.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

pub mod user;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use cairn_compute::model::{
    HostStatus, InstanceStatus, MigrationKind, MovePhase, MoveStatus, Power, PowerState, Progress, Server,
    Stage,
};
use cairn_gateway::server::Gateway;
use cairn_image::data::{DataError, ImageData, Stored};
use cairn_network::model as net;
use cairn_shards::model::{DiskStatus, Phase, VolumeSpec, VolumeStatus};
use cairn_state::{LocalStore, Record, Reporter, SharedStore, StoreExt};
use http_body_util::BodyExt;
use jiff::Timestamp;
use tempfile::TempDir;

/// The first node.
pub const NODE: &str = "cairn-000001";
/// The administrator's password.
pub const PASSWORD: &str = "simulated-secret";

/// What a test does to the nodes.
#[derive(Default)]
pub struct Troubles {
    /// Nodes that are dead: their agents do nothing, their leases are gone.
    pub dead: Mutex<BTreeSet<String>>,
    /// Nodes that cannot start a guest.
    pub broken: Mutex<BTreeSet<String>>,
    /// Whether guests that are being sent do not get there.
    pub slow: AtomicBool,
    /// Whether they fail to.
    pub failing: AtomicBool,
}

impl Troubles {
    fn is_dead(&self, node: &str) -> bool {
        self.dead.lock().unwrap().contains(node)
    }
}

/// A cloud.
pub struct Cloud {
    /// Its store.
    pub store: LocalStore,
    /// Its APIs.
    pub app: Router,
    /// Its compute service.
    pub compute: Arc<cairn_compute::Service>,
    /// How many nodes it has.
    pub nodes: usize,
    /// What is wrong with its nodes.
    pub troubles: Arc<Troubles>,
    _reporters: Vec<Reporter>,
    _folder: TempDir,
}

/// The name of a node, from 1.
pub fn node(number: usize) -> String {
    format!("cairn-{number:06}")
}

/// Founds a cloud of one node.
pub async fn cloud() -> Cloud {
    cloud_of(1).await
}

/// Founds a cloud and starts its nodes.
pub async fn cloud_of(nodes: usize) -> Cloud {
    let store = LocalStore::in_memory().unwrap();
    cairn_identity::bootstrap(&store, Some(phc().await), "RegionOne").await.unwrap();
    let shared: SharedStore = Arc::new(store.clone());
    let names: Vec<_> = (1..=nodes).map(node).collect();
    let reporters = names.iter().map(|n| Reporter::new(shared.clone(), n, "compute")).collect();
    let identity = cairn_identity::Service::new(store.clone());
    let image = cairn_image::Service::new(store.clone(), NODE, Arc::new(NoData));
    let network = cairn_network::Service::new(store.clone());
    let placement = cairn_placement::Service::new(store.clone());
    let block = cairn_block::Service::new(store.clone());
    let folder = tempfile::tempdir().unwrap();
    let socket = console_socket(folder.path()).await;
    let troubles = Arc::new(Troubles::default());
    let leases = troubles.clone();
    let alive: cairn_compute::Alive = Arc::new(move |_, node| Ok(!leases.is_dead(node)));
    let compute = cairn_compute::Service::with_leases(store.clone(), socket, alive);
    let mounts = vec![
        cairn_identity::mount(&identity),
        cairn_image::mount(&image),
        cairn_network::mount(&network),
        cairn_placement::mount(&placement),
        cairn_block::mount(&block),
        cairn_compute::mount(&compute),
    ];
    for name in &names {
        report_node(&shared, name).await;
    }
    tokio::spawn(cairn_image::conductor(image));
    tokio::spawn(cairn_network::conductor(network));
    tokio::spawn(cairn_block::conductor(block));
    tokio::spawn(cairn_compute::conductor(compute.clone()));
    tokio::spawn(play(shared, names, troubles.clone()));
    let app = Gateway::new(mounts, identity).router();
    Cloud { store, app, compute, nodes, troubles, _reporters: reporters, _folder: folder }
}

async fn phc() -> String {
    cairn_identity::password::Passwords::default().hash(PASSWORD).await.unwrap()
}

/// A data socket that knows one line of console log.
async fn console_socket(folder: &Path) -> PathBuf {
    let path = folder.join("compute.sock");
    let lines = |query: cairn_gateway::Query| async move {
        let wanted = query.get("lines").and_then(|n| n.parse().ok());
        vec!["one line"; wanted.unwrap_or(20)].join("\n")
    };
    let load = || async { axum::Json(serde_json::json!({"cpu_time_ns": 5, "memory_kib": 131_072})) };
    let router = Router::new()
        .route("/console/{id}", axum::routing::get(lines))
        .route("/diagnostics/{id}", axum::routing::get(load));
    let serve = path.clone();
    tokio::spawn(async move { cairn_wire::local_http::serve(&serve, 0o600, router).await });
    path
}

async fn report_node(store: &SharedStore, node: &str) {
    let host = HostStatus {
        node: node.into(),
        vcpus: 16,
        memory_mb: 65_536,
        hypervisor_version: 10_000_003,
        accelerator: "tcg".into(),
        cpu_model: "simulated".into(),
        arch: "x86_64".into(),
        machine: "pc-q35-10.0".into(),
        booted_at: Timestamp::now(),
    };
    store.put_record(&host).await.unwrap();
    let disk = DiskStatus {
        node: node.into(),
        disk: "d1".into(),
        path: "/nowhere".into(),
        size: 4 << 40,
        free: 4 << 40,
        healthy: true,
        error: None,
        knows_places: true,
        has_backups: false,
        health: None,
        knows_owners: true,
        gone: false,
        visiting: None,
    };
    store.put_record(&disk).await.unwrap();
    beat(store, node).await;
}

async fn beat(store: &SharedStore, node: &str) {
    let now = Timestamp::now();
    let host = net::HostStatus {
        node: node.into(),
        version: "simulated".into(),
        started_at: now,
        heartbeat_at: now,
        physical_networks: vec![net::LAN.into()],
        tunnel_ip: None,
        tunnel_mtu: 0,
        error: None,
    };
    store.put_record(&host).await.unwrap();
}

/// Plays the agents of all nodes, for ever.
async fn play(store: SharedStore, nodes: Vec<String>, troubles: Arc<Troubles>) {
    let mut passes = 0u64;
    loop {
        passes += 1;
        for node in nodes.iter().filter(|n| !troubles.is_dead(n)) {
            volumes(&store, node).await;
            networks(&store, node).await;
            guests(&store, node, &troubles).await;
            moves(&store, node, &troubles).await;
            if passes.is_multiple_of(200u64) {
                beat(&store, node).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn put_if_new<R: Record + PartialEq>(store: &SharedStore, record: R) {
    let known = store.get_record::<R>(&record.id()).await.unwrap();
    if known.as_ref() != Some(&record) {
        store.put_record(&record).await.unwrap();
    }
}

/// A volume is served where it is used: every node reaches every disk.
async fn volumes(store: &SharedStore, node: &str) {
    for spec in store.list_records::<VolumeSpec>().await.unwrap() {
        let at = spec.export.as_ref().map_or(&spec.node, |e| &e.node);
        if at != node {
            continue;
        }
        let export = spec.export.as_ref();
        let phase = if spec.deleted { Phase::Gone } else { Phase::Ready };
        let status = VolumeStatus {
            socket: export.map(|_| format!("/run/{}.sock", spec.id)),
            epoch: export.map_or(0, |e| e.epoch),
            disk: Some("d1".into()),
            node: node.to_owned(),
            ..VolumeStatus::new(&spec, phase)
        };
        put_if_new(store, status).await;
    }
}

async fn networks(store: &SharedStore, node: &str) {
    for port in store.list_records::<net::Port>().await.unwrap() {
        if port.host.as_deref() == Some(node) {
            let status = net::PortStatus {
                id: port.id.clone(),
                host: node.into(),
                generation: port.stamp.revision,
                phase: if port.deleted { net::Phase::Gone } else { net::Phase::Ready },
                up: !port.deleted,
                tap: Some(net::tap_name(&port.id)),
                error: None,
            };
            put_if_new(store, status).await;
        }
    }
    for network in store.list_records::<net::Network>().await.unwrap() {
        if network.hosts.contains(node) {
            let status = net::NetworkStatus {
                network: network.id.clone(),
                host: node.into(),
                generation: network.stamp.revision,
                phase: if network.deleted { net::Phase::Gone } else { net::Phase::Ready },
                dhcp: true,
                error: None,
            };
            put_if_new(store, status).await;
        }
    }
    for router in store.list_records::<net::Router>().await.unwrap() {
        if router.host.as_deref() == Some(node) {
            let status = net::RouterStatus {
                router: router.id.clone(),
                host: node.into(),
                generation: router.stamp.revision,
                phase: if router.deleted { net::Phase::Gone } else { net::Phase::Ready },
                error: None,
            };
            put_if_new(store, status).await;
        }
    }
}

async fn guests(store: &SharedStore, node: &str, troubles: &Troubles) {
    let broken = troubles.broken.lock().unwrap().contains(node);
    for server in store.list_records::<Server>().await.unwrap() {
        if server.host.as_deref() == Some(node) {
            put_if_new(store, seen(&server, node, broken)).await;
        }
    }
}

/// Plays both sides of live migrations.
async fn moves(store: &SharedStore, node: &str, troubles: &Troubles) {
    for server in store.list_records::<Server>().await.unwrap() {
        let Some(moving) = server.moving.as_ref().filter(|m| m.kind == MigrationKind::Live) else { continue };
        let sent = match (&moving.stage, troubles.slow.load(Relaxed), troubles.failing.load(Relaxed)) {
            _ if moving.abort => MovePhase::Failed,
            (_, _, true) => MovePhase::Failed,
            (_, true, _) if !moving.force => MovePhase::Sending,
            _ => MovePhase::Sent,
        };
        let phase = match moving.stage {
            Stage::Preparing if moving.to == node => MovePhase::Ready,
            Stage::Running if moving.to == node && sent == MovePhase::Sent => MovePhase::Arrived,
            Stage::Running if moving.from == node => sent,
            _ => continue,
        };
        let status = MoveStatus {
            server_id: server.id.clone(),
            node: node.to_owned(),
            migration: moving.migration.clone(),
            phase,
            error: (phase == MovePhase::Failed).then(|| "the link broke".to_owned()),
            progress: Progress { total: 100, processed: 40, remaining: 60 },
        };
        put_if_new(store, status).await;
    }
}

/// What a node says of a server.
fn seen(server: &Server, node: &str, broken: bool) -> InstanceStatus {
    let leaves = server.moving.as_ref().is_some_and(|m| m.leaves());
    let power_state = match (server.deleted, server.power) {
        (true, _) => PowerState::NoState,
        _ if broken => PowerState::NoState,
        _ if leaves => PowerState::Shutdown,
        (_, Power::Running) => PowerState::Running,
        (_, Power::Stopped) => PowerState::Shutdown,
        (_, Power::Paused) => PowerState::Paused,
    };
    let volumes = server.volumes.iter().filter(|v| !v.detaching).map(|v| v.volume_id.clone());
    let ports = server.ports.iter().filter(|p| !p.detaching).map(|p| p.port_id.clone());
    InstanceStatus {
        id: server.id.clone(),
        node: node.into(),
        generation: server.generation,
        power_state,
        boots_done: if broken { 0 } else { server.boot.seq },
        failed: broken,
        error: broken.then(|| "it has no accelerator".to_owned()),
        volumes_attached: volumes.collect(),
        ports_plugged: ports.collect(),
        gone: server.deleted,
        ..InstanceStatus::default()
    }
}

/// Takes any content for what it says it is, and keeps nothing.
struct NoData;

impl NoData {
    fn stored(size: u64) -> Stored {
        Stored { size, virtual_size: size.max(1 << 20), md5: "0".repeat(32), sha512: "0".repeat(128) }
    }
}

#[async_trait]
impl ImageData for NoData {
    async fn import(&self, _: &str, _: &str, _: u64, body: Body) -> Result<Stored, DataError> {
        let bytes = body.collect().await.map_err(|e| DataError::Broken(e.to_string()))?.to_bytes();
        Ok(NoData::stored(bytes.len() as u64))
    }

    async fn capture(&self, _: &str, _: &str) -> Result<Stored, DataError> {
        Ok(NoData::stored(1 << 20))
    }

    async fn read(&self, _: &str, _: Option<&str>) -> Result<http::Response<Body>, DataError> {
        Ok(http::Response::new(Body::empty()))
    }
}
