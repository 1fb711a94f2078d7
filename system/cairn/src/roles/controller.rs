//! The controller role: opens the store, starts every service on it, serves the APIs by TLS and the store to the
//! node's agents by its socket.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_gateway::Mount;
use cairn_gateway::server::{Certificates, Gateway, Listen, serve};
use cairn_node::Paths;
use cairn_state::{LocalStore, Reporter};
use cairn_wire::{local_socket, store_server};

use crate::appliance::{self, Appliance};
use crate::{lifecycle, roles};

/// The region of a cloud that has only one.
const REGION: &str = "RegionOne";
/// How often the server certificate's file is looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the node role may take to hand over the server certificate.
const HANDOVER_MAX: Duration = Duration::from_secs(120);

/// Runs the role.
pub async fn run(paths: Paths) -> Result<()> {
    let node = roles::told(&paths)?.node;
    let store = LocalStore::open(&paths.store()).context("the store cannot be opened")?;
    let hash = std::fs::read_to_string(paths.handover().join("admin.phc"))
        .context("the hash of the administrator's secret was not handed over: is cairn-node up?")?;
    cairn_identity::bootstrap(&store, Some(hash), REGION).await.context("the cloud could not be founded")?;

    let socket = local_socket::bind(&paths.state_socket(), 0o660).context("the store's socket")?;
    tokio::spawn(store_server::serve(socket, store.clone(), roles::peers::policy(&node)));
    let reporter = Reporter::new(Arc::new(store.clone()), node.clone(), "controller");

    let services = Services::new(&paths, &store, &node);
    services.start_conductors();
    let appliance = Arc::new(Appliance::new(store.clone(), paths.handover().join("ca.pem")));
    let app = Gateway::new(services.mounts(&appliance), services.identity.clone()).status(appliance).router();

    let certificates = certificates(&paths.handover()).await?;
    tokio::spawn(follow(paths.handover(), certificates.clone()));
    let any = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    let listen = Listen::bind(&[any(443)], &[any(80)]).await?;
    lifecycle::ready();
    tracing::info!(%node, "the APIs answer");
    tokio::select! {
        served = serve(app, certificates, listen, lifecycle::stopped()) => served.context("serving the APIs")?,
        // Nothing more can be written. Started anew, the store's file is repaired, or says why it can't be.
        failure = store.failed() => bail!("the store's disk failed: {failure}"),
    }
    drop(reporter);
    Ok(())
}

/// Every service of the cloud.
struct Services {
    identity: Arc<cairn_identity::Service>,
    image: Arc<cairn_image::Service>,
    placement: Arc<cairn_placement::Service>,
    network: Arc<cairn_network::Service>,
    block: Arc<cairn_block::Service>,
    compute: Arc<cairn_compute::Service>,
}

impl Services {
    fn new(paths: &Paths, store: &LocalStore, node: &str) -> Services {
        let data = Arc::new(cairn_shards::data::Client::new(paths.run.join("storage.sock")));
        let image = cairn_image::Service::new(store.clone(), node, data);
        Services {
            identity: cairn_identity::Service::new(store.clone()),
            placement: cairn_placement::Service::new(store.clone()),
            network: cairn_network::Service::new(store.clone()),
            block: cairn_block::Service::new(store.clone()),
            compute: cairn_compute::Service::new(store.clone(), paths.run.join("compute.sock")),
            image,
        }
    }

    fn mounts(&self, appliance: &Arc<Appliance>) -> Vec<Mount> {
        vec![
            cairn_identity::mount(&self.identity),
            cairn_image::mount(&self.image),
            cairn_placement::mount(&self.placement),
            cairn_network::mount(&self.network),
            cairn_block::mount(&self.block),
            cairn_compute::mount(&self.compute),
            appliance::mount(appliance),
        ]
    }

    fn start_conductors(&self) {
        tokio::spawn(cairn_identity::conductor(self.identity.clone()));
        tokio::spawn(cairn_image::conductor(self.image.clone()));
        tokio::spawn(cairn_network::conductor(self.network.clone()));
        tokio::spawn(cairn_block::conductor(self.block.clone()));
        tokio::spawn(cairn_compute::conductor(self.compute.clone()));
    }
}

/// Waits for the node role's first certificate.
async fn certificates(dir: &Path) -> Result<Arc<Certificates>> {
    let file = dir.join("server.pem");
    let waited = tokio::time::timeout(HANDOVER_MAX, async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.context("no server certificate was handed over: is cairn-node up?")?;
    let pem = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Certificates::from_pem(&pem, &pem).context("the server certificate is not usable")
}

/// Takes a new certificate into use as soon as it is handed over.
async fn follow(dir: std::path::PathBuf, certificates: Arc<Certificates>) {
    let file = dir.join("server.pem");
    let modified = || std::fs::metadata(&file).and_then(|m| m.modified()).ok();
    let mut seen = modified();
    loop {
        tokio::time::sleep(CERTIFICATE_INTERVAL).await;
        let now = modified();
        if now == seen {
            continue;
        }
        match std::fs::read(&file).map(|pem| certificates.reload(&pem, &pem)) {
            Ok(Ok(())) => tracing::info!("a new server certificate is in use"),
            Ok(Err(e)) => tracing::warn!(error = %e, "the new server certificate is not usable"),
            Err(e) => tracing::warn!(error = %e, "the new server certificate cannot be read"),
        }
        seen = now;
    }
}
