//! The disks of a development node: sparse files behind loop devices.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use image_builder::exec;

use super::foreign::Foreign;

/// How many data disks a node has, and the size of each in bytes (sparse).
const COUNT: usize = 2;
const SIZE: u64 = 20 << 30;

/// Attaches the node's disks, making those that aren't there yet, and the foreign ones before them. Devices left over
/// from before are used again.
pub fn attach(dir: &Path) -> Result<Vec<PathBuf>> {
    for disk in Foreign::all(dir) {
        disk.prepare()?;
    }
    for file in own(dir) {
        let image = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&file)?;
        if image.metadata()?.len() < SIZE {
            image.set_len(SIZE).with_context(|| format!("cannot make {}", file.display()))?;
        }
    }
    files(dir).iter().map(|file| attach_one(file)).collect()
}

fn own(dir: &Path) -> impl Iterator<Item = PathBuf> {
    (0..COUNT).map(|n| dir.join(format!("disk{n}.img")))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    Foreign::all(dir).into_iter().map(|d| d.file).chain(own(dir)).collect()
}

fn attach_one(file: &Path) -> Result<PathBuf> {
    if let Some(device) = devices_of(file)?.pop() {
        return Ok(device);
    }
    let mut losetup = Command::new("losetup");
    losetup.args(["--find", "--show", "--partscan"]).arg(file);
    Ok(exec::output(&mut losetup)?.trim().into())
}

/// Detaches the node's disks; their files stay.
pub fn detach(dir: &Path) -> Result<()> {
    for file in files(dir) {
        for device in devices_of(&file)? {
            exec::run(Command::new("losetup").arg("--detach").arg(&device))?;
        }
    }
    Ok(())
}

/// The devices that show this file.
pub fn devices_of(file: &Path) -> Result<Vec<PathBuf>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let mut losetup = Command::new("losetup");
    losetup.args(["--noheadings", "--raw", "--output", "NAME", "--associated"]).arg(file);
    Ok(exec::output(&mut losetup)?.lines().map(|l| PathBuf::from(l.trim())).collect())
}
