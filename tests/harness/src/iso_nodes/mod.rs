//! `harness iso-nodes`: machines that boot the same ISO on one LAN become one cloud by being switched on. No key is
//! pressed and nothing is configured; what is shown is read from their consoles, what is decided from their APIs.
//!
//! It starts machines of its own instance, beside those of `cargo up`, and ends no others.

mod facts;
mod fleet;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use image_builder::interrupt::Interrupt;
use image_builder::stage::{say, seconds};
use image_builder::{Paths, Stages};
use serde_json::json;

use self::fleet::Fleet;

/// Options of `harness iso-nodes`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only these parts, in this order
    #[arg(long, value_delimiter = ',', default_values = ["together", "later", "ask", "power-cut"])]
    pub parts: Vec<Part>,
    /// The memory of each machine, in MiB
    #[arg(long, default_value_t = 2560)]
    pub memory: u32,
    /// The processors of each machine
    #[arg(long, default_value_t = 1)]
    pub cpus: u32,
    /// How many seconds each step may take
    #[arg(long, default_value_t = 1200)]
    pub limit: u64,
    /// Added to the kernels' command lines
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub kernel_args: String,
    /// Leave the machines on
    #[arg(long)]
    pub keep: bool,
    /// Only remove what an earlier run has left
    #[arg(long, conflicts_with = "keep")]
    pub clean: bool,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Three new machines are switched on in the same moment
    Together,
    /// Two new machines, and then a third one whose clock is a day ahead
    Later,
    /// A further machine asks the cloud that is there by now, and waits until a person has compared words
    Ask,
    /// One machine loses its power; the cloud goes on, and the machine comes back
    PowerCut,
}

/// How long a machine that waits is watched for not being let in.
const WAITS: Duration = Duration::from_secs(20);

/// Runs the parts, on the ISO that was built before.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    let fleet = Fleet::new(paths, options, &interrupt);
    if options.clean {
        return fleet.clean();
    }
    ensure!(paths.iso().is_file(), "there is no {}: build it by: cargo iso", paths.iso().display());
    let mut stages = Stages::start(paths)?;
    let mut parts = options.parts.iter();
    let shown = parts.try_for_each(|part| stages.run(part.title(), |_| part.show(&fleet)));
    say(&stages.summary());
    if options.keep || shown.is_err() {
        let dir = fleet.dir().display();
        say(&format!(
            "the machines are left as they are (--clean removes them); their consoles are in {dir}"
        ));
        return shown;
    }
    fleet.clean()?;
    shown
}

impl Part {
    fn title(self) -> &'static str {
        match self {
            Part::Together => "three machines at once",
            Part::Later => "a third machine, its clock a day ahead",
            Part::Ask => "a further machine asks",
            Part::PowerCut => "a machine loses its power",
        }
    }

    fn show(self, fleet: &Fleet) -> Result<()> {
        match self {
            Part::Together => together(fleet),
            Part::Later => later(fleet),
            Part::Ask => ask(fleet),
            Part::PowerCut => power_cut(fleet),
        }
    }
}

fn together(fleet: &Fleet) -> Result<()> {
    fleet.clean()?;
    let on = fleet.switch_on(3, None)?;
    let api = fleet.wait("an API that answers", on, || fleet.answers(3))?;
    say(&format!("  the first API answers {} after power-on", seconds(api)));
    let healthy = fleet.wait("three healthy voters", on, || fleet.is_one_cloud(3))?;
    say(&format!("  three healthy voters {} after power-on", seconds(healthy)));
    Ok(())
}

fn later(fleet: &Fleet) -> Result<()> {
    fleet.clean()?;
    let on = fleet.switch_on(2, None)?;
    let two = fleet.wait("a cloud of two", on, || fleet.is_one_cloud(2))?;
    say(&format!("  a cloud of two {} after power-on", seconds(two)));
    let on = fleet.switch_on(3, Some("+1 day"))?;
    let healthy = fleet.wait("three healthy voters", on, || fleet.is_one_cloud(3))?;
    say(&format!("  three healthy voters {} after the third's power-on", seconds(healthy)));
    Ok(())
}

fn ask(fleet: &Fleet) -> Result<()> {
    let before = fleet.count();
    fleet.order(1, "policy", &json!({"otherwise": "ask"}))?;
    let on = fleet.switch_on(before + 1, None)?;
    let took = fleet.wait("words on its screen", on, || fleet.words(before + 1).map(drop))?;
    let words = fleet.words(before + 1)?;
    say(&format!("  {} after power-on its screen shows: {words}", seconds(took)));
    let asks = facts::asking(&fleet.overview(1)?, &words)?;
    say(&format!("  {asks} is shown to the administrator with the same words"));
    fleet.wait("its words on another screen", on, || fleet.shows(1, &format!("{asks} asks to be let in")))?;
    let wrong = fleet.try_order(1, "accept", &json!({"node": asks, "words": "zoo zoo zoo zoo"}))?;
    ensure!(wrong == 409, "other words are answered with {wrong}");
    std::thread::sleep(WAITS);
    ensure!(fleet.words(before + 1)? == words, "it was let in, or shows other words");
    facts::check_members(&fleet.overview(1)?, before)?;
    fleet.order(1, "accept", &json!({"node": asks, "words": words}))?;
    let accepted = std::time::Instant::now();
    let joined = fleet.wait("it to be a member", accepted, || fleet.is_one_cloud(before + 1))?;
    say(&format!("  a member of the cloud {} after it was accepted", seconds(joined)));
    Ok(())
}

fn power_cut(fleet: &Fleet) -> Result<()> {
    let count = fleet.count();
    let lost = fleet.leader(1)?;
    let other = if lost == 1 { 2 } else { 1 };
    let cut = fleet.power_off(lost)?;
    let write = || fleet.order(other, "policy", &json!({"otherwise": "ask"}));
    let written = fleet.wait("a write", cut, write)?;
    say(&format!("  the leader's power was cut; a write is answered {} later", seconds(written)));
    let on = fleet.switch_on(count, None)?;
    let back = fleet.wait("all to be healthy", on, || fleet.is_one_cloud(count))?;
    say(&format!("  healthy again {} after its power-on", seconds(back)));
    Ok(())
}
