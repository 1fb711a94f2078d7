//! The disks of a development node: sparse files behind loop devices.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use image_builder::exec;

/// How many data disks a node has, and the size of each in bytes (sparse).
const COUNT: usize = 2;
const SIZE: u64 = 20 << 30;

/// Attaches the node's disks, making those that aren't there yet. Devices left over from before are used again.
pub fn attach(dir: &Path) -> Result<Vec<PathBuf>> {
    (0..COUNT).map(|n| attach_one(&dir.join(format!("disk{n}.img")))).collect()
}

fn attach_one(file: &Path) -> Result<PathBuf> {
    if let Some(device) = devices_of(file)?.pop() {
        return Ok(device);
    }
    let image = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(file)?;
    if image.metadata()?.len() < SIZE {
        image.set_len(SIZE).with_context(|| format!("cannot make {}", file.display()))?;
    }
    let mut losetup = Command::new("losetup");
    losetup.args(["--find", "--show", "--partscan"]).arg(file);
    Ok(exec::output(&mut losetup)?.trim().into())
}

/// Detaches the node's disks; their files stay.
pub fn detach(dir: &Path) -> Result<()> {
    for n in 0..COUNT {
        for device in devices_of(&dir.join(format!("disk{n}.img")))? {
            exec::run(Command::new("losetup").arg("--detach").arg(&device))?;
        }
    }
    Ok(())
}

fn devices_of(file: &Path) -> Result<Vec<PathBuf>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let mut losetup = Command::new("losetup");
    losetup.args(["--noheadings", "--raw", "--output", "NAME", "--associated"]).arg(file);
    Ok(exec::output(&mut losetup)?.lines().map(|l| PathBuf::from(l.trim())).collect())
}
