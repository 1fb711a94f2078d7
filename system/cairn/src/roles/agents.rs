//! The agents: compute, network and storage. Each follows the store through its socket and acts on this node.

use std::sync::Arc;

use anyhow::Result;
use cairn_node::Paths;
use cairn_shards::agent::{Options, run_with};
use cairn_state::{AgentArgs, Reporter, SharedStore};
use cairn_wire::RemoteStore;

use crate::{lifecycle, roles};

/// The group that lets the guests' emulators connect to their volumes.
const GUESTS: &str = "cairn-guests";

fn args(paths: &Paths, role: &str) -> Result<AgentArgs> {
    let node = roles::told(paths)?.node;
    let store: SharedStore = Arc::new(RemoteStore::new(paths.state_socket()));
    let reporter = Reporter::new(store.clone(), node.clone(), role);
    Ok(AgentArgs { node, store, reporter, state_dir: paths.role(role), run_dir: paths.run.clone() })
}

async fn run(agent: impl Future<Output = ()>) -> Result<()> {
    lifecycle::ready();
    tokio::select! {
        () = agent => {}
        () = lifecycle::stopped() => {}
    }
    Ok(())
}

/// The compute role.
pub async fn compute(paths: Paths) -> Result<()> {
    run(cairn_compute::agent::run(args(&paths, "compute")?)).await
}

/// The network role.
pub async fn network(paths: Paths) -> Result<()> {
    run(cairn_network::agent::run(args(&paths, "network")?)).await
}

/// The storage role.
pub async fn storage(paths: Paths) -> Result<()> {
    let cloud = Some(roles::told(&paths)?.cloud);
    let options = Options { cloud, socket_group: Some(GUESTS.into()), ..Options::default() };
    run(run_with(args(&paths, "storage")?, paths.disks(), options)).await
}
