//! A node that is lost, one that is cut off and lives on, and all of them at once without power.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use serde_json::json;

use super::SERVER;
use super::cloud::Cloud;
use super::third::Third;
use super::twice::Watch;
use crate::client::Client;
use crate::faults::{self, Load, Random};
use crate::tour::{Scene, step};

/// How long writes to the API may be refused after a node was lost.
const WRITES_BACK_MAX: Duration = Duration::from_secs(10);
/// When one write is given up and tried anew, in seconds.
const WRITE_MAX_S: u32 = 3;
/// How long a guest may take to answer elsewhere: fencing takes half a minute, and then it boots, maybe emulated beside
/// much else.
pub const GUEST_BACK_MAX: Duration = Duration::from_secs(300);
/// How long all nodes and their guests may take to come back after a power cut.
const ALL_BACK_MAX: Duration = Duration::from_secs(900);

/// The server's node loses its power.
pub fn kill(cloud: &Cloud, scene: &mut Scene, random: &mut Random, from: u64) -> Result<u64> {
    let node = cloud.node_of(1, SERVER)?;
    let leads = if cloud.leader()? == node { ", which leads," } else { "" };
    let title = format!("node {node}{leads} loses its power; its guest runs elsewhere");
    let next = step(&title, || {
        let (left, load) = (cloud.client(cloud.other_than(node)?)?, Load::start(scene, from)?);
        std::thread::sleep(Duration::from_millis(1500 + random.below(3000)));
        let token = left.token()?;
        let since = Instant::now();
        cloud.node(node)?.power_cut()?;
        let acknowledged = load.abandon()?;
        ensure!(acknowledged > from, "the guest wrote nothing before the cut");
        let writes = until_written(left, &token)?;
        eprintln!("       the API writes again after {:.1} s", writes.as_secs_f64());
        ensure!(writes < WRITES_BACK_MAX, "the API wrote again after {writes:?} only");
        scene.login_to(SERVER)?.wait(GUEST_BACK_MAX).context("the guest did not come back")?;
        eprintln!("       its guest lets us in after {:.1} s", since.elapsed().as_secs_f64());
        faults::verify(scene, from, acknowledged)?;
        let now = cloud.node_of(cloud.other_than(node)?, SERVER)?;
        ensure!(now != node, "the server is said to be on the node that was lost");
        Ok(acknowledged)
    })?;
    whole_again(cloud)?;
    Ok(next)
}

/// The server's node is cut off from the others, and lives: its guest must have ended there before it begins elsewhere.
pub fn cut_off(cloud: &Cloud, scene: &mut Scene, from: u64) -> Result<u64> {
    let node = cloud.node_of(1, SERVER)?;
    let id = cloud.client(1)?.field(&["server", "show", SERVER], "id")?;
    let title = format!("node {node} is cut off; it ends its guest before others start it");
    let next = step(&title, || {
        let (watch, load) = (Watch::start(cloud, &id)?, Load::start(scene, from)?);
        std::thread::sleep(Duration::from_secs(3));
        let since = Instant::now();
        cloud.node(node)?.set_cable(false)?;
        std::thread::sleep(Duration::from_secs(1));
        let acknowledged = load.abandon()?;
        let back = scene.login_to(SERVER)?.wait(GUEST_BACK_MAX).context("the guest did not come back");
        eprintln!("       its guest lets us in after {:.1} s", since.elapsed().as_secs_f64());
        cloud.node(node)?.set_cable(true)?;
        back?;
        faults::verify(scene, from, acknowledged)?;
        cloud.wait_whole()?;
        let seen = watch.stop()?;
        for (node, at, runs) in &seen.changes {
            let what = if *runs { "runs on" } else { "has ended on" };
            eprintln!("       at {:5.1} s the guest {what} node {node}", at.as_secs_f64());
        }
        ensure!(
            seen.changes.iter().any(|(n, _, runs)| *n == node && !runs),
            "the guest never ended on node {node}"
        );
        Ok(acknowledged)
    })?;
    whole_again(cloud)?;
    Ok(next)
}

