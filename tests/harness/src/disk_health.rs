//! The disks of a machine that booted the ISO say how they are: asked by the appliance's own unit, told by its API. Only
//! looks.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::client::Client;

/// How long after its start a machine may take to ask its disks and tell of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// An emulated machine's disk that can be asked: the second, see `vm.rs`.
const SERIAL: &str = "data2";

/// Waits until that disk is told of as well, by its maker's number.
pub fn check(client: &Client) -> Result<()> {
    let token = client.token()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, body) = client.http("GET", "/appliance/v1/disks", Some(&token), None)?;
        ensure!(code == 200, "the list of disks: {code} {body}");
        let disks: Vec<Value> = serde_json::from_str(&body).context("the list of disks")?;
        let healths = || disks.iter().map(|disk| &disk["health"]);
        if let Some(health) = healths().find(|health| health["serial"] == SERIAL) {
            ensure!(
                health["failing"].is_null() && health["worn"].is_u64(),
                "a new disk says of itself: {health}"
            );
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no disk says that it is {SERIAL}: {body}");
        std::thread::sleep(Duration::from_secs(2));
    }
}
