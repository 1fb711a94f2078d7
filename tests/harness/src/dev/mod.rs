//! `cargo dev`: a whole node straight on this machine, in namespaces of its own, with its own libvirtd and disks, in
//! the very userland that the image ships.

mod disks;
mod foreign;
pub mod init;
mod node;
mod root;
mod unit;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use image_builder::interrupt::Interrupt;
use image_builder::{Paths, Stages, guests, host, iso, root_tree, stage};

pub use disks::devices_of;
pub use foreign::Foreign;
pub use node::Node;

/// How long a node may take from its start to an answering API.
const UP_MAX: Duration = Duration::from_secs(180);

/// Options of `cargo dev`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Return when the node is up; stop it later by --stop.
    #[arg(long)]
    pub detach: bool,
    /// Stop the node; its disks stay, so that the next start finds all as it was.
    #[arg(long)]
    pub stop: bool,
    /// Stop the node and remove all it had.
    #[arg(long)]
    pub clean: bool,
    /// Print what `cairn status` says in the running node.
    #[arg(long, conflicts_with_all = ["detach", "stop", "clean", "binary"])]
    pub status: bool,
    /// Run this binary instead of building one.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

/// Runs the command.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let node = Node::new(paths, "dev");
    if options.status {
        stage::say(node.status()?.trim_end());
        return Ok(());
    }
    if options.stop || options.clean {
        node.stop()?;
        return if options.clean { node.clean() } else { Ok(()) };
    }
    match &options.binary {
        // Whoever brings a binary wants it to run now, in what was built before.
        Some(binary) => start(&node, &binary.canonicalize().context("no such binary")?)?,
        None => build_and_start(paths, &node)?,
    }
    stage::say(&node.greeting());
    if options.detach {
        return Ok(());
    }
    wait(&node)
}

/// Stays until Ctrl-C, then stops the node; or until it ends by itself, which is a failure.
fn wait(node: &Node) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    interrupt.wait_while(|| node.ended().is_none());
    let ended = node.ended();
    node.stop()?;
    match ended {
        Some(last) => {
            bail!("the node ended: {last}; its logs are in {}", node.dir().join("log").display())
        }
        None => Ok(()),
    }
}

fn build_and_start(paths: &Paths, node: &Node) -> Result<()> {
    let mut stages = Stages::start(paths)?;
    prepare(&mut stages)?;
    let binary = iso::compile(&mut stages)?;
    let started = stages.run("start the node", |_| start(node, &binary));
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
pub fn start(node: &Node, binary: &std::path::Path) -> Result<()> {
    node.start(binary)?;
    let since = Instant::now();
    loop {
        if let Some(ended) = node.ended() {
            bail!("the node ended: {ended}; its logs are in {}", node.dir().join("log").display());
        }
        if node.answers() {
            return node.write_access();
        }
        if since.elapsed() > UP_MAX {
            bail!(
                "the API does not answer after {UP_MAX:?}; the logs are in {}",
                node.dir().join("log").display()
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
