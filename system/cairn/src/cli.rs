//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use cairn_node::Paths;
use clap::{Parser, Subcommand};

use crate::{lifecycle, logging, operator, roles};

/// Cairn: a cloud in a box.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Role: brings the node up and watches its links and certificates. (Run by systemd.)
    Node {
        /// The terminals to show the console on.
        #[arg(long, default_values = ["/dev/tty1", "/dev/console"])]
        screen: Vec<PathBuf>,
    },
    /// Role: the store and the APIs. (Run by systemd.)
    Controller,
    /// Role: runs guests through libvirt. (Run by systemd.)
    Compute,
    /// Role: networks, routers, DHCP, metadata. (Run by systemd.)
    Network,
    /// Role: serves volumes from the data disks. (Run by systemd.)
    Storage,
    /// Mounts this node's disks and adopts empty ones; a disk that holds anything foreign is never touched.
    Disks {
        /// Look at these devices and no other.
        #[arg(long)]
        only: Vec<PathBuf>,
        /// Give up when there is no disk for the node's state, instead of waiting for one.
        #[arg(long)]
        no_wait: bool,
    },
    /// Shows on one screen what this node believes: roles, reconcilers, disks, links, guests.
    Status {
        /// As JSON, with every fact the roles report.
        #[arg(long)]
        json: bool,
    },
}

/// Runs what the command line says.
pub fn run() -> Result<()> {
    let cli = Cli::parse();
    let paths = Paths::default();
    match cli.command {
        Command::Node { screen } => role("node", 1, roles::node::run(paths, screen)),
        Command::Controller => role("controller", 2, roles::controller::run(paths)),
        Command::Compute => role("compute", 2, roles::agents::compute(paths)),
        Command::Network => role("network", 1, roles::agents::network(paths)),
        Command::Storage => role("storage", 2, roles::agents::storage(paths)),
        Command::Disks { only, no_wait } => operator::disks(&paths, &only, no_wait),
        Command::Status { json } => lifecycle::runtime(1)?.block_on(operator::status(&paths, json)),
    }
}

fn role(name: &'static str, threads: usize, body: impl Future<Output = Result<()>>) -> Result<()> {
    logging::init();
    lifecycle::runtime(threads)?.block_on(body).with_context(|| format!("the role {name} ended"))
}
