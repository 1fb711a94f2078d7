//! The agents: compute, network and storage. Each follows the store through its socket and acts on this node.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cairn_compute::agent::{self as compute_agent, Transport};
use cairn_network::agent as network_agent;
use cairn_node::Paths;
use cairn_shards::agent::{self as storage_agent, Cluster};
use cairn_shards::replication::group::Renewed;
use cairn_shards::replication::remote::Net;
use cairn_shards::replication::service::PORT as STORAGE_PORT;
use cairn_state::{AgentArgs, Reporter, SharedStore};
use cairn_wire::RemoteStore;
use tokio::net::TcpListener;

use super::neighbours::{COMPUTE_PORT, Names, listen, neighbours, renewal};
use crate::{lifecycle, roles};

/// The group that lets the guests' emulators connect to their volumes.
const GUESTS: &str = "cairn-guests";

fn args(paths: &Paths, node: String, role: &str) -> AgentArgs {
    let store: SharedStore = Arc::new(RemoteStore::new(paths.state_socket()));
    let reporter = Reporter::new(store.clone(), node.clone(), role);
    AgentArgs { node, store, reporter, state_dir: paths.role(role), run_dir: paths.run.clone() }
}

/// Runs an agent once this node is of a cloud; it is ready before that.
async fn run<A: Future<Output = Result<()>>>(
    paths: &Paths,
    role: &str,
    agent: impl FnOnce(AgentArgs, String) -> A,
) -> Result<()> {
    lifecycle::ready();
    tokio::select! {
        told = roles::of_a_cloud(paths) => {
            let roles::Told { node, cloud } = told?;
            let agent = agent(args(paths, node, role), cloud.clone());
            tokio::select! {
                ended = agent => ended?,
                () = roles::is_of_another(paths, &cloud) => bail!("this node is of another cloud now: starting anew"),
                () = lifecycle::stopped() => {}
            }
        }
        () = lifecycle::stopped() => {}
    }
    Ok(())
}

/// The compute role.
pub async fn compute(paths: Paths) -> Result<()> {
    run(&paths, "compute", async |args, _| {
        let others = neighbours(&paths, "compute", COMPUTE_PORT).await;
        let listener = TcpListener::bind(listen(COMPUTE_PORT)).await.context("the port for other nodes")?;
        let (endpoint, peers) = (others.endpoint.clone(), others.peers.clone());
        let transport = Transport { endpoint, peers, listener, book: Arc::new(Names(others)) };
        let options = compute_agent::Options {
            renewal: renewal(&paths),
            transport: Some(transport),
            ..compute_agent::Options::default()
        };
        compute_agent::run_with(args, options).await;
        Ok(())
    })
    .await
}

/// The network role.
pub async fn network(paths: Paths) -> Result<()> {
    run(&paths, "network", async |args, _| {
        let since_renewal = Some(renewal(&paths));
        let options = network_agent::Options { since_renewal, ..network_agent::Options::default() };
        network_agent::run_with(args, options).await;
        Ok(())
    })
    .await
}

/// The storage role.
pub async fn storage(paths: Paths) -> Result<()> {
    run(&paths, "storage", async |args, cloud| {
        let others = neighbours(&paths, "storage", STORAGE_PORT).await;
        let (endpoint, peers) = (others.endpoint.clone(), others.peers.clone());
        let who_is = Arc::new(move |name: &str| others.id_of(name));
        let cluster = Cluster { endpoint, listen: listen(STORAGE_PORT), net: Net { peers, who_is } };
        let options = storage_agent::Options {
            cloud: Some(cloud),
            socket_group: Some(GUESTS.into()),
            cluster: Some(cluster),
            renewed: Renewed(Some(renewal(&paths))),
            ..storage_agent::Options::default()
        };
        storage_agent::run_with(args, paths.disks(), options).await;
        Ok(())
    })
    .await
}
