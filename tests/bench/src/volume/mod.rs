//! `bench volume`: what a guest gets of a volume.
//!
//! One replica is measured beside qemu-storage-daemon's vhost-user-blk export of a file, past the page cache and through
//! it, and beside the file itself by io_uring. All lie on the same file system, take the same load from the same
//! front-end, and take turns. Of qemu-storage-daemon the best of its ways is compared with.
//!
//! A read is cold if nothing that it asks for is in the page cache, and warm if all of it is. The CPU is that of the
//! serving process alone.

mod guest;
mod load;
mod memory;
pub mod node;
mod raw;
mod side;

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
use self::side::{Server, Side};
use crate::process::{cpu_us, memory_mib};

/// How much longer than asked a load may take.
const PATIENCE: Duration = Duration::from_secs(120);
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
    /// How large the volume is, in MiB
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(64..))]
    mib: u64,
    /// Only loads with this in their name
    #[arg(long)]
    only: Option<String>,
}

/// A load, and what the page cache has before it.
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
    /// Of the serving process for each request, in microseconds.
    cpu_us: Option<f64>,
    mib: Option<u64>,
}

/// Measures, cleans up, and prints.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let directory = ensure_dir(paths.workspace().join("target/bench/volume"))?;
    let lock = std::fs::File::create(directory.join("lock"))?;
    lock.try_lock().context("another `bench volume` is running in this checkout")?;
    let bench = Bench {
        files: directory.join("files"),
        logs: directory.join("logs"),
        size: options.mib << 20,
        limit: Duration::from_secs(options.seconds),
        memory: Memory::new()?,
        interrupt: Interrupt::listen()?,
    };
    // Whatever a run that was killed has left.
    bench.clean()?;
    let measured = bench.one_replica(options);
    let cleaned = bench.clean();
    measured.and(cleaned)
}

struct Bench {
    files: PathBuf,
    logs: PathBuf,
    size: u64,
    limit: Duration,
    memory: Memory,
    interrupt: Interrupt,
}

impl Bench {
    fn clean(&self) -> Result<()> {
        if self.files.exists() {
            std::fs::remove_dir_all(&self.files)?;
        }
        Ok(())
    }

    /// A piece of work, shown while it is done.
    fn step<T>(&self, name: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let step = Step::begin(name, self.logs.clone());
        let result = work(&step);
        step.end(&result);
        result.with_context(|| name.to_owned())
    }

    fn one_replica(&self, options: &Options) -> Result<()> {
        ensure_dir(self.files.clone())?;
        self.step("writing each disk in full", |step| {
            for side in [Side::Cairn, Side::Raw { direct: true }] {
                step.note(&side.name());
                self.on(side, Load::FILL, None, 0)?;
            }
            Ok(())
        })?;
        let wanted = |m: &&Measure| options.only.as_ref().is_none_or(|only| m.name.contains(only));
        for measure in MEASURES.iter().filter(wanted) {
            let mut all: Vec<Vec<Figures>> = vec![Vec::new(); Side::ALL.len()];
            self.step(measure.name, |step| {
                for round in 0..options.rounds {
                    for (side, found) in Side::ALL.into_iter().zip(&mut all) {
                        step.note(&format!("round {} of {}: {}", round + 1, options.rounds, side.name()));
                        side.settle(&self.files, measure.warm)?;
                        found.push(self.on(side, measure.load, Some(self.limit), u64::from(round) + 1)?);
                    }
                }
                Ok(())
            })?;
            report(measure, &all.into_iter().map(middle).collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Starts a side, puts a load on it, and ends it.
    fn on(&self, side: Side, load: Load, limit: Option<Duration>, seed: u64) -> Result<Figures> {
        let mut server = side.start(&self.files, self.size)?;
        let figures = self.load(&mut server, load, limit, seed).with_context(|| side.name())?;
        server.end()?;
        Ok(figures)
    }

    /// The load has a thread of its own, which is left behind if it never ends: this process ends then.
    fn load(&self, server: &mut Server, load: Load, limit: Option<Duration>, seed: u64) -> Result<Figures> {
        let (way, memory, size, pid) = (server.way().clone(), self.memory.clone(), self.size, server.pid());
        let (sender, ended) = channel();
        std::thread::spawn(move || {
            let measured = (|| {
                let mut disk = way.open(&memory, size)?;
                let warm_up = Load { op: Op::Read, len: 4096, depth: 1, random: true, flush_every: 0 };
                if limit.is_some() {
                    load::run(disk.as_mut(), &memory, warm_up, size, Some(WARM_UP), seed + 100)?;
                }
                let before = pid.map(|pid| cpu_us(&[pid])).transpose()?;
                let outcome = load::run(disk.as_mut(), &memory, load, size, limit, seed)?;
                let after = pid.map(|pid| cpu_us(&[pid])).transpose()?;
                load::flush(disk.as_mut())?;
                let mib = pid.map(memory_mib).transpose()?;
                anyhow::Ok(figures(&outcome, after.zip(before).map(|(after, before)| after - before), mib))
            })();
            // Nobody listens if this took too long.
            drop(sender.send(measured));
        });
        let deadline = Instant::now() + limit.unwrap_or_default() + PATIENCE;
        loop {
            match ended.recv_timeout(Duration::from_millis(100)) {
                Ok(measured) => return measured,
                Err(RecvTimeoutError::Disconnected) => bail!("the load has broken down"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            ensure!(!self.interrupt.seen(), "interrupted");
            ensure!(server.lives()?, "its process has ended");
            ensure!(Instant::now() < deadline, "a request is not answered");
        }
    }
}

fn figures(outcome: &Outcome, cpu_us: Option<f64>, mib: Option<u64>) -> Figures {
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

fn best(all: &[Figures], which: impl Fn(Side) -> bool) -> f64 {
    let of_those = Side::ALL.into_iter().zip(all).filter(|(side, _)| which(*side));
    of_those.map(|(_, figures)| figures.per_second).fold(0.0, f64::max)
}

fn report(measure: &Measure, all: &[Figures]) {
    for (side, figures) in Side::ALL.into_iter().zip(all) {
        say(&line(&side.name(), figures, measure.load.len));
    }
    let own = best(all, |side| side == Side::Cairn);
    say(&format!(
        "  ratio to the best of QSD {:.2}, to the raw file {:.2} (direct) and {:.2} (cached)",
        own / best(all, |side| matches!(side, Side::Qsd { .. })),
        own / best(all, |side| side == Side::Raw { direct: true }),
        own / best(all, |side| side == Side::Raw { direct: false }),
    ));
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
    if let Some((cpu, mib)) = figures.cpu_us.zip(figures.mib) {
        text.push_str(&format!(", {cpu:6.1} us CPU each, {mib:4} MiB"));
    }
    text
}
