//! The node role.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use cairn_node::Paths;
use cairn_node::bringup::Node;
use cairn_wire::RemoteStore;

use crate::lifecycle;

/// Brings the node up, says so, and keeps watching it.
pub async fn run(paths: Paths, screens: Vec<PathBuf>) -> Result<()> {
    let store = Arc::new(RemoteStore::new(paths.state_socket()));
    let node = Node::bring_up(paths, screens).await.context("the node could not be brought up")?;
    tracing::info!(node = node.name(), "the node is up");
    lifecycle::ready();
    tokio::select! {
        () = node.run(store) => {}
        () = lifecycle::stopped() => {}
    }
    Ok(())
}
