//! The harness: development nodes, the tour, conformance, faults, and `cargo verify`, which is all of them.
//!
//! It drives a cloud from outside, as a user would, and looks inside only to check what is left behind. It sends
//! traffic to the namespaces it made and nowhere else, and ends only processes it started.

mod ceph;
mod client;
mod cloud;
mod conformance;
mod dev;
mod disk_health;
mod faults;
mod iso_nodes;
mod machine;
mod nodes;
mod refusals;
mod tools;
mod tour;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use image_builder::Paths;
use image_builder::stage::ended;

/// Cairn's development node and tests.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a node straight on this machine, in namespaces of its own (`cargo dev`).
    Dev(dev::Options),
    /// Passes every test (`cargo verify`).
    Verify(verify::Options),
    /// The tour of a cloud with the real openstack client (`cargo tour`).
    Tour(tour::Options),
    /// Runs one rung of OpenStack's own test suite.
    Conformance(conformance::Options),
    /// Kills, power cuts and everything a node must come back from.
    Faults(faults::Options),
    /// What only several nodes can show: migration, maintenance, lost nodes.
    Nodes(nodes::Options),
    /// Machines that boot the ISO become one cloud by being switched on.
    IsoNodes(iso_nodes::Options),
    /// Bad input of every kind, which must be refused and change nothing.
    Refusals(refusals::Options),
    /// Volumes in a real Ceph cluster, which it starts beside a development node.
    Ceph(ceph::Options),
    /// PID 1 of a development node. (Run by `dev`.)
    #[command(hide = true)]
    NodeInit(dev::init::Options),
}

fn main() -> ExitCode {
    ended("error", run(Cli::parse()))
}

fn run(cli: Cli) -> Result<()> {
    if let Command::NodeInit(options) = cli.command {
        return dev::init::run(&options);
    }
    let paths = Paths::find()?;
    match cli.command {
        Command::Dev(options) => dev::run(&paths, &options),
        Command::Verify(options) => verify::run(&paths, &options),
        Command::Tour(options) => tour::run(&paths, &options),
        Command::Conformance(options) => conformance::run(&paths, &options),
        Command::Faults(options) => faults::run(&paths, &options),
        Command::Nodes(options) => nodes::run(&paths, &options),
        Command::IsoNodes(options) => iso_nodes::run(&paths, &options),
        Command::Refusals(options) => refusals::run(&paths, &options),
        Command::Ceph(options) => ceph::run(&paths, &options),
        Command::NodeInit(options) => dev::init::run(&options),
    }
}
