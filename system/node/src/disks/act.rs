//! Does what was planned: partitions, makes file systems, mounts, writes marker files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::unistd::{User, chown};

use super::plan::Step;
use super::probe::Partition;
use super::{DiskError, TYPE_DATA, TYPE_STATE};
use crate::paths::{self, Paths};
use crate::program;

/// How long the kernel may take to show a new partition.
const NODE_WAIT: Duration = Duration::from_secs(20);
/// The file that makes a file system one of ours.
pub(crate) const MARKER: &str = "cairn-disk.json";

/// Writes the partition table of an empty disk. The labels say `new` until the file systems are ready.
pub fn partition(step: &Step) -> Result<(), DiskError> {
    let Step::Partition { device, state } = step else { return Ok(()) };
    tracing::info!(device = %device.path.display(), "adopting an empty disk");
    let mut script = String::from("label: gpt\n");
    let mut nodes = 1;
    if let Some(bytes) = state {
        script += &format!("size={}, type={TYPE_STATE}, name=\"cairn-new-state\"\n", bytes / 512);
        nodes = 2;
    }
    script += &format!("type={TYPE_DATA}, name=\"cairn-new-data\"\n");
    program::run_with_input(
        "sfdisk",
        &["--quiet", "--wipe", "never", &device.path.to_string_lossy()],
        &script,
    )?;
    wait_for(&device.path, &node(&device.path, nodes))
}

/// The device node of a partition: `vdb1`, but `nvme0n1p1` after a digit.
fn node(disk: &Path, number: u32) -> PathBuf {
    let disk = disk.to_string_lossy();
    let infix = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("{disk}{infix}{number}"))
}

/// Waits for a partition's node. A kernel that cannot read GPT itself is told by partx.
fn wait_for(disk: &Path, node: &Path) -> Result<(), DiskError> {
    let since = Instant::now();
    if !node.exists() {
        program::run("partx", &["--update", &disk.to_string_lossy()])?;
    }
    while !node.exists() {
        if since.elapsed() > NODE_WAIT {
            let e = io::Error::from(io::ErrorKind::TimedOut);
            return Err(DiskError::Io { what: format!("waiting for {}", node.display()), source: e });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Finishes the state partition if need be and mounts it.
pub fn mount_state(paths: &Paths, step: &Step) -> Result<(), DiskError> {
    let Step::Mount { device, partition, .. } = step else { return Ok(()) };
    make_file_system(&device.path, partition, "cairn-state")?;
    mount_xfs(&partition.path, &paths.state)?;
    finish(&device.path, partition, "cairn-state")
}

/// Finishes a data partition if need be and mounts it; says what it is used for. A new one is marked with the first of
/// the clouds' ids.
pub fn mount_data(paths: &Paths, step: &Step, clouds: &[String]) -> Result<String, DiskError> {
    let Step::Mount { device, partition, .. } = step else { return Ok(String::new()) };
    make_file_system(&device.path, partition, "cairn-data")?;
    let dir = paths.disks().join(&partition.id);
    mount_xfs(&partition.path, &dir)?;
    let marker = dir.join(MARKER);
    if !partition.finished {
        let text =
            serde_json::json!({"format": 1, "disk": partition.id, "cloud": clouds.first()}).to_string();
        paths::write_file(&marker, text.as_bytes(), 0o644)
            .map_err(DiskError::io("writing the disk's marker"))?;
    }
    let text = fs::read_to_string(&marker).map_err(DiskError::io("reading the disk's marker"))?;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    if !clouds.iter().any(|cloud| value["cloud"] == *cloud) {
        let _ = nix::mount::umount(&dir);
        return Ok("not used: it belongs to another cloud".into());
    }
    finish(&device.path, partition, "cairn-data")?;
    give(&dir, "cairn-storage").map_err(DiskError::io("handing the disk to the storage role"))?;
    Ok("data".into())
}

/// Makes the file system, unless the partition was finished before.
fn make_file_system(disk: &Path, partition: &Partition, label: &str) -> Result<(), DiskError> {
    wait_for(disk, &partition.path)?;
    if partition.finished {
        return Ok(());
    }
    let path = partition.path.to_string_lossy();
    // The label still says `new`: whatever is here is our own unfinished work.
    program::run("mkfs.xfs", &["-q", "-f", "-m", "reflink=1,crc=1", "-L", label, &path]).map(drop)?;
    Ok(())
}

/// Marks a partition as finished, by its label.
fn finish(disk: &Path, partition: &Partition, label: &str) -> Result<(), DiskError> {
    if partition.finished {
        return Ok(());
    }
    let number = partition.number.to_string();
    let disk = disk.to_string_lossy();
    program::run(
        "sfdisk",
        &["--quiet", "--no-reread", "--no-tell-kernel", "--force", "--part-label", &disk, &number, label],
    )?;
    Ok(())
}

fn mount_xfs(device: &Path, at: &Path) -> Result<(), DiskError> {
    paths::make_dir(at, 0o755).map_err(DiskError::io(format!("making {}", at.display())))?;
    if is_mounted(device, at)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some(device), at, Some("xfs"), flags, None::<&str>)
        .map_err(|e| DiskError::Io { what: format!("mounting {}", device.display()), source: e.into() })
}

fn is_mounted(device: &Path, at: &Path) -> Result<bool, DiskError> {
    let table = fs::read_to_string("/proc/self/mounts").map_err(DiskError::io("reading the mount table"))?;
    let (device, at) = (device.to_string_lossy(), at.to_string_lossy());
    Ok(table.lines().any(|line| line.starts_with(&format!("{device} {at} "))))
}

/// Gives a folder to a user; where that user doesn't exist, roles run as root and nothing is to be done.
pub(crate) fn give(dir: &Path, user: &str) -> io::Result<()> {
    if let Some(user) = User::from_name(user)? {
        chown(dir, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// Gives a folder to a user's group.
pub(crate) fn give_group(dir: &Path, user: &str) -> io::Result<()> {
    if let Some(user) = User::from_name(user)? {
        chown(dir, None, Some(user.gid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_nodes_are_named_as_the_kernel_does() {
        assert_eq!(node(Path::new("/dev/vdb"), 1), Path::new("/dev/vdb1"));
        assert_eq!(node(Path::new("/dev/nvme0n1"), 2), Path::new("/dev/nvme0n1p2"));
        assert_eq!(node(Path::new("/dev/loop7"), 1), Path::new("/dev/loop7p1"));
    }
}
