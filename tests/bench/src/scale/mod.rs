//! `bench scale`: what size and number cost on one node.
//!
//! A storage agent runs in a process of its own, over a data disk of its own (XFS on a loop device), with the store in
//! this process, as on a node. Its peer is itself with less to do: a volume of 100 GiB is measured beside one of 1 GiB,
//! and the last of thousands beside the first. Root needed, for the disk.

mod agent;
mod many;
mod one;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use image_builder::Paths;
use image_builder::paths::ensure_dir;
use image_builder::stage::say;

pub use self::agent::{NodeOptions, node};
use crate::disk::{self, LoopDisk};
use crate::volume::node::mark;

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// How large the large volume is, in GiB
    #[arg(long, default_value_t = 100)]
    gib: u64,
    /// How much is written to it, in MiB
    #[arg(long, default_value_t = 4096)]
    written_mib: u64,
    /// In pieces of how many KiB, evenly spread
    #[arg(long, default_value_t = 256)]
    piece_kib: u64,
    /// How many volumes there are in the end
    #[arg(long, default_value_t = 1000)]
    volumes: usize,
    /// How many snapshots each has
    #[arg(long, default_value_t = 10)]
    snapshots: usize,
    /// How many seconds the agent is watched while nothing happens
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// How often each figure of one volume is taken
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only one of the two
    #[arg(long, value_parser = ["one", "many"])]
    only: Option<String>,
}

/// Measures, cleans up, and prints.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let directory = ensure_dir(paths.workspace().join("target/bench/scale"))?;
    let lock = std::fs::File::create(directory.join("lock"))?;
    lock.try_lock().context("another `bench scale` is running in this checkout")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let wanted = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    if wanted("one") {
        runtime.block_on(part(&directory, "one", async |node| one::run(node, options).await))?;
    }
    if wanted("many") {
        runtime.block_on(part(&directory, "many", async |node| many::run(node, options).await))?;
    }
    Ok(())
}

/// Where a part is measured.
struct Place {
    files: PathBuf,
    /// What holds the disk's directory.
    disks: PathBuf,
}

/// Does a part on a disk of its own, which is gone afterwards.
async fn part(
    directory: &std::path::Path,
    name: &str,
    measure: impl AsyncFnOnce(&Place) -> Result<()>,
) -> Result<()> {
    say(&format!("{name}:"));
    let files = directory.join(name);
    // Whatever a run that was killed has left.
    let disks = files.join("disks");
    let at = disks.join("disk");
    disk::clear(&files, &at)?;
    std::fs::create_dir_all(&files)?;
    let disk = LoopDisk::make(&files.join("disk.img"), &at)?;
    mark(&at, "disk")?;
    let measured = measure(&Place { files: files.clone(), disks }).await;
    drop(disk);
    disk::clear(&files, &at)?;
    measured
}
