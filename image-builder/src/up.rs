//! `cargo up`: a whole cloud of one node on this machine, from the sources to an API that answers.
//!
//! Builds what is missing, starts the ISO in an emulated machine on a LAN of its own, waits for the API and writes
//! how to reach it into `target/cloud`. Stops only what an earlier run of it started, found by that folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cloud;
use crate::emulated_node::{self, EmulatedNode, data_disks};
use crate::guests;
use crate::host;
use crate::interrupt::Interrupt;
use crate::iso;
use crate::paths::Paths;
use crate::stage::{Stages, Step, say};
use crate::vm::{Medium, Vm, VmOptions};

/// The instance's name and the first three bytes of its LAN.
const INSTANCE: &str = "up";
const PREFIX: &str = "10.213.0";

/// What cloud to start.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// Leave it running and return, instead of waiting for Ctrl-C.
    pub detach: bool,
    /// How the machine sees the ISO.
    pub medium: Medium,
    /// How many empty data disks it has, and their size.
    pub disks: u32,
    /// The size of each disk that has to be made.
    pub disk_gib: u64,
    /// Its memory.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u32,
    /// Added to the kernel's command line.
    pub kernel_args: String,
    /// This binary instead of compiling the workspace's.
    pub cairn: Option<PathBuf>,
    /// How long to wait for the API.
    pub limit: Duration,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            detach: false,
            medium: Medium::Disk,
            disks: emulated_node::DISKS,
            disk_gib: emulated_node::DISK_GIB,
            memory_mib: emulated_node::MEMORY_MIB,
            cpus: emulated_node::CPUS,
            kernel_args: String::new(),
            cairn: None,
            limit: Duration::from_secs(900),
        }
    }
}

/// Builds, starts, waits, tells; then stays until Ctrl-C unless it is to be detached.
pub fn up(paths: &Paths, options: &UpOptions) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    let node = node(paths);
    let reached = reach(paths, &node, options.limit, &interrupt, || build_and_start(paths, options, &node));
    if interrupt.seen() {
        node.stop()?;
        bail!("interrupted");
    }
    let mut vm = reached?;
    say(&cloud::greeting(&paths.cloud()));
    if options.detach {
        say("It stays up: `cargo up --stop` ends it, `cargo up --clean` forgets it with all its disks.");
        return Ok(());
    }
    say("Ctrl-C ends it (its disks stay: the next `cargo up` brings the same cloud back).");
    interrupt.wait_while(|| vm.running());
    node.stop()
}

/// Starts the machine from the ISO that was built before, and waits for its API. For who builds in stages of his own.
pub fn boot(paths: &Paths, options: &UpOptions) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    let node = node(paths);
    let start = || start(paths, options, &node, paths.iso());
    reach(paths, &node, options.limit, &interrupt, start).map(drop)
}

/// Presses the power button of a running cloud's machine, and takes its LAN down.
pub fn stop(paths: &Paths) -> Result<()> {
    node(paths).stop()
}

/// Stops the cloud and removes all that is left of it: disks, keys, logs. What another cloud shows in `target/cloud`
/// stays.
pub fn clean(paths: &Paths) -> Result<()> {
    let node = node(paths);
    cloud::hide_access(node.dir(), &paths.cloud())?;
    node.clean()?;
    // Fails where something else is in it, which is to stay.
    let _ = fs::remove_dir(paths.cloud());
    Ok(())
}

fn node(paths: &Paths) -> EmulatedNode {
    EmulatedNode::new(INSTANCE, PREFIX, &paths.cloud())
}

/// The machine that runs already, or else the one that `start` makes, as soon as its API answers.
fn reach(
    paths: &Paths,
    node: &EmulatedNode,
    limit: Duration,
    interrupt: &Interrupt,
    start: impl FnOnce() -> Result<Vm>,
) -> Result<Vm> {
    let mut vm = match node.attach() {
        Some(vm) => {
            say(
                "the cloud of an earlier `cargo up` still runs and is used as it is (`cargo up --stop` ends it)",
            );
            vm
        }
        None => start()?,
    };
    let step = Step::begin("wait for the API", paths.image().join("log"));
    let reached = wait_for_api(&mut vm, node, &paths.cloud(), limit, &step, interrupt);
    step.end(&reached);
    reached.context("the machine is left as it is, to be looked at (`cargo up --stop` ends it)")?;
    Ok(vm)
}

fn build_and_start(paths: &Paths, options: &UpOptions, node: &EmulatedNode) -> Result<Vm> {
    let mut stages = Stages::start(paths)?;
    let built = build(&mut stages, options);
    let vm = built.and_then(|image| stages.run("start the machine", |_| start(paths, options, node, image)));
    say(&stages.summary());
    vm
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

fn start(paths: &Paths, options: &UpOptions, node: &EmulatedNode, image: PathBuf) -> Result<Vm> {
    node.make_lan()?;
    Vm::boot(
        paths,
        &VmOptions {
            medium: options.medium,
            disks: data_disks(options.disks, options.disk_gib),
            memory_mib: options.memory_mib,
            cpus: options.cpus,
            kernel_args: options.kernel_args.clone(),
            ..node.options(image)
        },
    )
}

/// Waits until the node's API answers, and shows its access files to the person.
fn wait_for_api(
    vm: &mut Vm,
    node: &EmulatedNode,
    shown: &Path,
    limit: Duration,
    step: &Step,
    interrupt: &Interrupt,
) -> Result<()> {
    let from = Instant::now();
    loop {
        let Err(wrong) = node.check_api(&vm.serial_log()?) else {
            // Other clouds may be shown there since the machine's first boot, when its password was on the console.
            return cloud::show_access(node.dir(), shown);
        };
        step.note(&format!("{wrong:#}"));
        ensure!(!interrupt.seen(), "interrupted");
        if !vm.running() || from.elapsed() > limit {
            let what = if vm.running() { "no API yet" } else { "the machine went off" };
            bail!("{what}: {wrong:#}\nits console ends with:\n{}", vm.last_words());
        }
        sleep(Duration::from_secs(1));
    }
}
