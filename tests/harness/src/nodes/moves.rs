//! Servers on different nodes, and a guest that moves while it writes and answers pings.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::SERVER;
use super::cloud::Cloud;
use crate::faults::{self, Load};
use crate::tour::{Scene, names, step};

/// The longest that a guest which moves may not answer.
const OUTAGE_MAX: Duration = Duration::from_secs(2);
/// How long a node may take to be emptied.
const EMPTY_MAX: Duration = Duration::from_secs(300);
/// The microversion in which servers are moved: the scheduler chooses where to.
const MOVING: [&str; 2] = ["--os-compute-api-version", "2.79"];

/// Two servers of one network on different nodes ping each other, without their router between them.
pub fn spread(cloud: &Cloud, scene: &mut Scene) -> Result<()> {
    step("a second server, on another node", || {
        scene.server(names::SERVER_B)?;
        let (a, b) = (cloud.node_of(1, SERVER)?, cloud.node_of(1, names::SERVER_B)?);
        ensure!(a != b, "both servers are on node {a}");
        Ok(())
    })?;
    step("it answers the first one's pings, across nodes", || {
        let address = scene.fixed_address(names::SERVER_B)?;
        let script =
            format!("for i in $(seq 90); do ping -c 1 -W 1 {address} >/dev/null && exit 0; done; exit 1");
        scene.login_to(SERVER)?.run(&script).map(drop)
    })
}

/// A live migration.
pub fn migrate(cloud: &Cloud, scene: &Scene, from: u64) -> Result<u64> {
    step("live migration of a writing, pinged guest", || {
        under_load(scene, from, || {
            let before = cloud.node_of(1, SERVER)?;
            let order = ["server", "migrate", "--live-migration", "--wait", SERVER];
            cloud.client(1)?.run(&[&MOVING[..], &order].concat())?;
            let after = cloud.node_of(1, SERVER)?;
            ensure!(before != after, "the server is still on node {before}");
            Ok(())
        })
    })
}

/// Maintenance: the server's node is emptied, and takes servers again.
pub fn drain(cloud: &Cloud, scene: &Scene, from: u64) -> Result<u64> {
    step("maintenance empties a node", || {
        let node = cloud.node_of(1, SERVER)?;
        let next = under_load(scene, from, || empty(cloud, node))?;
        ensure!(cloud.node_of(1, SERVER)? != node, "the server is still on node {node}");
        let client = cloud.client(1)?;
        let (code, said) = client.http("DELETE", &maintenance(cloud, node)?, Some(&client.token()?), None)?;
        ensure!(code == 204, "the end of maintenance answers {code}: {said}");
        Ok(next)
    })
}

fn maintenance(cloud: &Cloud, node: u8) -> Result<String> {
    Ok(format!("/appliance/v1/nodes/{}/maintenance", cloud.name(node)?))
}

fn empty(cloud: &Cloud, node: u8) -> Result<()> {
    let (client, path) = (cloud.client(1)?, maintenance(cloud, node)?);
    let token = client.token()?;
    let begun = client.request("PUT", &path).token(&token).json(&serde_json::json!({})).send()?;
    ensure!(begun.status == 202, "maintenance answers {}: {}", begun.status, begun.body);
    let since = Instant::now();
    loop {
        let (code, said) = client.http("GET", &path, Some(&token), None)?;
        ensure!(code == 200, "maintenance answers {code}: {said}");
        let progress: serde_json::Value = serde_json::from_str(&said)?;
        if progress["left"] == 0 {
            return Ok(());
        }
        if since.elapsed() > EMPTY_MAX {
            bail!("node {node} is not empty: {said}");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Does something to a guest that writes and answers pings: it must not be noticed for long, nor cost a block.
fn under_load(scene: &Scene, from: u64, act: impl FnOnce() -> Result<()>) -> Result<u64> {
    let load = Load::start(scene, from)?;
    std::thread::sleep(Duration::from_secs(3));
    let done = act();
    let moved = load.acknowledged();
    std::thread::sleep(Duration::from_secs(3));
    let written = load.acknowledged();
    let report = load.stop()?;
    done?;
    eprintln!("       longest time without an answered ping: {:.2} s", report.ping_gap.as_secs_f64());
    ensure!(written > moved, "the guest's writes stopped at block {moved}");
    ensure!(report.ping_gap < OUTAGE_MAX, "pings were unanswered for {:?}", report.ping_gap);
    faults::verify(scene, from, report.acknowledged)?;
    Ok(report.acknowledged)
}
