//! The replicated store under a simulator: every run is made by its seed alone, in time that costs nothing.
//!
//! Three replicas on disks that are slow, fail, lose or tear what was not synced, a network that loses, delays,
//! doubles and cuts, clocks that jump or lag, nodes that stand still, crashes of process and power, changes of leader
//! and voters, a fourth that joins, is lost for good and comes as another, or two replicas and a witness; clients on all nodes. What they saw must be
//! linearizable (checked by stateright), no write done twice, the watches without gap, no lease ended that was just
//! kept alive, all replicas equal in the end, and once the faults stop, every node must serve within bounded time.
//!
//! `CAIRN_SIM_SEED=n` runs that one (and with `CAIRN_SIM_SHOW=1` shows it, the engine's words as `RUST_LOG` says);
//! `CAIRN_SIM_RUNS=n` as many, `CAIRN_SIM_FROM=n` from there on.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on should panic")]

mod channel;
#[path = "../common/disk.rs"]
#[allow(dead_code)]
mod disk;
mod faults;
mod follow;
#[path = "../common/history.rs"]
mod history;
mod lessee;
mod run;
mod runtime;
mod world;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use run::{Tally, run};

/// How many runs the default test makes.
const RUNS: u64 = 10_000;

/// After how many that failed no more are run.
const FAILED_MAX: usize = 5;

/// Seeds that have found something, each with what it was.
const KEPT: &[(u64, &str)] =
    &[(2657, "a replica in the place of a lost one answered what was meant for the lost one")];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

thread_local! {
    /// The last panic on this thread: most are in tasks, which end without a word.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn outcome(seed: u64) -> Result<Tally, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANIC.set(Some(info.to_string()));
            before(info);
        }));
    });
    PANIC.set(None);
    let caught = std::panic::catch_unwind(|| run(seed));
    match PANIC.take() {
        Some(panic) => Err(panic),
        None => caught.unwrap_or_else(|_| Err("it panicked".into())),
    }
}

/// With CAIRN_SIM_SHOW, what the engine says of one run is printed.
fn show() {
    if std::env::var("CAIRN_SIM_SHOW").is_ok() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
}

#[test]
fn many_histories_are_linearizable_and_live() {
    if let Some(seed) = number("CAIRN_SIM_SEED") {
        show();
        println!("{:?}", outcome(seed).unwrap_or_else(|e| panic!("seed {seed}: {e}")));
        return;
    }
    let (from, runs) = (number("CAIRN_SIM_FROM").unwrap_or(0), number("CAIRN_SIM_RUNS").unwrap_or(RUNS));
    let next = AtomicU64::new(from);
    let failed = Mutex::new(Vec::new());
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + runs || failed.lock().unwrap().len() >= FAILED_MAX {
                        return;
                    }
                    match outcome(seed) {
                        Ok(tally) => {
                            let mut total = total.lock().unwrap();
                            total.calls += tally.calls;
                            total.unknown += tally.unknown;
                            total.faults += tally.faults;
                        }
                        Err(e) => failed.lock().unwrap().push((seed, e)),
                    }
                }
            });
        }
    });
    let Tally { calls, unknown, faults, .. } = *total.lock().unwrap();
    println!(
        "{runs} histories from seed {from}: {calls} calls, {unknown} with an unknown end, {faults} faults"
    );
    let failed = failed.into_inner().unwrap();
    for (seed, e) in &failed {
        println!("seed {seed}: {e}");
    }
    let seeds: Vec<_> = failed.iter().map(|(seed, _)| seed).collect();
    assert!(
        failed.is_empty(),
        "{} of {runs} failed, seeds {:?}",
        failed.len(),
        &seeds[..seeds.len().min(20)]
    );
    assert!(number("CAIRN_SIM_RUNS").is_some() || calls > 20 * runs as u32 && unknown > runs as u32 / 10);
}

#[test]
fn what_was_found_once_stays_fixed() {
    for (seed, what) in KEPT {
        outcome(*seed).unwrap_or_else(|e| panic!("seed {seed} ({what}): {e}"));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..5 {
        assert_eq!(outcome(seed).unwrap(), outcome(seed).unwrap(), "seed {seed}");
    }
}
