//! The agents: compute, network and storage. Each follows the store through its socket and acts on this node.

use std::sync::Arc;

use anyhow::{Result, bail};
use cairn_node::Paths;
use cairn_shards::agent::{Options, run_with};
use cairn_state::{AgentArgs, Reporter, SharedStore};
use cairn_wire::RemoteStore;

use crate::{lifecycle, roles};

/// The group that lets the guests' emulators connect to their volumes.
const GUESTS: &str = "cairn-guests";

fn args(paths: &Paths, node: String, role: &str) -> AgentArgs {
    let store: SharedStore = Arc::new(RemoteStore::new(paths.state_socket()));
    let reporter = Reporter::new(store.clone(), node.clone(), role);
    AgentArgs { node, store, reporter, state_dir: paths.role(role), run_dir: paths.run.clone() }
}

/// Runs an agent once this node is of a cloud; it is ready before that.
async fn run<A: Future<Output = ()>>(
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
                () = agent => {}
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
    run(&paths, "compute", |args, _| cairn_compute::agent::run(args)).await
}

/// The network role.
pub async fn network(paths: Paths) -> Result<()> {
    run(&paths, "network", |args, _| cairn_network::agent::run(args)).await
}

/// The storage role.
pub async fn storage(paths: Paths) -> Result<()> {
    let disks = paths.disks();
    run(&paths, "storage", |args, cloud| {
        let options = Options { cloud: Some(cloud), socket_group: Some(GUESTS.into()), ..Options::default() };
        run_with(args, disks, options)
    })
    .await
}
