//! Where a node keeps things. The one place that spells these paths; no I/O here but creating the folders.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{User, fchown};

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
    /// The node's own secrets: its key, and its marks of the cloud. Readable by root alone.
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

    /// What root hands the controller (the node's key, the hash of the administrator's secret, what a cloud is founded
    /// with), and what the controller tells root.
    pub fn handover(&self) -> PathBuf {
        self.run.join("controller")
    }

    /// Whom to trust of other nodes, kept fresh by the controller for the roles that talk to them.
    pub fn trust(&self) -> PathBuf {
        self.run.join("trust.json")
    }

    /// When the node was last in touch with its cloud, kept by the controller for all roles.
    pub fn alive(&self) -> PathBuf {
        self.run.join("alive")
    }

    /// Where the controller takes the operator's orders.
    pub fn operator_socket(&self) -> PathBuf {
        self.handover().join("operator.sock")
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
    write(path, bytes, |file| file.set_permissions(Permissions::from_mode(mode)))
}

/// As [`write_file`], readable by this user's group beside its owner, whatever group the folder gives. Where that user
/// doesn't exist, roles run as root and the group is of no interest.
pub fn write_file_for(path: &Path, bytes: &[u8], user: &str) -> io::Result<()> {
    let group = User::from_name(user)?.map(|user| user.gid);
    write(path, bytes, |file| {
        if group.is_some() {
            fchown(file, None, group)?;
        }
        file.set_permissions(Permissions::from_mode(0o640))
    })
}

/// Nobody but the owner reads the file before it is as it shall be.
fn write(path: &Path, bytes: &[u8], finish: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    finish(&file)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
