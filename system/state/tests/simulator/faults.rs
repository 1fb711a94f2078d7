//! What goes wrong, by the dice, and how it is put right again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cairn_state::Options;

use crate::runtime::{below, live};
use crate::world::{NODES, World, node};

/// Lets faults strike for a while; says how many did.
pub async fn storm(world: &Arc<World>, time: Duration) -> u32 {
    let until = tokio::time::Instant::now() + time;
    let mut struck = 0;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(below(500))).await;
        strike(world).await;
        struck += 1;
    }
    struck
}

/// A node that leads, or any.
fn victim(world: &World) -> usize {
    let any = below(NODES as u64) as usize;
    if below(2) == 0 {
        return any;
    }
    let leader = world.store(any).and_then(|(store, _)| store.status().ok()?.leader);
    leader.map_or(any, |leader| leader as usize - 1)
}

async fn strike(world: &Arc<World>) {
    let place = victim(world);
    match below(13) {
        0 | 1 => restart(world, place, true).await,
        2 => restart(world, place, false).await,
        3 => cut_off(world, place, below(3)),
        4 => world.weather.lock().unwrap().cut = Default::default(),
        5 => world.weather.lock().unwrap().loss = below(40),
        6 => world.weather.lock().unwrap().doubled = below(60),
        7 => world.weather.lock().unwrap().delay = 1 + below(400),
        8 => world.jump(place, Duration::from_millis(below(5000))),
        9 => world.slow_disk(place, 1 + below(300)),
        10 => {
            world.break_disk(place, below(40));
            tokio::spawn(revive(world.clone(), place, Duration::from_millis(300 + below(1500))));
        }
        11 => world.clear(),
        _ => order(world, place),
    }
}

/// A change of who leads or votes, asked of any node; nobody waits for it.
fn order(world: &Arc<World>, place: usize) {
    let Some((store, life)) = world.store(place) else { return };
    let to = below(NODES as u64) as usize;
    let voters: Vec<_> = (0..NODES).filter(|p| *p != to || below(2) == 0).map(node).collect();
    let change = below(2);
    tokio::spawn(live(&life, async move {
        match change {
            0 => drop(store.hand_over(node(to)).await),
            _ => drop(store.set_voters(voters).await),
        }
    }));
}

async fn restart(world: &Arc<World>, place: usize, power: bool) {
    world.crash(place, power);
    tokio::spawn(revive(world.clone(), place, Duration::from_millis(below(1500))));
}

/// Starts a node after a while, if it is not up; one with a broken disk is put down before.
async fn revive(world: Arc<World>, place: usize, after: Duration) {
    tokio::time::sleep(after).await;
    if world.calm.load(Ordering::Relaxed) {
        return;
    }
    world.crash(place, below(2) == 0);
    world.start(place, Options::join()).await;
}

/// Cuts the links of a node: both ways, or only one.
fn cut_off(world: &World, place: usize, how: u64) {
    let mut weather = world.weather.lock().unwrap();
    for other in (0..NODES).filter(|other| *other != place) {
        weather.cut[place][other] |= how != 1;
        weather.cut[other][place] |= how != 2;
    }
}

/// Ends all faults: every node is up, on a disk that is quick and whole, and votes.
pub async fn calm(world: &Arc<World>) -> Result<(), String> {
    world.calm.store(true, Ordering::Relaxed);
    world.clear();
    for place in 0..NODES {
        world.slow_disk(place, 1);
        world.crash(place, true);
        world.start(place, Options::join()).await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let (store, life) = world.store(0).ok_or("a node does not start")?;
        let voters = live(&life, async move { store.set_voters((0..NODES).map(node)).await });
        match tokio::time::timeout(Duration::from_secs(5), voters).await {
            Ok(Ok(())) => return Ok(()),
            _ if tokio::time::Instant::now() > deadline => return Err("no leader in the calm".into()),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
