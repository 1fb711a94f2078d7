//! A guest that writes more than its node's data disks have room for: it waits, and sees no error.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::space::Filler;
use super::{Bench, input, space, volumes};
use crate::client::Client;
use crate::dev::Node;
use crate::tour::{Scene, names, step};

/// What is left of each data disk, in bytes.
const LEFT: u64 = 8 << 20;
/// What the guest writes: makes it, and prints its hash. 40 MiB.
const MAKE: &str =
    "dd if=/dev/urandom of=/tmp/data bs=65536 count=640 2>/dev/null && sync && sha256sum </tmp/data";
const WRITE: &str = "dd if=/tmp/data of=/dev/vdb bs=65536 conv=fsync 2>/dev/null && echo written";
/// Reads it back from the disk, not from the guest's memory.
const READ: &str =
    "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vdb bs=65536 count=640 2>/dev/null | sha256sum";
/// How long writes may take to fill what is left.
const HELD_MAX: Duration = Duration::from_secs(60);
/// How long they are watched while they wait.
const WATCH: Duration = Duration::from_secs(5);
/// How long the rest may take once there is room.
const DONE_MAX: Duration = Duration::from_secs(120);

/// A guest on a full disk.
pub fn writes(client: &Client, bench: &Bench, node: &Node, scene: &mut Scene) -> Result<()> {
    step("a guest with a volume", || scene.server_with_volume())?;
    let login = scene.login_to(names::SERVER_A)?;
    let made = login.run(MAKE)?;
    let filler = Filler::new(node, LEFT)?;
    let mut writer = login.spawn(WRITE)?;
    step("its writes wait while the data disks are full", || {
        wait_held(client, node, &mut writer)?;
        meanwhile(client, bench)?;
        volumes::refused(client)?;
        volumes::backup_fails(client)?;
        std::thread::sleep(WATCH);
        ensure!(writer.try_wait()?.is_none(), "the guest's write ended on a full disk");
        login.no_io_errors()
    })?;
    step("they end well when there is room", || {
        filler.remove()?;
        finish(writer)?;
        login.no_io_errors()?;
        let read = login.run(READ)?;
        ensure!(!read.is_empty() && read == made, "wrote {made:?}, read {read:?}");
        volumes::taken(client)
    })
}

/// Waits until the node says that the volume waits for room.
fn wait_held(client: &Client, node: &Node, writer: &mut Child) -> Result<()> {
    let volume = client.field(&["volume", "show", names::VOLUME], "id")?;
    let told = |line: &str| line.contains("volumes_waiting") && line.contains(&volume);
    let since = Instant::now();
    while !node.status()?.lines().any(told) {
        ensure!(writer.try_wait()?.is_none(), "the guest's write ended before the disk was full");
        ensure!(since.elapsed() < HELD_MAX, "the node does not say that the volume waits for room");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// The API goes on, and refuses as clearly as ever.
fn meanwhile(client: &Client, bench: &Bench) -> Result<()> {
    let status = client.field(&["server", "show", names::SERVER_A], "status")?;
    ensure!(status == "ACTIVE", "the server is {status}");
    let status = client.field(&["volume", "show", names::VOLUME], "status")?;
    ensure!(status == "in-use", "the volume is {status}");
    input::overlap(client)?;
    space::refused(client, "raw", &bench.file("large.raw"))
}

fn finish(mut writer: Child) -> Result<()> {
    let since = Instant::now();
    while writer.try_wait()?.is_none() {
        ensure!(since.elapsed() < DONE_MAX, "the guest's write still waits");
        std::thread::sleep(Duration::from_millis(200));
    }
    let done = writer.wait_with_output().context("the guest's writer")?;
    let said = String::from_utf8_lossy(&done.stdout);
    ensure!(done.status.success() && said.trim() == "written", "the guest's write failed: {}", done.status);
    Ok(())
}
