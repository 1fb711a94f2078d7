//! Each role: what it opens, what it starts, in which order. One file per kind of role.

pub mod agents;
pub mod controller;
pub mod node;
pub mod peers;

use anyhow::{Context, Result};
use cairn_node::Paths;

/// What the node role wrote for all others when it brought the node up.
struct Told {
    /// The node's name.
    node: String,
    /// The id of its cloud.
    cloud: String,
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
