//! Three real processes are one store, on their own disks and over sockets, while they are killed, stopped and cut
//! off from each other: what clients saw must be linearizable, and once all is well every process must serve.
//!
//! The processes are this very program, started again. `CAIRN_PROCESSES_SEED=n` chooses the dice of faults and
//! clients (not what the machine makes of them: no two runs are the same); the seed is printed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on should panic")]

#[path = "../common/disk.rs"]
#[allow(dead_code)]
mod disk;
#[path = "../common/history.rs"]
mod history;
mod house;
mod node;
mod wires;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use disk::Dice;
use history::{History, Op, Ret, Written};
use house::{House, NODES};
use wires::{Answer, Ask};

const CLIENTS: u64 = 4;
const KEYS: u64 = 3;
/// How long faults go on, at least: until clients have asked so often.
const STORM: Duration = Duration::from_secs(20);
const CALLS_MIN: u32 = 200;
/// How long they go on at most, on a machine that is busy with other things.
const STORM_MAX: Duration = Duration::from_secs(45);
/// How long it may take then until every process serves.
const CALM: Duration = Duration::from_secs(60);

/// What a started process is: a node, until it is killed or left alone.
#[test]
fn a_node() {
    if let Some(place) = std::env::var(node::PLACE).ok().and_then(|place| place.parse().ok()) {
        node::run(place);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_and_cut_off_are_linearizable() {
    let seed = std::env::var("CAIRN_PROCESSES_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let house = Arc::new(House::found(directory.path()).await);
    let history = Arc::new(Mutex::new(History::default()));
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(client(house.clone(), history.clone(), Dice(seed ^ (n + 1)), begun)))
        .collect();
    let faults = storm(&house, &history, &mut Dice(seed), begun).await;
    house.heal().await;
    for client in clients {
        client.await.unwrap();
    }
    timeout(CALM, serves_everywhere(&house, &history)).await.expect("it does not serve in the calm");
    let Answer::Events(events) = house.ask(0, &Ask::Events).await.expect("it has just served") else {
        panic!("not the events");
    };
    let history = std::mem::take(&mut *history.lock().unwrap());
    println!("{} calls, {} with an unknown end, {faults} faults", history.calls, history.unknown);
    let written = Written::of(&events).unwrap_or_else(|e| panic!("{e}: {history:#?}"));
    assert!(history.linearizable(&written), "not linearizable: {history:#?} written: {events:#?}");
    assert!(history.calls > 50 && faults > 5, "too little happened to say anything");
}

/// Whether the storm that began then goes on.
fn storms(history: &Mutex<History>, begun: Instant) -> bool {
    let lasted = begun.elapsed();
    lasted < STORM || lasted < STORM_MAX && history.lock().unwrap().calls < CALLS_MIN
}

/// Asks one thing of one process, and notes it. `None`: it is not known what became of it.
async fn call(
    house: &House,
    history: &Mutex<History>,
    thread: &mut u32,
    place: usize,
    op: Op,
) -> Option<Ret> {
    history.lock().unwrap().call(*thread, op.clone());
    let answer = house.ask(place, &Ask::Do(op)).await;
    let mut history = history.lock().unwrap();
    if let Some(Answer::Did(ret)) = answer {
        history.answer(*thread, ret.clone());
        return Some(ret);
    }
    history.unknown += 1;
    *thread = history.thread();
    None
}

async fn client(house: Arc<House>, history: Arc<Mutex<History>>, mut dice: Dice, begun: Instant) {
    let mut thread = history.lock().unwrap().thread();
    let mut seen = [0; KEYS as usize];
    while storms(&history, begun) {
        sleep(Duration::from_millis(dice.below(150))).await;
        let (key, value) = (dice.below(KEYS), dice.below(1 << 40) + 1);
        let op = match dice.below(10) {
            0..=2 => Op::Put(key as u8, value),
            3..=5 => Op::Swap(key as u8, seen[key as usize], value),
            6 => Op::Delete(key as u8),
            _ => Op::Get(key as u8),
        };
        let place = dice.below(NODES as u64) as usize;
        match (call(&house, &history, &mut thread, place, op.clone()).await, op) {
            (Some(Ret::Found(found, _)), Op::Get(_)) => seen[key as usize] = found.map_or(0, |(_, at)| at),
            (Some(Ret::Committed(at)), Op::Put(..) | Op::Swap(..)) => seen[key as usize] = at,
            _ => {}
        }
    }
}

/// Lets faults strike; says how many did.
async fn storm(house: &Arc<House>, history: &Mutex<History>, dice: &mut Dice, begun: Instant) -> u32 {
    let mut struck = 0;
    while storms(history, begun) {
        sleep(Duration::from_millis(200 + dice.below(1000))).await;
        let place = dice.below(NODES as u64) as usize;
        match dice.below(8) {
            0..=2 => {
                house.kill(place).await;
                sleep(Duration::from_millis(dice.below(1000))).await;
                house.start(place).await;
            }
            3 | 4 => house.wires.cut_off(place, dice.below(3)),
            5 => house.stop_for(place, Duration::from_millis(dice.below(2500))).await,
            6 if dice.below(4) == 0 => house.restart_all().await,
            _ => house.wires.clear(),
        }
        struck += 1;
    }
    struck
}

/// Every process takes a write and gives a linearizable read.
async fn serves_everywhere(house: &House, history: &Mutex<History>) {
    let mut dice = Dice(u64::from(std::process::id()) << 20);
    for place in 0..NODES {
        for get in [false, true] {
            let mut thread = history.lock().unwrap().thread();
            loop {
                let op = if get { Op::Get(0) } else { Op::Put(0, dice.below(1 << 40) + 1) };
                if call(house, history, &mut thread, place, op).await.is_some() {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
