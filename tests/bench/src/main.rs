//! Benches: what Cairn costs, measured beside a peer that does the same without Cairn.
//!
//! A figure in seconds says more about the machine and the hour than about us. So every bench runs both sides in one
//! run, in turns, and its result is the ratio of their medians; the seconds are printed only to be looked at. A bench
//! passes or fails nothing and is no part of `cargo verify`: tests have time limits for what hangs, and no others.
//!
//! Run one on a machine that does nothing else. Each has a lock, an instance name, a LAN and a folder
//! (`target/bench/NAME`) of its own and leaves nothing but its last logs; it must never touch the cloud of `cargo up`
//! or of `cargo dev`.

mod boot;
mod disk;
mod figures;
mod process;
mod scale;
mod store;
mod volume;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use image_builder::Paths;
use image_builder::stage::ended;

/// Cairn's benches, each beside a peer.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// From power-on to an API that answers, beside the same image without Cairn to its multi-user.target.
    Boot(boot::Options),
    /// The store's writes, reads, failover, watches and size, beside Debian's etcd.
    Store(store::Options),
    /// A node of `store`, which starts it.
    #[command(hide = true)]
    StoreNode(store::node::NodeOptions),
    /// What size and number cost on one node: the last of thousands beside the first, 100 GiB beside 1.
    Scale(scale::Options),
    /// The storage agent of `scale`, which starts it.
    #[command(hide = true)]
    ScaleNode(scale::NodeOptions),
    /// What a guest gets of a volume, beside qemu-storage-daemon, the file itself, and Ceph.
    Volume(volume::Options),
    /// A server of `volume`, which starts it.
    #[command(hide = true)]
    VolumeNode(volume::node::NodeOptions),
}

fn main() -> ExitCode {
    ended("bench", run(Cli::parse()))
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Boot(options) => boot::run(&Paths::find()?, &options),
        Command::Store(options) => store::run(&Paths::find()?, &options),
        Command::StoreNode(options) => store::node::run(&options),
        Command::Scale(options) => scale::run(&Paths::find()?, &options),
        Command::ScaleNode(options) => scale::node(&options),
        Command::Volume(options) => volume::run(&Paths::find()?, &options),
        Command::VolumeNode(options) => volume::node::run(&options),
    }
}
