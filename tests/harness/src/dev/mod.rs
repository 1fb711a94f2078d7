//! `cargo dev`: whole nodes straight on this machine, each in namespaces of its own, with its own libvirtd and disks,
//! in the very userland that the image ships, on one LAN whose cables can be cut.

mod cluster;
mod disks;
mod foreign;
pub mod init;
mod node;
mod root;
mod unit;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use image_builder::interrupt::Interrupt;
use image_builder::{Paths, Stages, guests, host, iso, root_tree, stage};

pub use cluster::Cluster;
pub use disks::devices_of;
pub use foreign::Foreign;
pub use node::Node;

/// The name of what this command starts, in folders, namespaces and interfaces.
pub const INSTANCE: &str = "dev";
/// How long a node may take from its start to an answering API.
const UP_MAX: Duration = Duration::from_secs(180);

/// Options of `cargo dev`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// How many nodes to start; one that runs goes on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// Return when the nodes are up; stop them later by --stop.
    #[arg(long)]
    pub detach: bool,
    /// Stop the nodes; their disks stay, so that the next start finds all as it was.
    #[arg(long)]
    pub stop: bool,
    /// Stop the nodes and remove all they had.
    #[arg(long)]
    pub clean: bool,
    /// Print what `cairn status` says in the first node that runs.
    #[arg(long, conflicts_with_all = ["detach", "stop", "clean", "binary"])]
    pub status: bool,
    /// Cut the power of this running node.
    #[arg(long, value_name = "NODE")]
    pub power_off: Option<u8>,
    /// Cut the cable of this running node to the LAN.
    #[arg(long, value_name = "NODE")]
    pub unplug: Option<u8>,
    /// Mend the cable of this running node.
    #[arg(long, value_name = "NODE")]
    pub plug: Option<u8>,
    /// Run this binary instead of building one.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let there = Cluster::there(paths, INSTANCE);
    if options.status {
        stage::say(there.running()?.status()?.trim_end());
        return Ok(());
    }
    if options.stop || options.clean {
        there.stop()?;
        return if options.clean { there.clean() } else { Ok(()) };
    }
    if let Some(done) = at_one(&there, options) {
        return done;
    }
    let cluster = Cluster::new(paths, INSTANCE, options.nodes);
    match &options.binary {
        // Whoever brings a binary wants it to run now, in what was built before.
        Some(binary) => cluster.start(&binary.canonicalize().context("no such binary")?)?,
        None => build_and_start(paths, &cluster)?,
    }
    stage::say(&cluster.greeting());
    if options.detach {
        return Ok(());
    }
    wait(&cluster)
}

/// What is done to one running node, if that is asked for.
fn at_one(cluster: &Cluster, options: &Options) -> Option<Result<()>> {
    let at = |number: Option<u8>, act: fn(&Node) -> Result<()>| Some(cluster.node(number?).and_then(act));
    at(options.power_off, Node::power_cut)
        .or_else(|| at(options.unplug, |node| node.set_cable(false)))
        .or_else(|| at(options.plug, |node| node.set_cable(true)))
}

/// Stays until Ctrl-C, then stops the nodes; or until one ends by itself, which is a failure.
fn wait(cluster: &Cluster) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    interrupt.wait_while(|| cluster.ended().is_none());
    let ended = cluster.ended();
    cluster.stop()?;
    ended.map_or(Ok(()), Err)
}

fn build_and_start(paths: &Paths, cluster: &Cluster) -> Result<()> {
    let mut stages = Stages::start(paths)?;
    prepare(&mut stages)?;
    let binary = iso::compile(&mut stages)?;
    let started = stages.run("start the nodes", |_| cluster.start(&binary));
    stage::say(&stages.summary());
    started
}

/// What a node is run from: the host's packages, the image's root tree, the guests.
pub fn prepare(stages: &mut Stages) -> Result<()> {
    host::setup(stages)?;
    root_tree::build(stages)?;
    guests::tiny::build(stages)?;
    guests::debian::build(stages)?;
    Ok(())
}

/// Starts a node and waits until its API answers; leaves the access files.
pub fn start(node: &Node, binary: &Path) -> Result<()> {
    node.start(binary)?;
    wait_up(node)?;
    node.write_access(&wait_shown(node)?)
}

/// Waits until the console of a node whose API answers shows where: another role draws it, from what it is told.
fn wait_shown(node: &Node) -> Result<String> {
    let since = Instant::now();
    loop {
        let screen = node.screen();
        match screen {
            Ok(screen) if screen.contains("CAIRN-CONSOLE url=") => return Ok(screen),
            other if since.elapsed() > UP_MAX => return other.context("the console shows no address"),
            _ => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Waits until the API of a node that was started answers.
fn wait_up(node: &Node) -> Result<()> {
    let since = Instant::now();
    while !node.answers() {
        if let Some(ended) = node.ended() {
            bail!("the node ended: {ended}; its logs are in {}", node.dir().join("log").display());
        }
        if since.elapsed() > UP_MAX {
            bail!(
                "the API does not answer after {UP_MAX:?}; the logs are in {}",
                node.dir().join("log").display()
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
