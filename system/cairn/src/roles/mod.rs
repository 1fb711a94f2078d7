//! Each role: what it opens, what it starts, in which order. One file per kind of role.

pub mod agents;
pub mod controller;
pub mod node;
pub mod peers;

use anyhow::{Context, Result};
use cairn_node::Paths;

/// The node's name, as the node role wrote it when it brought the node up.
fn node_name(paths: &Paths) -> Result<String> {
    let file = paths.run.join("name");
    let name = std::fs::read_to_string(&file).with_context(|| {
        format!("{} is missing: is cairn-node up? (systemctl status cairn-node)", file.display())
    })?;
    Ok(name.trim().to_owned())
}
