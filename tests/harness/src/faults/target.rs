//! What the fault tests are done to: a development node, or the emulated machine that `cargo up` runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_builder::Paths;
use image_builder::vm::Vm;

use super::Options;
use crate::dev::{self, Node};
use crate::machine;

/// A cloud whose power can be cut.
pub enum Target {
    /// A development node and the binary it runs. Its processes end at once, but what they wrote is still in the
    /// host's page cache.
    Node(Box<Node>, PathBuf),
    /// The emulated machine that `cargo up` runs: what its kernel had not written to its disks is lost.
    Vm(Paths, PathBuf),
}

impl Target {
    /// The target the options ask for; it must run already.
    pub fn new(paths: &Paths, options: &Options) -> Target {
        if options.vm {
            return Target::Vm(paths.clone(), paths.cloud());
        }
        let binary = options.binary.clone().unwrap_or_else(|| paths.cairn());
        Target::Node(Box::new(Node::new(paths, dev::INSTANCE)), binary)
    }

    /// The folder of its access files.
    pub fn access_dir(&self) -> &Path {
        match self {
            Target::Node(node, _) => node.dir(),
            Target::Vm(_, dir) => dir,
        }
    }

    /// Cuts the power.
    pub fn power_cut(&self) -> Result<()> {
        match self {
            Target::Node(node, _) => node.power_cut(),
            Target::Vm(_, dir) => Vm::attach(&dir.join("node1")).context("no machine runs")?.kill(),
        }
    }

    /// Switches it on again and waits for the API.
    pub fn start(&self) -> Result<()> {
        match self {
            Target::Node(node, binary) => dev::start(node, binary),
            Target::Vm(paths, _) => machine::start(paths),
        }
    }
}
