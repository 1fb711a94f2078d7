//! What only several nodes can show: guests that move, nodes that are lost or cut off, all of them without power at
//! once. Guests write and answer pings meanwhile, and at the end the cloud is as empty as before.
//!
//! It says how long things took, and fails by what must never be: a flushed block or an acknowledged API write that is
//! lost, an I/O error, one guest running twice.

mod cloud;
mod losses;
mod majority;
mod moves;
mod third;
mod twice;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use image_builder::Paths;

use crate::dev::{self, Cluster};
use crate::faults::{self, Random};
use crate::tour::{Guest, Inventory, Scene, names, step};
use cloud::Cloud;

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Act {
    /// Servers on different nodes reach each other on their network.
    Spread,
    /// A guest moves while it runs.
    Migrate,
    /// A node is emptied for maintenance.
    Drain,
    /// A node loses its power; its guests run elsewhere.
    Kill,
    /// A node is cut off from the others; it stops its guests before they run elsewhere.
    CutOff,
    /// All nodes lose their power at once.
    PowerCut,
    /// The witness is lost, and comes back.
    WitnessLost,
    /// All nodes but one are lost; that one is ordered to go on alone.
    MajorityLost,
}

/// Options of the tests of several nodes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    pub nodes: u8,
    /// A witness beside them, which two nodes need to bear any loss.
    #[arg(long)]
    pub witness: bool,
    /// What to show.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["spread", "migrate", "drain", "kill", "cut-off", "power-cut"])]
    pub acts: Vec<Act>,
    /// How often each loss is repeated.
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,
    /// The seed of the random choices; a new one is drawn and printed if none is given.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The binary that the nodes run.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Leave the nodes running at the end.
    #[arg(long)]
    pub keep: bool,
}

impl Options {
    /// All that can be shown, once, on three nodes.
    pub fn all(binary: &Path) -> Options {
        let mut acts = Act::value_variants().to_vec();
        // One is for another shape of cloud, one waits for minutes.
        acts.retain(|act| ![Act::WitnessLost, Act::MajorityLost].contains(act));
        let binary = Some(binary.to_owned());
        Options { nodes: 3, witness: false, acts, rounds: 1, seed: None, binary, keep: false }
    }

    /// Each single loss of two nodes and a witness.
    pub fn two_and_a_witness(binary: &Path) -> Options {
        let acts = vec![Act::Kill, Act::WitnessLost];
        Options { nodes: 2, witness: true, acts, rounds: 2, ..Options::all(binary) }
    }
}

/// Stops the nodes and removes all they had.
pub fn clean(paths: &Paths) -> Result<()> {
    let there = Cluster::there(paths, dev::INSTANCE);
    there.stop()?;
    there.clean()
}

/// Starts the nodes (those that run go on) and shows all that is asked for.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let seed = faults::seed(options.seed);
    eprintln!("nodes: seed {seed}");
    let binary = options.binary.clone().unwrap_or_else(|| paths.cairn());
    let binary = binary.canonicalize().with_context(|| format!("no binary {}", binary.display()))?;
    ensure!(options.nodes > 2 || options.witness, "two nodes bear no loss without a witness: give --witness");
    ensure!(
        options.witness || !options.acts.contains(&Act::WitnessLost),
        "no witness can be lost without --witness"
    );
    let third = if options.witness { Some(third::program_beside(&binary)?) } else { None };
    let cloud = step("the nodes are one cloud", || Cloud::start(paths, options.nodes, binary, third))?;
    let outcome =
        show(paths, options, &cloud, &mut Random::new(seed)).with_context(|| format!("seed {seed}"));
    if !options.keep {
        cloud.stop()?;
    }
    outcome
}

fn show(paths: &Paths, options: &Options, cloud: &Cloud, random: &mut Random) -> Result<()> {
    let client = cloud.client(1)?;
    let before = Inventory::before(client)?;
    let mut scene = Scene::new(paths, client, Guest::Tiny)?;
    let outcome = acts(options, cloud, &mut scene, random);
    let undone = step("everything deleted", || scene.tear_down());
    outcome?;
    undone?;
    step("nothing is left", || before.wait_same(client))
}

fn acts(options: &Options, cloud: &Cloud, scene: &mut Scene, random: &mut Random) -> Result<()> {
    step("a guest with a volume", || {
        scene.image()?;
        scene.server_with_volume()
    })?;
    let mut next = 0;
    for act in &options.acts {
        match act {
            Act::Spread => moves::spread(cloud, scene)?,
            Act::Migrate => next = moves::migrate(cloud, scene, next)?,
            Act::Drain => next = moves::drain(cloud, scene, next)?,
            Act::Kill => {
                next = repeat(options.rounds, next, |from| losses::kill(cloud, scene, random, from))?
            }
            Act::CutOff => next = repeat(options.rounds, next, |from| losses::cut_off(cloud, scene, from))?,
            Act::WitnessLost => losses::witness(cloud)?,
            Act::MajorityLost => {
                next = repeat(options.rounds, next, |from| majority::lost(cloud, scene, from))?;
            }
            Act::PowerCut => {
                next = repeat(options.rounds, next, |from| losses::power_cut(cloud, scene, random, from))?;
            }
        }
    }
    step("every flushed block of the whole run", || faults::verify(scene, 0, next))
}

/// Repeats a loss; each takes the number of the next block to write and gives the one after its last.
fn repeat(rounds: u32, from: u64, mut once: impl FnMut(u64) -> Result<u64>) -> Result<u64> {
    (0..rounds).try_fold(from, |next, round| once(next).with_context(|| format!("round {}", round + 1)))
}

/// The server that all of it is done to.
const SERVER: &str = names::SERVER_A;
