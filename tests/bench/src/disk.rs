//! A file system for a bench as Cairn's data disks have it: XFS that shares blocks, on a loop device past the page cache
//! of what is below.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image_builder::exec;

/// Bytes of it; what is not used takes no room.
const SIZE: u64 = 2 << 40;

/// A file system that is mounted. Dropping it unmounts it.
pub struct LoopDisk {
    at: PathBuf,
}

impl LoopDisk {
    /// Makes one in this file, and mounts it.
    pub fn make(image: &Path, at: &Path) -> Result<LoopDisk> {
        std::fs::create_dir_all(at)?;
        File::create(image)?.set_len(SIZE)?;
        exec::run(exec::command("mkfs.xfs", ["-q", "-m", "reflink=1"]).arg(image))?;
        let device =
            exec::output(exec::command("losetup", ["--find", "--show", "--direct-io=on"]).arg(image))?;
        let device = device.trim();
        let mounted = exec::run(exec::command("mount", ["-t", "xfs", "-o", "noatime", device]).arg(at));
        // It goes with the last who uses it: the mount, or nobody.
        exec::run(&mut exec::command("losetup", ["--detach", device]))?;
        mounted?;
        Ok(LoopDisk { at: at.into() })
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if let Err(e) = exec::run(&mut exec::command("umount", [&self.at])) {
            image_builder::stage::say(&format!("  {e:#}"));
        }
    }
}

/// Removes the directory of a run that may have been killed, in which such a file system may be mounted.
pub fn clear(directory: &Path, at: &Path) -> Result<()> {
    if exec::succeeds(&mut exec::command("mountpoint", ["-q".as_ref(), at.as_os_str()])) {
        exec::run(&mut exec::command("umount", [at]))?;
    }
    if directory.exists() { std::fs::remove_dir_all(directory).context("cannot clean up") } else { Ok(()) }
}
