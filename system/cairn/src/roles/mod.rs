//! Each role: what it opens, what it starts, in which order. One file per kind of role.

pub mod agents;
pub mod controller;
mod neighbours;
pub mod node;
pub mod peers;

use std::time::Duration;

use anyhow::{Context, Result};
use cairn_node::Paths;

/// How often a role that waits for a cloud looks.
const LOOK: Duration = Duration::from_millis(200);

/// What the node role wrote for all others when it brought the node up.
struct Told {
    /// The node's name.
    node: String,
    /// The id of its cloud.
    cloud: String,
}

/// Waits until this node is of a cloud, which may take for as long as a person takes to let it in.
async fn of_a_cloud(paths: &Paths) -> Result<Told> {
    let cloud = paths.run.join("cloud");
    if !cloud.exists() {
        tracing::info!("waiting until this node is of a cloud");
    }
    while !cloud.exists() {
        tokio::time::sleep(LOOK).await;
    }
    told(paths)
}

/// Waits until this node is of another cloud than this one.
async fn is_of_another(paths: &Paths, cloud: &str) {
    while told(paths).map_or(true, |told| told.cloud == cloud) {
        tokio::time::sleep(LOOK).await;
    }
}

fn told(paths: &Paths) -> Result<Told> {
    let read = |name: &str| {
        let file = paths.run.join(name);
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!("{} is missing: is cairn-node up? (systemctl status cairn-node)", file.display())
        })?;
        anyhow::Ok(text.trim().to_owned())
    };
    Ok(Told { node: read("name")?, cloud: read("cloud")? })
}
