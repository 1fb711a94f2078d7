//! Small real data disks: XFS with shared blocks on loop devices. Needs root and loop devices.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A file system that is mounted until this is dropped.
pub struct Mounted {
    image: PathBuf,
    at: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

impl Mounted {
    /// Mounts a fresh file system of so many bytes (300 MiB at least), in this image file; `Err` says what this machine
    /// lacks.
    pub fn new(image: &Path, at: &Path, size: u64) -> Result<Mounted, String> {
        std::fs::File::create(image).unwrap().set_len(size).unwrap();
        std::fs::create_dir_all(at).unwrap();
        run("mkfs.xfs", &["-q", "-m", "reflink=1", image.to_str().unwrap()])?;
        Mounted::again(image, at)
    }

    /// Mounts the one that is in the image file.
    pub fn again(image: &Path, at: &Path) -> Result<Mounted, String> {
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()])?;
        Ok(Mounted { image: image.into(), at: at.into() })
    }

    /// It fails as a disk does that is pulled: from now on nothing of it can be read or written, and what was not
    /// flushed is lost.
    pub fn fail(&self) -> Result<(), String> {
        run("xfs_io", &["-x", "-c", "shutdown", self.at.to_str().unwrap()])
    }

    /// Writes back all that is in its cache.
    pub fn sync(&self) -> Result<(), String> {
        run("sync", &["--file-system", self.at.to_str().unwrap()])
    }

    /// It comes back.
    pub async fn remount(&mut self) -> Result<(), String> {
        let (image, at) = (self.image.to_str().unwrap(), self.at.to_str().unwrap());
        let mut unmounted = Ok(());
        for _ in 0..300 {
            unmounted = run("umount", &[at]);
            if unmounted.is_ok() {
                return run("mount", &["-o", "loop", image, at]);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        unmounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Threads of an export may hold files for another moment.
        for _ in 0..200 {
            if run("umount", &[self.at.to_str().unwrap()]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // After a failure somebody still has files there; it goes with them.
        let _ = run("umount", &["--lazy", self.at.to_str().unwrap()]);
    }
}

/// Says that a test is left out, where this machine lacks what it needs.
pub fn or_skip<T>(mounted: Result<T, String>) -> Option<T> {
    mounted.inspect_err(|why| println!("SKIPPED, not tested here: no loop-mounted XFS: {why}")).ok()
}