/// The witness is killed; nobody notices but who looks. It comes back with what it knew.
pub fn witness(cloud: &Cloud) -> Result<()> {
    step("the witness is lost, and comes back", || {
        let client = cloud.client(1)?;
        let token = client.token()?;
        cloud.with_witness(Third::kill)?;
        let writes = until_written(client, &token)?;
        eprintln!("       the API writes after {:.1} s", writes.as_secs_f64());
        ensure!(writes < WRITES_BACK_MAX, "the API wrote again after {writes:?} only");
        cloud.with_witness(Third::go_on)?;
        cloud.wait_whole()
    })
}

/// All nodes lose their power in the middle of writes, the guest's and the API's.
pub fn power_cut(cloud: &Cloud, scene: &mut Scene, random: &mut Random, from: u64) -> Result<u64> {
    step("all nodes lose their power at once, and come back", || {
        let (client, load) = (cloud.client(1)?, Load::start(scene, from)?);
        let token = client.token()?;
        let until = Instant::now() + Duration::from_millis(1500 + random.below(4000));
        let mut written = Vec::new();
        while Instant::now() < until {
            let name = format!("kept-{}-{}", random.below(1 << 40), written.len());
            let acknowledged = keypair(client, &token, &name);
            written.push((name, acknowledged));
        }
        for number in cloud.numbers() {
            cloud.node(number)?.power_cut()?;
        }
        let acknowledged = load.abandon()?;
        ensure!(
            acknowledged > from && written.iter().any(|(_, yes)| *yes),
            "nothing was written before the cut"
        );
        let since = Instant::now();
        cloud.start_again()?;
        scene.login_to(SERVER)?.wait(ALL_BACK_MAX).context("the guest did not come back")?;
        eprintln!("       the guest lets us in after {:.1} s", since.elapsed().as_secs_f64());
        faults::verify(scene, from, acknowledged)?;
        forget(client, &written)?;
        cloud.wait_whole()?;
        Ok(acknowledged)
    })
}

fn whole_again(cloud: &Cloud) -> Result<()> {
    step("the cloud is whole again", || {
        cloud.start_again()?;
        cloud.wait_whole()
    })
}

/// Makes a keypair; whether it was acknowledged.
fn keypair(client: &Client, token: &str, name: &str) -> bool {
    let body = json!({"keypair": {"name": name}});
    let call = client.request("POST", "/compute/v2.1/os-keypairs").token(token).json(&body);
    call.within(WRITE_MAX_S).send().is_ok_and(|reply| reply.status == 200)
}

/// Deletes keypairs; those that were acknowledged must be there.
fn forget(client: &Client, keypairs: &[(String, bool)]) -> Result<()> {
    let token = client.token()?;
    for (name, acknowledged) in keypairs {
        let path = format!("/compute/v2.1/os-keypairs/{name}");
        let (code, said) = client.http("DELETE", &path, Some(&token), None)?;
        ensure!(code == 202 || !acknowledged, "the acknowledged keypair {name} is gone: {code} {said}");
    }
    let acknowledged = keypairs.iter().filter(|(_, yes)| *yes).count();
    eprintln!("       {acknowledged} acknowledged API writes are all there");
    Ok(())
}

/// How long it takes until a write is acknowledged.
pub fn until_written(client: &Client, token: &str) -> Result<Duration> {
    let (since, mut tried) = (Instant::now(), Vec::new());
    while since.elapsed() < ALL_BACK_MAX {
        let name = format!("after-{}-{}", std::process::id(), tried.len());
        let acknowledged = keypair(client, token, &name);
        tried.push((name, acknowledged));
        if acknowledged {
            let took = since.elapsed();
            forget(client, &tried)?;
            return Ok(took);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("no write was acknowledged for {:?}", since.elapsed())
}
