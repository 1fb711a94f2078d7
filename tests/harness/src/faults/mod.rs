//! Faults: `kill -9` of each process in turn and power cuts of the whole node, while a guest writes and answers pings.
//!
//! What must hold: no series of pings is broken for long, the guest sees no I/O error, every write it was told was
//! flushed is there, and all comes back with nobody's help.

mod load;
mod target;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args;
use image_builder::Paths;
use nix::sys::signal::Signal;

use crate::client::Client;
use crate::cloud::Access;
use crate::dev::Node;
use crate::tour::{Guest, Inventory, Scene, names, step};
pub use load::Load;
pub use target::Target;

/// The longest gap between two answered pings while one process is killed.
const PING_GAP_MAX: Duration = Duration::from_secs(3);
/// How long a killed process's work is watched.
const WATCH: Duration = Duration::from_secs(6);
/// How long the cloud and its guest may take to come back after a power cut.
const BACK_MAX: Duration = Duration::from_secs(900);
/// Every process of a node. libvirtd is not ours, but its death must not matter either.
const PROCESSES: [&str; 6] = ["controller", "storage", "network", "compute", "node", "libvirtd"];

/// Options of the fault tests.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How many times every process is killed.
    #[arg(long, default_value_t = 1)]
    pub kills: u32,
    /// How many power cuts.
    #[arg(long, default_value_t = 1)]
    pub power_cuts: u32,
    /// Cut the power of the machine that `cargo up` runs, not of the development node. (It has no shell, so its
    /// processes cannot be killed one by one.)
    #[arg(long)]
    pub vm: bool,
    /// The seed of the random moments; a new one is drawn and printed if none is given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The binary the development node runs.
    #[arg(long)]
    pub binary: Option<PathBuf>,
}

/// Runs the tests against the cloud that runs.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let seed = seed(options.seed);
    eprintln!("faults: seed {seed}");
    let mut random = Random::new(seed);
    let target = Target::new(paths, options);
    let client = Client::new(paths, Access::load(target.access_dir())?)?;
    let before = Inventory::before(&client)?;
    let mut scene = Scene::new(paths, &client, Guest::Tiny)?;
    let outcome = all(options, &target, &mut scene, &mut random).with_context(|| format!("seed {seed}"));
    let undone = step("everything deleted", || scene.tear_down());
    outcome?;
    undone?;
    step("nothing is left", || before.wait_same(&client))
}

fn all(options: &Options, target: &Target, scene: &mut Scene, random: &mut Random) -> Result<()> {
    step("a guest with a volume", || {
        scene.image()?;
        scene.server_with_volume()
    })?;
    let mut next = 0;
    for round in 0..options.kills {
        for process in PROCESSES {
            let Target::Node(node, _) = target else { continue };
            step(&format!("kill -9 {process} ({})", round + 1), || {
                next = kill(node, process, scene, random, next)?;
                Ok(())
            })?;
        }
    }
    for round in 0..options.power_cuts {
        step(&format!("power cut ({})", round + 1), || {
            next = power_cut(target, scene, random, next)?;
            Ok(())
        })?;
    }
    step("every flushed block of the whole run", || verify(scene, 0, next))
}

/// Kills one process at a random moment of the load. Gives the number of the next block to write.
fn kill(node: &Node, process: &str, scene: &Scene, random: &mut Random, from: u64) -> Result<u64> {
    let load = Load::start(scene, from)?;
    std::thread::sleep(Duration::from_millis(1500 + random.below(1500)));
    let before = load.acknowledged();
    node.signal(process, Signal::SIGKILL)?;
    std::thread::sleep(WATCH);
    ensure!(load.acknowledged() > before, "the guest's writes stopped at block {before}");
    let report = load.stop()?;
    ensure!(report.ping_gap < PING_GAP_MAX, "pings were unanswered for {:?}", report.ping_gap);
    verify(scene, from, report.acknowledged)?;
    Ok(report.acknowledged)
}

/// Cuts the power at a random moment of the load, starts the node again, and waits for the guest.
fn power_cut(target: &Target, scene: &Scene, random: &mut Random, from: u64) -> Result<u64> {
    let load = Load::start(scene, from)?;
    std::thread::sleep(Duration::from_millis(1500 + random.below(4000)));
    let acknowledged = load.acknowledged();
    target.power_cut()?;
    let report = load.abandon()?;
    ensure!(report >= acknowledged && report > from, "the guest wrote nothing before the cut");
    target.start()?;
    let login = scene.login_to(names::SERVER_A)?;
    login.wait(BACK_MAX).context("the guest did not come back")?;
    verify(scene, from, report)?;
    Ok(report)
}

/// Reads back the blocks of this range, which the guest was told are flushed; looks for I/O errors in its kernel's log.
pub fn verify(scene: &Scene, from: u64, to: u64) -> Result<()> {
    let login = scene.login_to(names::SERVER_A)?;
    login.no_io_errors()?;
    let read = login.run(&load::read_script(from, to))?;
    ensure!(read.trim() == "same", "the guest's flushed blocks are not as written: {}", read.trim());
    Ok(())
}

/// The seed that was given, or a new one.
pub fn seed(given: Option<u64>) -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH);
    given.unwrap_or_else(|| now().map_or(1, |d| d.subsec_nanos().into()))
}

/// A small generator of reproducible random numbers (xorshift64).
pub struct Random(u64);

impl Random {
    /// One that gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// The next number below this limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
