//! `cargo verify`: every test, in stages that say how long each took.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use image_builder::{Paths, Stages, exec, host, iso, stage};

use crate::client::Client;
use crate::cloud::Access;
use crate::dev::{self, Node};
use crate::tour::Guest;
use crate::{conformance, disk_health, faults, machine, nodes, refusals, tour};

/// Options of `cargo verify`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only the checks that need no cloud: format, lints, tidy, unit and property tests.
    #[arg(long)]
    pub quick: bool,
    /// The slow ones too: the tour with the Debian guest, and a power cut of the machine that boots the ISO.
    #[arg(long)]
    pub all: bool,
}

/// Passes every test, or stops at the first that fails.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let mut stages = Stages::start(paths)?;
    let outcome = all(paths, options, &mut stages);
    stage::say(&stages.summary());
    if outcome.is_ok() {
        stage::say(&format!("verify: {} passed, 0 failed", stages.count()));
    }
    outcome
}

fn all(paths: &Paths, options: &Options, stages: &mut Stages) -> Result<()> {
    host::setup(stages)?;
    cargo(paths, stages, "format", &["fmt", "--all", "--check"])?;
    cargo(paths, stages, "clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(paths, stages, "unit and property tests", &["test", "--workspace", "--quiet"])?;
    if options.quick {
        return Ok(());
    }
    let truth = ["run", "--release", "--quiet", "-p", "truth", "--", "--cycles", "25", "--minutes", "4"];
    cargo(paths, stages, "truth about crashes", &truth)?;
    dev::prepare(stages)?;
    let binary = iso::compile(stages)?;
    let node = Node::new(paths, dev::INSTANCE);
    let outcome = on_node(paths, options, stages, &node, binary.clone());
    node.stop()?;
    outcome?;
    on_nodes(paths, stages, &binary)?;
    let outcome = on_machine(paths, options, stages);
    machine::clean(paths)?;
    outcome
}

fn on_nodes(paths: &Paths, stages: &mut Stages, binary: &Path) -> Result<()> {
    nodes::clean(paths)?;
    stages.run("three nodes", |_| nodes::run(paths, &nodes::Options::all(binary)))?;
    nodes::clean(paths)?;
    stages
        .run("two nodes and a witness", |_| nodes::run(paths, &nodes::Options::two_and_a_witness(binary)))?;
    nodes::clean(paths)
}

fn on_machine(paths: &Paths, options: &Options, stages: &mut Stages) -> Result<()> {
    machine::clean(paths)?;
    iso::build(stages, &paths.cairn())?;
    stages.run("boot the ISO", |_| machine::start(paths))?;
    let client = Client::new(paths, Access::load(&paths.cloud())?)?;
    stages.run("memory of the idle node", |_| machine::check_memory(&client))?;
    stages.run("its disks say how they are", |_| disk_health::check(&client))?;
    stages.run("tour of the booted ISO", |_| tour::take(paths, &client, Guest::Tiny, false))?;
    if !options.all {
        return Ok(());
    }
    stages.run("power cut of the booted ISO", |_| {
        let options = faults::Options { kills: 0, power_cuts: 1, vm: true, seed: None, binary: None };
        faults::run(paths, &options)
    })
}

fn cargo(paths: &Paths, stages: &mut Stages, name: &str, args: &[&str]) -> Result<()> {
    stages.run(name, |_| {
        let done = exec::cargo(paths.workspace(), args).status()?;
        anyhow::ensure!(done.success(), "cargo {} failed", args.join(" "));
        Ok(())
    })
}

fn on_node(
    paths: &Paths,
    options: &Options,
    stages: &mut Stages,
    node: &Node,
    binary: PathBuf,
) -> Result<()> {
    stages.run("development node", |_| {
        node.stop()?;
        node.clean()?;
        dev::start(node, &binary)
    })?;
    let client = Client::new(paths, Access::load(node.dir())?)?;
    let guests: &[Guest] = if options.all { &[Guest::Tiny, Guest::Debian] } else { &[Guest::Tiny] };
    for &guest in guests {
        let name = format!("tour with the {} guest", guest.name());
        stages.run(&name, |_| tour::take(paths, &client, guest, false))?;
    }
    stages.run("conformance rung1", |_| {
        let options =
            conformance::Options { cloud: Some(node.dir().to_owned()), rung: "rung1".into(), only: None };
        conformance::run(paths, &options)
    })?;
    stages.run("refusals", |_| {
        refusals::run(paths, &refusals::Options { cloud: Some(node.dir().to_owned()) })
    })?;
    stages.run("kills and power cuts", |_| {
        let options =
            faults::Options { kills: 1, power_cuts: 1, vm: false, seed: None, binary: Some(binary.clone()) };
        faults::run(paths, &options)
    })?;
    stages.run("cairn status", |_| node.status().map(drop))
}
