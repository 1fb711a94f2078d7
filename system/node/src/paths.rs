//! Where a node keeps things. The one place that spells these paths; no I/O here but creating the folders.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The folders of a node.
#[derive(Debug, Clone)]
pub struct Paths {
    /// What outlives a reboot: `/var/lib/cairn`, the state partition.
    pub state: PathBuf,
    /// What doesn't: `/run/cairn`.
    pub run: PathBuf,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { state: "/var/lib/cairn".into(), run: "/run/cairn".into() }
    }
}

impl Paths {
    /// The node's own secrets: key, CA. Readable by root alone.
    pub fn node(&self) -> PathBuf {
        self.state.join("node")
    }

    /// Where data disks are mounted, each under its disk id.
    pub fn disks(&self) -> PathBuf {
        self.state.join("disks")
    }

    /// What a role keeps: its ledger, and the controller's store.
    pub fn role(&self, role: &str) -> PathBuf {
        self.state.join(role)
    }

    /// The replicated store's file.
    pub fn store(&self) -> PathBuf {
        self.role("controller").join("store.redb")
    }

    /// What the controller needs of the node's secrets: server certificate and key, CA certificate, the hash of
    /// the administrator's secret.
    pub fn handover(&self) -> PathBuf {
        self.run.join("controller")
    }

    /// The store's socket.
    pub fn state_socket(&self) -> PathBuf {
        self.run.join("state.sock")
    }
}

/// Makes a folder (and its parents) with these permission bits.
pub fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Writes a file whole or not at all, on stable media when this returns.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = std::fs::remove_file(&new);
    {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
