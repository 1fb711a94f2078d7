//! The truth about crashes: a guest writes stamped blocks through vhost-user-blk to a volume with three replicas, while
//! processes are killed, nodes lose their power, links are cut and disks fail; and everything it reads is held against
//! what it was told. What a replica in sync has on its disk is, too.
//!
//! Three storage processes as Cairn runs them, with mutual TLS between them and a store that outlives them in this
//! process; each has an XFS on a loop device on a disk of ours, which loses what was not flushed when its power is cut.
//! It needs root, FUSE and loop devices, keeps its mounts to itself, and ends nothing that it did not start.

mod cloud;
mod dice;
mod disk;
mod fault;
mod filesystem;
#[path = "../../../system/shards/tests/common/front_end.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    reason = "that of the tests of the storage engine, which takes more of it and says where it cannot go on"
)]
mod front_end;
mod fuse;
mod haunt;
mod life;
mod link;
mod model;
mod node;
mod rot;
mod run;
mod stamp;
mod vm;
mod zombie;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use image_builder::stage::{ended, say};

use crate::dice::Dice;
use crate::run::{Chances, Run};

/// Holds a replicated volume against what its guest was told, while things go wrong.
#[derive(Parser)]
struct Cli {
    /// How many times things go wrong
    #[arg(long, default_value_t = 30)]
    cycles: u64,
    /// Ends after so many minutes, whatever was done
    #[arg(long)]
    minutes: Option<u64>,
    /// Of all random choices; another one each time if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Of a hundred cycles, those in which bits flip on disks
    #[arg(long, default_value_t = 10)]
    flips: u64,
    /// Of a hundred cycles in which none do, those in which an old writer lives on
    #[arg(long, default_value_t = 10)]
    haunts: u64,
    /// Keeps the logs here; otherwise they are kept only of a run that fails
    #[arg(long)]
    logs: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// A node, started by this program.
    #[command(hide = true)]
    Node { directory: PathBuf },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    ended(
        "truth",
        match &cli.command {
            Some(Role::Node { directory }) => node::run(directory),
            None => check(&cli),
        },
    )
}

fn check(cli: &Cli) -> Result<()> {
    filesystem::enclose()?;
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    let seed = cli.seed.unwrap_or(clock % 1_000_000_000);
    say(&format!("seed {seed}"));
    let directory = tempfile::Builder::new().prefix("cairn-truth-").tempdir()?;
    let began = Instant::now();
    let mut run = Run::start(directory.path()).context("the cloud does not start")?;
    let (mut dice, mut cycles, mut outcome) = (Dice::new(seed), 0, Ok(()));
    let end = cli.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    while outcome.is_ok() && cycles < cli.cycles && end.is_none_or(|end| began.elapsed() < end) {
        cycles += 1;
        outcome = run.cycle(cycles, dice.next(), Chances { flips: cli.flips, haunts: cli.haunts });
    }
    summary(&run, cycles, began.elapsed());
    drop(run);
    let logs = cli.logs.clone().or_else(|| outcome.is_err().then(|| "target/truth".into()));
    if let Some(logs) = logs {
        std::fs::create_dir_all(&logs)?;
        for name in cloud::NAMES {
            std::fs::copy(directory.path().join(name).join("log"), logs.join(format!("{name}.log")))?;
        }
        say(&format!("the nodes' logs are in {}", logs.display()));
    }
    outcome.with_context(|| format!("--seed {seed}"))
}

fn summary(run: &Run, cycles: u64, took: Duration) {
    let tally = run.tally();
    say(&format!("{cycles} cycles in {} s", took.as_secs()));
    for (kind, count) in &run.counts {
        say(&format!("  {kind}: {count}"));
    }
    say(&format!(
        "  {} writes, {} zeroings, {} flushes, {} reads of {} MiB, {} connections",
        tally.writes,
        tally.zeroed,
        tally.flushes,
        tally.reads,
        tally.sectors_read >> 11,
        tally.reconnects
    ));
    say(&format!("  {} writes of front-ends whose volume another had", tally.haunting));
    say(&format!(
        "  {} requests failed while a disk failed, {} flushes told of a loss, {} reads were withheld until then",
        tally.errors, tally.losses_told, tally.withheld
    ));
    say(&format!("  the guest waited {} ms at most", tally.longest.as_millis()));
}
