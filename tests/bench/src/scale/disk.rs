//! A data disk for a bench: XFS that shares blocks, on a loop device of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cairn_shards::format::MARKER;
use image_builder::exec;

use crate::volume::node::mark;

/// Bytes of the disk; what is not used takes no room.
const SIZE: u64 = 2 << 40;

/// A disk that is mounted. Dropping it unmounts it.
pub struct LoopDisk {
    /// What holds the disk's directory.
    pub disks: PathBuf,
}

impl LoopDisk {
    /// Makes and mounts one.
    pub fn make(files: &Path) -> Result<LoopDisk> {
        let (disks, image) = (files.join("disks"), files.join("disk.img"));
        let mounted = disks.join("disk");
        std::fs::create_dir_all(&mounted)?;
        std::fs::File::create(&image)?.set_len(SIZE)?;
        exec::run(exec::command("mkfs.xfs", ["-q", "-m", "reflink=1"]).arg(&image))?;
        exec::run(exec::command("mount", ["-t", "xfs", "-o", "loop,noatime"]).arg(&image).arg(&mounted))?;
        mark(&mounted, "disk")?;
        Ok(LoopDisk { disks })
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if let Err(e) = exec::run(&mut exec::command("umount", [self.disks.join("disk")])) {
            image_builder::stage::say(&format!("  {e:#}"));
        }
    }
}

/// Removes what a run left.
pub fn clear(files: &Path) -> Result<()> {
    let mounted = files.join("disks/disk");
    if mounted.join(MARKER).exists() {
        exec::run(&mut exec::command("umount", [&mounted]))?;
    }
    if files.exists() { std::fs::remove_dir_all(files).context("cannot clean up") } else { Ok(()) }
}
