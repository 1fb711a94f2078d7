//! A node's data disk: XFS on a loop device on a [`Disk`]. All mounts are in a namespace of the checker's own, so that
//! the kernel takes them away with its last process, however that ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use image_builder::exec;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};

use crate::dice::Dice;
use crate::disk::{Cut, Disk};
use crate::fuse;

/// How long a file system may take to go.
const PATIENCE: Duration = Duration::from_secs(40);
/// Bytes of a disk: about the least that XFS takes.
const SIZE: u64 = 320 << 20;

/// Mounts and ports are this process's and its children's own from now on: no other takes a port while its node is
/// down. To be done while it has one thread.
pub fn enclose() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("no namespaces; this needs root")?;
    exec::run(&mut exec::command("ip", ["link", "set", "lo", "up"]))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("mounts are not made private")
}

/// A mounted disk.
pub struct FileSystem {
    pub disk: Arc<Disk>,
    image: PathBuf,
    at: PathBuf,
}

impl FileSystem {
    /// An empty one, mounted below a directory.
    pub fn make(directory: &Path, at: &Path) -> Result<FileSystem> {
        std::fs::create_dir_all(at)?;
        let (disk, image) = (Arc::new(Disk::new(SIZE)?), directory.join("disk"));
        fuse::serve(disk.clone(), &image)?;
        let made = FileSystem { disk, image, at: at.to_owned() };
        let format = ["-q", "-K", "-f", "-m", "reflink=1"].map(String::from);
        exec::run(exec::command("mkfs.xfs", format).arg(&made.image))?;
        made.mount()?;
        Ok(made)
    }

    pub fn at(&self) -> &Path {
        &self.at
    }

    fn mount(&self) -> Result<()> {
        exec::run(exec::command("mount", ["-t", "xfs", "-o", "loop,noatime"]).arg(&self.image).arg(&self.at))
    }

    /// The power is cut: what was in the page cache is gone, and of what was in the disk's, what it likes.
    /// Nobody has a file of it open any more.
    pub fn cut(&self) -> Result<()> {
        self.disk.set(|faults| faults.off = true);
        // It may have shut itself down for errors.
        drop(exec::output(exec::command("xfs_io", ["-x", "-c", "shutdown"]).arg(&self.at)));
        let deadline = Instant::now() + PATIENCE;
        while let Err(e) = umount(&self.at) {
            ensure!(Instant::now() < deadline, "{} is not unmounted: {e}", self.at.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        while self.disk.is_open() {
            ensure!(Instant::now() < deadline, "the loop device of {} stays", self.at.display());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The power is back.
    pub fn restore(&self, dice: &mut Dice) -> Result<Cut> {
        let cut = self.disk.power_on(dice)?;
        self.mount()?;
        Ok(cut)
    }

    /// Fills it up but for so many bytes.
    pub fn fill(&self, left: u64) -> Result<()> {
        let stat = nix::sys::statvfs::statvfs(&self.at)?;
        let free = stat.blocks_available() * stat.fragment_size();
        let ballast = File::create(self.at.join("ballast"))?;
        let flags = nix::fcntl::FallocateFlags::empty();
        let len = free.saturating_sub(left);
        Ok(nix::fcntl::fallocate(&ballast, flags, 0, len as i64)?)
    }

    /// There is room again.
    pub fn drain(&self) -> Result<()> {
        let ballast = self.at.join("ballast");
        if ballast.exists() { Ok(std::fs::remove_file(ballast)?) } else { Ok(()) }
    }

    /// Gives it back in order.
    pub fn end(&self) -> Result<()> {
        self.disk.set(|faults| *faults = crate::disk::Faults::default());
        if self.disk.is_open() {
            umount(&self.at)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while let Err(e) = umount(&self.image) {
            ensure!(Instant::now() < deadline, "{} is not unmounted: {e}", self.image.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
