//! `bench store`: the store beside etcd. Each side is one process or three on this machine's loopback, with its files
//! on the same disk and each write on stable media before it is answered; the sides take turns.
//!
//! The load on Cairn is made in the process of the leader, as the APIs are, and its CPU counts; that on etcd comes over
//! gRPC from here, and only its servers' CPU counts. Between nodes, Cairn has mutual TLS and etcd none.

mod cairn;
mod etcd;
mod load;
pub mod node;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use image_builder::Paths;
use image_builder::paths::ensure_dir;
use image_builder::stage::say;
use tokio::time::timeout;

use self::cairn::Cairn;
use self::etcd::{Client, Etcd};
use crate::process::{cpu_us, memory_mib};

/// How long etcd is waited for before it is asked again, while it has no leader.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// How often each side has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How many seconds each load lasts
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many records a large store has
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
}

/// What a load came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rate {
    per_second: f64,
    /// CPU of all the side's processes for each, in microseconds.
    cpu_us: f64,
}

/// Measures, and prints.
pub fn run(paths: &Paths, options: &Options) -> Result<()> {
    let directory = ensure_dir(paths.workspace().join("target/bench/store"))?;
    let lock = std::fs::File::create(directory.join("lock"))?;
    lock.try_lock().context("another `bench store` is running in this checkout")?;
    let etcd = etcd::program(paths)?;
    let bench = Bench { directory: directory.join("files"), etcd, seconds: options.seconds };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        for nodes in [1, 3] {
            bench.rates(nodes, options.rounds).await?;
        }
        bench.failover(options.rounds).await?;
        bench.watchers().await?;
        bench.large(options.records).await
    });
    bench.clean()?;
    measured
}

struct Bench {
    directory: PathBuf,
    etcd: PathBuf,
    seconds: u64,
}

fn rate(told: &str, cpu_us: f64) -> Result<Rate> {
    let mut words = told.split_whitespace().map(str::parse::<f64>);
    let count = words.next().context("no count")??;
    let micros = words.next().context("no time")??;
    Ok(Rate { per_second: count / micros * 1e6, cpu_us: cpu_us / count })
}

/// The one in the middle.
fn middle(mut rates: Vec<Rate>) -> Rate {
    rates.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn line(what: &str, ours: Rate, theirs: Rate) -> String {
    format!(
        "{what:34} Cairn {:8.0}/s {:6.1} us CPU   etcd {:8.0}/s {:6.1} us CPU   ratio {:.2}, CPU {:.2}",
        ours.per_second,
        ours.cpu_us,
        theirs.per_second,
        theirs.cpu_us,
        ours.per_second / theirs.per_second,
        ours.cpu_us / theirs.cpu_us
    )
}

impl Bench {
    fn clean(&self) -> Result<()> {
        if self.directory.exists() {
            std::fs::remove_dir_all(&self.directory)?;
        }
        Ok(())
    }

    /// An empty folder.
    fn fresh(&self) -> Result<&Path> {
        self.clean()?;
        std::fs::create_dir_all(&self.directory)?;
        Ok(&self.directory)
    }

    /// Writes and reads a second, with one worker and with many.
    async fn rates(&self, nodes: usize, rounds: u32) -> Result<()> {
        for (verb, workers) in [("write", 1), ("write", 64), ("read", 1), ("read", 64)] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                ours.push(self.ours(nodes, verb, workers).await?);
                theirs.push(self.theirs(nodes, verb, workers).await?);
            }
            let what = format!("{nodes} nodes, {workers} workers, {verb}s");
            say(&line(&what, middle(ours), middle(theirs)));
        }
        Ok(())
    }

    async fn ours(&self, nodes: usize, verb: &str, workers: u64) -> Result<Rate> {
        let mut cairn = Cairn::start(self.fresh()?, nodes).await?;
        let leader = cairn.leader().await?;
        let pids = cairn.nodes.iter().map(cairn::Node::pid).collect::<Result<Vec<_>>>()?;
        cairn.nodes[leader].ask("write 16 1").await?;
        let before = cpu_us(&pids)?;
        let told = cairn.nodes[leader].ask(&format!("{verb} {workers} {}", self.seconds)).await?;
        rate(&told, cpu_us(&pids)? - before)
    }

    async fn theirs(&self, nodes: usize, verb: &str, workers: u64) -> Result<Rate> {
        let etcd = Etcd::start(&self.etcd, self.fresh()?, nodes).await?;
        let leader = etcd.leader().await?;
        let pids: Vec<_> = etcd.members.iter().map(|(child, _)| child.id()).collect();
        let client = Client::connect(etcd.members[leader].1).await?;
        load::load(16, 1, |n| client.put(n)).await?;
        let before = cpu_us(&pids)?;
        let told = match verb {
            "write" => load::load(workers, self.seconds, |n| client.put(n)).await?,
            _ => load::load(workers, self.seconds, |n| client.get(n)).await?,
        };
        rate(&told, cpu_us(&pids)? - before)
    }

    /// From the leader's `kill -9` to the next committed write, asked of another at once.
    async fn failover(&self, rounds: u32) -> Result<()> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut cairn = Cairn::start(self.fresh()?, 3).await?;
            let leader = cairn.leader().await?;
            cairn.nodes[leader].ask("write 16 1").await?;
            cairn.nodes[leader].kill().await?;
            let told = cairn.nodes[(leader + 1) % 3].ask("recover").await?;
            ours.push(Duration::from_millis(told.parse()?));
            drop(cairn);
            let mut etcd = Etcd::start(&self.etcd, self.fresh()?, 3).await?;
            let leader = etcd.leader().await?;
            let client = Client::connect(etcd.members[(leader + 1) % 3].1).await?;
            load::load(16, 1, |n| client.put(n)).await?;
            let begun = Instant::now();
            etcd.members[leader].0.kill()?;
            // What a member had on its way to the dead leader it waits for in vain: it is asked again.
            while !matches!(timeout(ASK_AGAIN, client.put(0)).await, Ok(Ok(()))) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            theirs.push(begun.elapsed());
        }
        say(&format!("a write after the leader's death      Cairn {ours:.1?}   etcd {theirs:.1?}"));
        Ok(())
    }

    async fn watchers(&self) -> Result<()> {
        let mut cairn = Cairn::start(self.fresh()?, 3).await?;
        let leader = cairn.leader().await?;
        let told = cairn.nodes[leader].ask("watch 1000 500").await?;
        say(&format!("1000 watchers of one writer            Cairn {told} events/s"));
        Ok(())
    }

    async fn large(&self, records: u64) -> Result<()> {
        let directory = self.fresh()?;
        let mut cairn = Cairn::start(directory, 1).await?;
        let filled = cairn.nodes[0].ask(&format!("fill {records}")).await?;
        let start = cairn.restart(directory).await?;
        let told = cairn.nodes[0].ask(&format!("range {records}")).await?;
        let (range, put) = told.split_once(' ').context("not two numbers")?;
        say(&format!(
            "{records} records                      Cairn filled in {filled} s; started in {start:.1?}; {} MiB; \
             a range of 100 in {range} us, a put in {put} us",
            memory_mib(cairn.nodes[0].pid()?)?
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_the_cpu_of_each() {
        let found = rate("2000 500000", 80_000.0).unwrap();
        assert_eq!(found, Rate { per_second: 4000.0, cpu_us: 40.0 });
        assert_eq!(middle(vec![found, Rate::default(), found]), found);
    }
}
