//! `bench volume`: what a guest gets of a volume.
//!
//! One replica is measured beside qemu-storage-daemon and the raw file ([`one`]), three replicas beside Ceph
//! ([`three`]). All lie on the same file system, XFS as on Cairn's data disks, on a loop device (root needed); all take the same load from the same front-end of vhost-user-blk, and take
//! turns. Flushes are honoured on all sides: none is told to leave them out.
//!
//! A read is cold if nothing that it asks for is in a cache, and warm if all of it has been read before. The CPU is that
//! of the serving processes; memory is what they have for themselves and their part of what they share.

mod ceph;
mod guest;
mod load;
mod memory;
pub mod node;
mod one;
mod raw;
mod side;
mod three;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use image_builder::Paths;
use image_builder::interrupt::Interrupt;
use image_builder::paths::ensure_dir;
use image_builder::stage::{Step, say};

use self::load::{Load, Op, Outcome};
use self::memory::{Memory, SLOT_BYTES};
use self::side::Server;
use crate::disk::{self, LoopDisk};
use crate::process::{cpu_us, shared_memory_mib};

/// How much longer than asked a load may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a side is used before it is measured.
const WARM_UP: Duration = Duration::from_millis(100);

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// How often each side has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How many seconds each load lasts
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How large the volume is, in MiB; three replicas on both sides take seven times that
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(64..))]
    mib: u64,
    /// Only one replica, or three
    #[arg(long, value_parser = ["1", "3"])]
    replicas: Option<String>,
    /// Only loads with this in their name
    #[arg(long)]
    only: Option<String>,
}

/// A load, and what the caches have before it.
struct Measure {
    name: &'static str,
    load: Load,
    warm: bool,
}

const fn random(name: &'static str, op: Op, depth: usize, flush_every: u64, warm: bool) -> Measure {
    Measure { name, load: Load { op, len: 4096, depth, random: true, flush_every }, warm }
}

const fn sequential(name: &'static str, op: Op, flush_every: u64, warm: bool) -> Measure {
    Measure { name, load: Load { op, flush_every, ..Load::FILL }, warm }
}

const MEASURES: [Measure; 12] = [
    random("4 KiB reads, 1 at a time, cold", Op::Read, 1, 0, false),
    random("4 KiB reads, 32 at a time, cold", Op::Read, 32, 0, false),
    random("4 KiB reads, 1 at a time, warm", Op::Read, 1, 0, true),
    random("4 KiB reads, 32 at a time, warm", Op::Read, 32, 0, true),
    random("4 KiB writes, 1 at a time", Op::Write, 1, 0, true),
    random("4 KiB writes, 32 at a time", Op::Write, 32, 0, true),
    random("4 KiB writes, 1 at a time, each flushed", Op::Write, 1, 1, true),
    random("4 KiB writes, 32 at a time, a flush each 32", Op::Write, 32, 32, true),
    sequential("1 MiB reads in order, 8 at a time, cold", Op::Read, 0, false),
    sequential("1 MiB reads in order, 8 at a time, warm", Op::Read, 0, true),
    sequential("1 MiB writes in order, 8 at a time", Op::Write, 0, true),
    sequential("1 MiB writes in order, 8 at a time, a flush each 32", Op::Write, 32, true),
];

/// What a load came to on a side.
#[derive(Clone, Debug, Default)]
struct Figures {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Of the serving processes for each request, in microseconds, and of their client.
    cpu_us: [f64; 2],
    mib: u64,
}

/// Measures, cleans up, and prints.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let directory = ensure_dir(paths.workspace().join("target/bench/volume"))?;
    let lock = std::fs::File::create(directory.join("lock"))?;
    lock.try_lock().context("another `bench volume` is running in this checkout")?;
    let bench = Bench {
        root: directory.join("disk"),
        files: directory.join("disk/files"),
        logs: directory.join("logs"),
        size: options.mib << 20,
        limit: Duration::from_secs(options.seconds),
        memory: Memory::new()?,
        interrupt: Interrupt::listen()?,
        options,
    };
    let is_wanted = |replicas: &str| options.replicas.as_deref().is_none_or(|only| only == replicas);
    // Whatever a run that was killed has left.
    bench.clean()?;
    let measured = (|| {
        if is_wanted("1") {
            bench.on_disk(|| bench.one_replica())?;
        }
        if is_wanted("3") {
            let root = ceph::root(paths)?;
            bench.on_disk(|| bench.three_replicas(&root))?;
        }
        Ok(())
    })();
    let cleaned = bench.clean();
    measured.and(cleaned)
}

struct Bench<'a> {
    /// What is removed afterwards.
    root: PathBuf,
    /// A file system in it, on which all sides have their files.
    files: PathBuf,
    logs: PathBuf,
    size: u64,
    limit: Duration,
    memory: Memory,
    interrupt: Interrupt,
    options: &'a Options,
}

