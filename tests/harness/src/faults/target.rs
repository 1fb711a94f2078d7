//! What the fault tests are done to: a development node, or the emulated machine that `cargo up` runs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use image_builder::Paths;

use super::Options;
use crate::dev::{self, Node};

/// A cloud whose power can be cut.
pub enum Target {
    /// A development node and the binary it runs. Its processes end at once, but what they wrote is still in the
    /// host's page cache.
    Node(Box<Node>, PathBuf),
}

impl Target {
    /// The target the options ask for; it must run already.
    pub fn new(paths: &Paths, options: &Options) -> Target {
        let binary = options.binary.clone().unwrap_or_else(|| paths.cairn());
        Target::Node(Box::new(Node::new(paths, "dev")), binary)
    }

    /// The folder of its access files.
    pub fn access_dir(&self) -> &Path {
        match self {
            Target::Node(node, _) => node.access_dir(),
        }
    }

    /// Cuts the power.
    pub fn power_cut(&self) -> Result<()> {
        match self {
            Target::Node(node, _) => node.power_cut(),
        }
    }

    /// Switches it on again and waits for the API.
    pub fn start(&self) -> Result<()> {
        match self {
            Target::Node(node, binary) => dev::start(node, binary),
        }
    }
}
