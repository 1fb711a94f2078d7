//! Volumes in a real Ceph cluster: one node and, beside it, a cluster of three OSDs with keys. By the real clients, from a
//! backend that is made known to a pool that is as empty as before.
//!
//! It fails by what must never be: an I/O error in a guest, a flushed block that is lost, an image that is left in the pool,
//! the cluster's key where others can read it.

mod acts;
mod cluster;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use image_builder::{Paths, Stages, iso};

use crate::client::Client;
use crate::cloud::Access;
use crate::dev::{self, Cluster as Nodes};
use crate::tour::{Guest, Inventory, Scene, step};
use acts::Bench;
use cluster::Cluster;

/// Options of the tests of volumes in Ceph.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The binary that the node runs.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Leave the node running at the end.
    #[arg(long)]
    pub keep: bool,
}

/// Starts both and shows all.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let mut stages = Stages::start(paths)?;
    dev::prepare(&mut stages)?;
    let binary = match &options.binary {
        Some(given) => given.canonicalize().with_context(|| format!("no binary {}", given.display()))?,
        None => iso::compile(&mut stages)?,
    };
    let root = cluster::root(paths)?;
    let nodes = Nodes::new(paths, dev::INSTANCE, 1);
    step("a node", || nodes.start(&binary))?;
    let outcome = show(paths, &nodes, &root);
    if !options.keep {
        nodes.stop()?;
    }
    outcome
}

fn show(paths: &Paths, nodes: &Nodes, root: &std::path::Path) -> Result<()> {
    let node = nodes.node(1)?;
    let directory = paths.workspace().join("target/ceph/cluster");
    let ceph = step("a Ceph cluster", || Cluster::start(root, &directory, &node.gateway()))?;
    let client = Client::new(paths, Access::load(node.dir())?)?;
    let before = Inventory::before(&client)?;
    let bench = Bench { client: &client, node, ceph: &ceph };
    let mut scene = Scene::new(paths, &client, Guest::Tiny)?;
    let outcome = bench.known().and_then(|()| bench.volumes(&mut scene));
    let undone = step("everything deleted", || bench.clear(&mut scene));
    outcome?;
    undone?;
    step("nothing is left in the cloud", || before.wait_same(&client))
}
