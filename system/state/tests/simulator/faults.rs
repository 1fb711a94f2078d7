//! What goes wrong, by the dice, and how it is put right again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cairn_state::{NodeId, Options, StoreError};

use crate::runtime::{below, live};
use crate::world::{NODES, SPARE, World, member};

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
    let any = below(world.places() as u64) as usize;
    if below(2) == 0 {
        return any;
    }
    let leader = world.store(any).and_then(|(store, _)| store.status().ok()?.leader);
    leader.and_then(|leader| world.place_of(leader)).unwrap_or(any)
}

async fn strike(world: &Arc<World>) {
    let place = victim(world);
    match below(16) {
        0 | 1 => restart(world, place, true).await,
        2 => restart(world, place, false).await,
        3 => cut_off(world, place, below(3)),
        4 => world.weather.lock().unwrap().cut = Default::default(),
        5 => world.weather.lock().unwrap().loss = below(40),
        6 => world.weather.lock().unwrap().doubled = below(60),
        7 => world.weather.lock().unwrap().delay = 1 + below(400),
        8 if world.jumps => world.life(place).jump(below(6000) as i64 - 2000),
        9 => world.slow_disk(place, 1 + below(300)),
        10 => {
            world.break_disk(place, below(40));
            tokio::spawn(revive(world.clone(), place, Duration::from_millis(300 + below(1500))));
        }
        11 => world.clear(),
        12 => {
            let life = world.life(place);
            tokio::spawn(async move { life.freeze(Duration::from_millis(below(3000))).await });
        }
        13 if world.places() > SPARE => drop(tokio::spawn(replace(world.clone()))),
        _ => order(world, place),
    }
}

/// The numbers of those who shall vote: all, or all but one. With one more lost for good there is still a majority.
fn some_voters(world: &World) -> Vec<NodeId> {
    let (places, out) = (world.places(), below(world.places() as u64) as usize);
    let all = below(2) == 0;
    (0..places).filter(|place| *place != out || all).map(|place| world.number(place)).collect()
}

/// A change of who leads or votes, asked of any node; nobody waits for it.
fn order(world: &Arc<World>, place: usize) {
    let Some((store, life)) = world.store(place) else { return };
    let (to, voters, change) = (world.number(below(NODES as u64) as usize), some_voters(world), below(2));
    tokio::spawn(live(&life, async move {
        match change {
            0 => drop(store.hand_over(to).await),
            _ => drop(store.set_voters(voters).await),
        }
    }));
}

/// The spare node is lost with all it knew, if it was there; another joins in its place, gets the state, votes.
async fn replace(world: Arc<World>) {
    if world.calm.load(Ordering::Relaxed) {
        return;
    }
    let before = world.number(SPARE);
    world.replace(SPARE);
    world.start(SPARE, Options::join()).await;
    let Some((store, life)) = world.store(below(NODES as u64) as usize) else { return };
    let (number, voters) = (world.number(SPARE), some_voters(&world));
    // Whoever is asked may be lost meanwhile.
    drop(
        live(&life, async move {
            store.admit(number, member(SPARE)).await?;
            store.set_voters(voters).await?;
            store.dismiss(before).await
        })
        .await,
    );
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
    for other in (0..weather.cut.len()).filter(|other| *other != place) {
        weather.cut[place][other] |= how != 1;
        weather.cut[other][place] |= how != 2;
    }
}

/// Ends all faults: every node is up, on a disk that is quick and whole, and votes, and nobody else is a member.
pub async fn calm(world: &Arc<World>) -> Result<(), String> {
    world.calm.store(true, Ordering::Relaxed);
    world.clear();
    for place in 0..world.places() {
        world.slow_disk(place, 1);
        world.crash(place, true);
        world.start(place, Options::join()).await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match tokio::time::timeout(Duration::from_secs(8), settle(world)).await {
            Ok(Ok(())) => return Ok(()),
            result if tokio::time::Instant::now() > deadline => {
                return Err(format!("no whole group in the calm: {result:?}"));
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn settle(world: &World) -> Result<(), StoreError> {
    let down = || StoreError::Unavailable("a node does not start".into());
    let (store, life) = world.store(0).ok_or_else(down)?;
    let all: Vec<_> = (0..world.places()).map(|place| world.number(place)).collect();
    let spare = all.get(SPARE).copied();
    live(&life, async move {
        if let Some(spare) = spare {
            store.admit(spare, member(SPARE)).await?;
        }
        store.set_voters(all.clone()).await?;
        let members = store.status()?.members;
        for gone in members.into_keys().filter(|member| !all.contains(member)) {
            store.dismiss(gone).await?;
        }
        Ok(())
    })
    .await
}
