//! The image-builder program: `cargo up`, `cargo iso` and the single steps behind them.
//!
//! Only reads its arguments and calls the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use image_builder::stage::{ended, say};
use image_builder::up::{self, UpOptions};
use image_builder::vm::Medium;
use image_builder::{Paths, Stages, boot_check, emulated_cloud, emulated_node, guests, host, iso, root_tree};

/// Builds Cairn's image, and runs it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the host packages that are missing
    Setup,
    /// Build the appliance's userland as a folder, target/image/root
    Root,
    /// Build the guests' disk images, target/image/guests
    Guests {
        /// Only the tiny one
        #[arg(long)]
        tiny: bool,
    },
    /// Build target/image/cairn.iso
    Iso {
        /// This binary instead of compiling the workspace's
        #[arg(long)]
        cairn: Option<PathBuf>,
    },
    /// Start the ISO as a CD and as a USB stick, and say how long each takes
    BootCheck {
        /// Only as one of these
        #[arg(long)]
        medium: Option<MediumName>,
        /// How many seconds to wait for each
        #[arg(long, default_value_t = 600)]
        limit: u64,
        /// Added to the kernel's command line
        #[arg(long, default_value = "", allow_hyphen_values = true)]
        kernel_args: String,
    },
    /// Build all of it and run a cloud here, of one node or more
    Up(Up),
}

/// The options of `up`.
#[derive(Args)]
struct Up {
    /// How many machines, all from the same ISO on one LAN; those that are on go on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(emulated_cloud::MAX)))]
    nodes: u8,
    /// Leave it running and return
    #[arg(long)]
    detach: bool,
    /// Switch a running one off
    #[arg(long, conflicts_with = "detach")]
    stop: bool,
    /// Switch it off and remove its disks and keys; those of other clouds stay
    #[arg(long, conflicts_with = "detach")]
    clean: bool,
    /// Cut the power of this machine
    #[arg(long, value_name = "NODE", conflicts_with_all = ["detach", "stop", "clean"])]
    power_off: Option<u8>,
    /// Cut the cable of this machine
    #[arg(long, value_name = "NODE", conflicts_with_all = ["detach", "stop", "clean"])]
    unplug: Option<u8>,
    /// Mend the cable of this machine
    #[arg(long, value_name = "NODE", conflicts_with_all = ["detach", "stop", "clean"])]
    plug: Option<u8>,
    /// How the machine sees the ISO
    #[arg(long, default_value = "disk")]
    medium: MediumName,
    /// How many empty disks the machine has
    #[arg(long, default_value_t = emulated_node::DISKS)]
    disks: u32,
    /// The size of each, in GiB
    #[arg(long, default_value_t = emulated_node::DISK_GIB)]
    disk_size: u64,
    /// The machine's memory, in MiB [default: 4096, of several 3072]
    #[arg(long)]
    memory: Option<u32>,
    /// The machine's processors
    #[arg(long, default_value_t = emulated_node::CPUS)]
    cpus: u32,
    /// Added to the kernel's command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    kernel_args: String,
    /// What the clock says when a machine is switched on, as `date` reads it: "+1 day"
    #[arg(long, allow_hyphen_values = true)]
    clock: Option<String>,
    /// This binary instead of compiling the workspace's
    #[arg(long)]
    cairn: Option<PathBuf>,
    /// How many seconds to wait for the API
    #[arg(long, default_value_t = 900)]
    limit: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum MediumName {
    Cd,
    Stick,
    Disk,
}

impl From<MediumName> for Medium {
    fn from(name: MediumName) -> Self {
        match name {
            MediumName::Cd => Self::Cd,
            MediumName::Stick => Self::Stick,
            MediumName::Disk => Self::Disk,
        }
    }
}

fn main() -> ExitCode {
    ended("image-builder", run(Arguments::parse()))
}

fn run(arguments: Arguments) -> Result<()> {
    let paths = Paths::find()?;
    match arguments.command {
        Command::Setup => build(&paths, |_| Ok(())),
        Command::Root => build(&paths, |stages| tell(&root_tree::build(stages)?)),
        Command::Guests { tiny } => build(&paths, |stages| {
            tell(&guests::tiny::build(stages)?)?;
            if tiny { Ok(()) } else { tell(&guests::debian::build(stages)?) }
        }),
        Command::Iso { cairn } => build(&paths, |stages| {
            let cairn = match cairn {
                Some(binary) => binary,
                None => iso::compile(stages)?,
            };
            tell(&iso::build(stages, &cairn)?)
        }),
        Command::BootCheck { medium, limit, kernel_args } => {
            let media = medium.map_or(vec![Medium::Cd, Medium::Stick], |one| vec![one.into()]);
            boot_check::run(&paths, &media, Duration::from_secs(limit), &kernel_args)
        }
        Command::Up(options) => bring_up(&paths, options),
    }
}

fn bring_up(paths: &Paths, options: Up) -> Result<()> {
    if options.clean {
        return up::clean(paths);
    }
    if options.stop {
        return up::stop(paths);
    }
    if let Some(node) = options.power_off {
        return up::power_off(paths, node);
    }
    if let Some(node) = options.unplug.or(options.plug) {
        return up::set_cable(paths, node, options.plug.is_some());
    }
    let Up {
        nodes, clock, detach, medium, disks, disk_size, memory, cpus, kernel_args, cairn, limit, ..
    } = options;
    let limit = Duration::from_secs(limit);
    up::up(
        paths,
        &UpOptions {
            nodes,
            detach,
            medium: medium.into(),
            disks,
            disk_gib: disk_size,
            memory_mib: memory,
            cpus,
            kernel_args,
            clock,
            cairn,
            limit,
        },
    )
}

fn tell(made: &Path) -> Result<()> {
    say(&made.display().to_string());
    Ok(())
}

/// Runs stages and prints the table of what each took, also when one failed.
fn build(paths: &Paths, work: impl FnOnce(&mut Stages) -> Result<()>) -> Result<()> {
    let mut stages = Stages::start(paths)?;
    let result = host::setup(&mut stages).and_then(|()| work(&mut stages));
    say(&stages.summary());
    result
}
