//! `cargo up`: a whole cloud on this machine, of one node or more, from the sources to an API that answers.
//!
//! Builds what is missing, starts the ISO in emulated machines on a LAN of their own, waits for the API and writes
//! how to reach it into `target/cloud`. Stops only what an earlier run of it started, found by that folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cloud;
use crate::emulated_cloud::EmulatedCloud;
use crate::emulated_node::{self, data_disks};
use crate::guests;
use crate::host;
use crate::interrupt::Interrupt;
use crate::iso;
use crate::paths::Paths;
use crate::stage::{Stages, Step, say};
use crate::vm::{self, Medium, VmOptions};

/// The instance's name and the first three bytes of its LAN.
const INSTANCE: &str = "up";
const PREFIX: &str = "10.213.0";
/// The memory of each of several machines, in MiB: three fit into what one with a guest's memory to spare leaves.
pub const MEMORY_OF_SEVERAL_MIB: u32 = 3072;

/// What cloud to start.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// How many machines; one that is on goes on.
    pub nodes: u8,
    /// Leave it running and return, instead of waiting for Ctrl-C.
    pub detach: bool,
    /// How a machine sees the ISO.
    pub medium: Medium,
    /// How many empty data disks it has, and their size.
    pub disks: u32,
    /// The size of each disk that has to be made.
    pub disk_gib: u64,
    /// Its memory; what fits this many machines if nothing is given.
    pub memory_mib: Option<u32>,
    /// Its processors.
    pub cpus: u32,
    /// Added to the kernel's command line.
    pub kernel_args: String,
    /// What the clocks of the machines that are switched on now say then, as `date` reads it (see [`vm::clock`]).
    pub clock: Option<String>,
    /// This binary instead of compiling the workspace's.
    pub cairn: Option<PathBuf>,
    /// How long to wait for the API.
    pub limit: Duration,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            nodes: 1,
            detach: false,
            medium: Medium::Disk,
            disks: emulated_node::DISKS,
            disk_gib: emulated_node::DISK_GIB,
            memory_mib: None,
            cpus: emulated_node::CPUS,
            kernel_args: String::new(),
            clock: None,
            cairn: None,
            limit: Duration::from_secs(900),
        }
    }
}

/// Builds, starts, waits, tells; then stays until Ctrl-C unless it is to be detached.
pub fn up(paths: &Paths, options: &UpOptions) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    let nodes = nodes(paths, options.nodes);
    let reached = reach(paths, &nodes, options.limit, &interrupt, || build_and_start(paths, options, &nodes));
    if interrupt.seen() {
        there(paths).stop()?;
        bail!("interrupted");
    }
    reached?;
    say(&cloud::greeting(&paths.cloud()));
    for (node, words) in nodes.waiting()? {
        say(&format!("{node} waits to be let in and shows: {words}"));
    }
    if options.detach {
        say("It stays up: `cargo up --stop` ends it, `cargo up --clean` forgets it with all its disks.");
        return Ok(());
    }
    say("Ctrl-C ends it (its disks stay: the next `cargo up` brings the same cloud back).");
    interrupt.wait_while(|| nodes.all_on());
    there(paths).stop()
}

/// Starts the machines from the ISO that was built before, and waits for their API. For who builds in stages of his own.
pub fn boot(paths: &Paths, options: &UpOptions) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    let nodes = nodes(paths, options.nodes);
    reach(paths, &nodes, options.limit, &interrupt, || start(paths, options, &nodes, &paths.iso()))
}

/// Presses the power buttons of a running cloud's machines, and takes its LAN down.
pub fn stop(paths: &Paths) -> Result<()> {
    there(paths).stop()
}

/// Stops the cloud and removes all that is left of it: disks, keys, logs. What another cloud shows in `target/cloud`
/// stays.
pub fn clean(paths: &Paths) -> Result<()> {
    let nodes = there(paths);
    cloud::hide_access(&nodes.access_dir(), &paths.cloud())?;
    nodes.clean()?;
    // Fails where something else is in it, which is to stay.
    let _ = fs::remove_dir(paths.cloud());
    Ok(())
}

/// Cuts the power of one machine; its disks stay.
pub fn power_off(paths: &Paths, number: u8) -> Result<()> {
    there(paths).machine(number)?.kill()
}

/// Cuts (or mends) the cable of one machine.
pub fn set_cable(paths: &Paths, number: u8, up: bool) -> Result<()> {
    there(paths).machine(number)?.set_cable(up)
}

fn nodes(paths: &Paths, count: u8) -> EmulatedCloud {
    EmulatedCloud::new(INSTANCE, PREFIX, &paths.cloud(), count)
}

/// All that any run has started.
fn there(paths: &Paths) -> EmulatedCloud {
    EmulatedCloud::there(INSTANCE, PREFIX, &paths.cloud())
}

/// Has `start` switch on what is not on yet, and waits until the API of all answers.
fn reach(
    paths: &Paths,
    nodes: &EmulatedCloud,
    limit: Duration,
    interrupt: &Interrupt,
    start: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if nodes.all_on() {
        say("the cloud of an earlier `cargo up` still runs and is used as it is (`cargo up --stop` ends it)");
    } else {
        start()?;
    }
    let step = Step::begin("wait for the API", paths.image().join("log"));
    let reached = wait_for_api(nodes, limit, &step, interrupt);
    step.end(&reached);
    reached.context("the machines are left as they are, to be looked at (`cargo up --stop` ends them)")?;
    // Other clouds may be shown there since the first boot, when the password was on the console.
    cloud::show_access(&nodes.access_dir(), &paths.cloud())
}

fn build_and_start(paths: &Paths, options: &UpOptions, nodes: &EmulatedCloud) -> Result<()> {
    let mut stages = Stages::start(paths)?;
    let built = build(&mut stages, options);
    let started =
        built.and_then(|image| stages.run("start the machines", |_| start(paths, options, nodes, &image)));
    say(&stages.summary());
    started
}

fn build(stages: &mut Stages, options: &UpOptions) -> Result<PathBuf> {
    host::setup(stages)?;
    let cairn = match &options.cairn {
        Some(binary) => binary.clone(),
        None => iso::compile(stages)?,
    };
    let image = iso::build(stages, &cairn)?;
    guests::tiny::build(stages)?;
    guests::debian::build(stages)?;
    Ok(image)
}

fn start(paths: &Paths, options: &UpOptions, nodes: &EmulatedCloud, image: &Path) -> Result<()> {
    let clock = options.clock.as_deref().map(vm::clock).transpose()?;
    let several = if options.nodes > 1 { MEMORY_OF_SEVERAL_MIB } else { emulated_node::MEMORY_MIB };
    nodes.start(paths, |node| VmOptions {
        medium: options.medium,
        disks: data_disks(options.disks, options.disk_gib),
        memory_mib: options.memory_mib.unwrap_or(several),
        cpus: options.cpus,
        kernel_args: options.kernel_args.clone(),
        clock: clock.clone(),
        ..node.options(image.to_owned())
    })
}

/// Waits until every node's API answers, or shows that it waits for a person.
fn wait_for_api(nodes: &EmulatedCloud, limit: Duration, step: &Step, interrupt: &Interrupt) -> Result<()> {
    let from = Instant::now();
    while let Err(wrong) = nodes.check_api() {
        step.note(&format!("{wrong:#}"));
        ensure!(!interrupt.seen(), "interrupted");
        nodes.check_on().with_context(|| format!("{wrong:#}"))?;
        ensure!(from.elapsed() < limit, "no API yet: {wrong:#}\n{}", nodes.last_words());
        sleep(Duration::from_secs(1));
    }
    Ok(())
}
