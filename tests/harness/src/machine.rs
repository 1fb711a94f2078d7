//! The emulated machine that boots the ISO: started for the tests as `cargo up` starts it, and what is checked of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use image_builder::Paths;
use image_builder::up::{self, UpOptions};
use serde_json::Value;

use crate::client::Client;

/// The most that an idle node may use in all, and Cairn's own processes of it, in KiB.
const ALL_MAX: u64 = 1 << 20;
const CAIRN_MAX: u64 = 200 << 10;
/// How long the node may take to report its memory.
const REPORT_MAX: Duration = Duration::from_secs(120);

/// Starts the machine, or the one that ran before with the same disks, and waits for its API.
pub fn start(paths: &Paths) -> Result<()> {
    let options = UpOptions { detach: true, ..UpOptions::default() };
    up::boot(paths, &options)
}

/// Ends the machine and removes its disks.
pub fn clean(paths: &Paths) -> Result<()> {
    up::clean(paths)
}

/// Reads what the node says of its memory, and holds it against the limits.
pub fn check_memory(client: &Client) -> Result<()> {
    let since = Instant::now();
    let memory = loop {
        let (status, body) = client.http("GET", "/appliance/v1/status", Some(&client.token()?), None)?;
        ensure!(status == 200, "the status answers {status}: {body}");
        let status: Value = serde_json::from_str(&body).context("the status is no JSON")?;
        let roles = status["roles"].as_array().cloned().unwrap_or_default();
        if let Some(memory) = roles.iter().map(|r| &r["facts"]["memory_kib"]).find(|m| m.is_object()) {
            break memory.clone();
        }
        if since.elapsed() > REPORT_MAX {
            bail!("the node does not report its memory");
        }
        std::thread::sleep(Duration::from_secs(2));
    };
    let value = |name: &str| memory[name].as_u64().unwrap_or(u64::MAX);
    let (all, cairn) = (value("processes") + value("slab"), value("cairn"));
    eprintln!("  processes and slab {} MiB, of it Cairn {} MiB", all >> 10, cairn >> 10);
    ensure!(all < ALL_MAX && cairn < CAIRN_MAX, "an idle node uses too much memory: {memory}");
    Ok(())
}
