//! Two of three nodes are lost for good: what is left refuses to change anything and says that what it reads is old,
//! until a person orders it to go on alone. The others begin anew when they come back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use image_builder::exec;
use serde_json::{Value, json};

use super::SERVER;
use super::cloud::Cloud;
use super::losses::{GUEST_BACK_MAX, until_written};
use crate::client::Client;
use crate::faults::{self, Load};
use crate::tour::{Scene, step};

/// The node that is left.
const LEFT: u8 = 1;
/// How long it may take until the loss is noticed.
const NOTICED_MAX: Duration = Duration::from_secs(60);
/// How long a person may be told to wait before the order is taken.
const SAFE_MAX: Duration = Duration::from_secs(180);

/// All nodes but one lose their power; that one is recovered, and the others are taken in again.
pub fn lost(cloud: &Cloud, scene: &mut Scene, from: u64) -> Result<u64> {
    let client = cloud.client(LEFT)?;
    let (token, id) = (client.token()?, cloud_id(client)?);
    let acknowledged = step("all nodes but one lose their power", || {
        let load = Load::start(scene, from)?;
        std::thread::sleep(Duration::from_secs(3));
        for number in cloud.numbers().filter(|number| *number != LEFT) {
            cloud.node(number)?.power_cut()?;
        }
        load.abandon()
    })?;
    step("what is read is said to be old, and nothing is changed", || refuses(client, &token))?;
    step("it goes on alone, once that is safe", || {
        recover(cloud, "another-cloud").err().context("it took the order for another cloud")?;
        let since = Instant::now();
        while let Err(refused) = recover(cloud, &id) {
            ensure!(since.elapsed() < SAFE_MAX, "still refused after {SAFE_MAX:?}: {refused:#}");
            std::thread::sleep(Duration::from_secs(5));
        }
        eprintln!("       the order was taken after {:.1} s", since.elapsed().as_secs_f64());
        let writes = until_written(client, &token)?;
        eprintln!("       the API writes again after {:.1} s", writes.as_secs_f64());
        Ok(())
    })?;
    step("its guest is back, with every flushed block", || {
        scene.login_to(SERVER)?.wait(GUEST_BACK_MAX).context("the guest did not come back")?;
        faults::verify(scene, from, acknowledged)
    })?;
    step("the others are taken in again", || {
        cloud.start_again()?;
        cloud.wait_whole()
    })?;
    Ok(acknowledged)
}

/// Waits until the loss is noticed, and looks how it is said.
fn refuses(client: &Client, token: &str) -> Result<()> {
    let since = Instant::now();
    loop {
        let read = client.request("GET", "/compute/v2.1/os-keypairs").token(token).within(30).send()?;
        if read.status == 200 && read.header("x-cairn-stale").is_ok() {
            ensure!(read.header("warning")?.starts_with("110"), "an old answer without a warning");
            break;
        }
        ensure!(since.elapsed() < NOTICED_MAX, "reads are not said to be old: {}", read.status);
        std::thread::sleep(Duration::from_millis(500));
    }
    eprintln!("       reads say that they are old after {:.1} s", since.elapsed().as_secs_f64());
    let body = json!({"keypair": {"name": "never"}});
    let write = client.request("POST", "/compute/v2.1/os-keypairs").token(token).json(&body);
    let write = write.within(30).send()?;
    ensure!(write.status == 503, "a write without a majority answers {}: {}", write.status, write.body);
    write.header("retry-after").map(drop)
}

fn cloud_id(client: &Client) -> Result<String> {
    let (code, body) = client.http("GET", "/appliance/v1/cluster", Some(&client.token()?), None)?;
    ensure!(code == 200, "the cloud's members: {code}");
    let overview: Value = serde_json::from_str(&body)?;
    Ok(overview["cloud"].as_str().context("the cloud has no id")?.to_owned())
}

fn recover(cloud: &Cloud, id: &str) -> Result<()> {
    exec::output(cloud.node(LEFT)?.command("cairn")?.args(["recover", "--cloud", id])).map(drop)
}
