//! A data disk for a bench: XFS that shares blocks, on a loop device of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cairn_shards::format::MARKER;

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
        run("mkfs.xfs", &["-q", "-m", "reflink=1", &image.display().to_string()])?;
        let [image, to] = [&image, &mounted].map(|path| path.display().to_string());
        run("mount", &["-t", "xfs", "-o", "loop,noatime", &image, &to])?;
        let marker = r#"{"format":1,"disk":"disk","cloud":"bench"}"#;
        std::fs::write(mounted.join(MARKER), marker)?;
        Ok(LoopDisk { disks })
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let mounted = self.disks.join("disk").display().to_string();
        if let Err(e) = run("umount", &[&mounted]) {
            image_builder::stage::say(&format!("  {e:#}"));
        }
    }
}

/// Removes what a run left.
pub fn clear(files: &Path) -> Result<()> {
    let mounted = files.join("disks/disk");
    if mounted.join(MARKER).exists() {
        run("umount", &[&mounted.display().to_string()])?;
    }
    if files.exists() { std::fs::remove_dir_all(files).context("cannot clean up") } else { Ok(()) }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("{program} cannot be run"))?;
    ensure!(status.success(), "{program} {} failed (root is needed)", arguments.join(" "));
    Ok(())
}