impl Bench<'_> {
    fn clean(&self) -> Result<()> {
        disk::clear(&self.root, &self.files)
    }

    /// Measures on a disk of its own, which is gone afterwards.
    fn on_disk(&self, measure: impl FnOnce() -> Result<()>) -> Result<()> {
        ensure_dir(self.root.clone())?;
        let disk = LoopDisk::make(&self.root.join("disk.img"), &self.files)?;
        let measured = measure();
        drop(disk);
        self.clean()?;
        measured
    }

    /// A piece of work, shown while it is done.
    fn step<T>(&self, name: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let step = Step::begin(name, self.logs.clone());
        let result = work(&step);
        step.end(&result);
        result.with_context(|| name.to_owned())
    }

    /// The loads that were asked for.
    fn measures(&self) -> impl Iterator<Item = &'static Measure> {
        MEASURES.iter().filter(|m| self.options.only.as_ref().is_none_or(|only| m.name.contains(only)))
    }

    /// Puts a load on a side, for the time that was asked for if it is measured, else once through. It has a thread of
    /// its own, which is left behind if it never ends: this process ends then.
    fn load(
        &self,
        name: &str,
        server: &mut Server,
        load: Load,
        measured: bool,
        seed: u64,
    ) -> Result<Figures> {
        let side = name.to_owned();
        let (way, memory, size, pids) = (server.way().clone(), self.memory.clone(), self.size, server.pids());
        let limit = measured.then_some(self.limit);
        let (sender, ended) = channel();
        std::thread::spawn(move || {
            let figures = (|| {
                let mut disk = way.open(&memory, size)?;
                let warm_up = Load { op: Op::Read, len: 4096, depth: 1, random: true, flush_every: 0 };
                if measured {
                    load::run(disk.as_mut(), &memory, warm_up, size, Some(WARM_UP), seed + 100)?;
                }
                let before = cpu_of(&pids)?;
                let outcome = load::run(disk.as_mut(), &memory, load, size, limit, seed)?;
                let after = cpu_of(&pids)?;
                load::flush(disk.as_mut())?;
                let cpu = [after[0] - before[0], after[1] - before[1]];
                if disk.stalls() > 0 {
                    let times = disk.stalls();
                    say(&format!("  {side} stood still {times} times, until it was told again of a request"));
                }
                anyhow::Ok(figures(&outcome, cpu, shared_memory_mib(&pids[0])?))
            })();
            // Nobody listens if this took too long.
            drop(sender.send(figures));
        });
        let deadline = Instant::now() + limit.unwrap_or_default() + PATIENCE;
        loop {
            match ended.recv_timeout(Duration::from_millis(100)) {
                Ok(figures) => return figures.with_context(|| name.to_owned()),
                Err(RecvTimeoutError::Disconnected) => bail!("the load has broken down"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            ensure!(!self.interrupt.seen(), "interrupted");
            ensure!(server.lives()?, "{name}: a process has ended");
            ensure!(Instant::now() < deadline, "{name}: a request is not answered");
        }
    }
}

fn cpu_of(pids: &[Vec<u32>; 2]) -> Result<[f64; 2]> {
    Ok([cpu_us(&pids[0])?, cpu_us(&pids[1])?])
}

fn figures(outcome: &Outcome, cpu_us: [f64; 2], mib: u64) -> Figures {
    Figures {
        per_second: outcome.per_second(),
        p50: outcome.times.quantile(0.5),
        p99: outcome.times.quantile(0.99),
        cpu_us: cpu_us.map(|all| all / outcome.count as f64),
        mib,
    }
}

/// The one in the middle.
fn middle(mut all: Vec<Figures>) -> Figures {
    all.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    all.get(all.len() / 2).cloned().unwrap_or_default()
}

fn line(name: &str, figures: &Figures, len: u64) -> String {
    let rate = match len {
        SLOT_BYTES => format!("{:8.0} MiB/s", figures.per_second),
        _ => format!("{:8.0} /s   ", figures.per_second),
    };
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let mut text = format!(
        "  {name:22} {rate}  half within {:7.0} us, 99 of 100 within {:7.0} us",
        micros(figures.p50),
        micros(figures.p99)
    );
    let [servers, client] = figures.cpu_us;
    if servers > 0.0 {
        text.push_str(&format!(", {servers:6.1} us CPU each, {:4} MiB", figures.mib));
    }
    if client > 0.0 {
        text.push_str(&format!(", and {client:6.1} us of its client"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_there_is() {
        let raw = Figures { per_second: 10.0, ..Figures::default() };
        assert!(
            line("raw", &raw, SLOT_BYTES).contains("10 MiB/s") && !line("raw", &raw, 4096).contains("CPU")
        );
        let peer = Figures { cpu_us: [40.0, 2.0], mib: 7, ..raw };
        assert!(
            line("peer", &peer, 4096).ends_with("40.0 us CPU each,    7 MiB, and    2.0 us of its client")
        );
    }
}
