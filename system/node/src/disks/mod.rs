//! The disks of a node: finds the state partition, adopts empty disks, mounts what is ours.
//!
//! [`probe`] looks, [`plan`] decides (pure), [`act`] does; [`health`] asks disks how they are. A disk that holds anything not put there by Cairn is
//! never written to: it is only named in the [`Report`]. An adoption cut short by a power failure is finished at
//! the next boot: until its marker file is on it, a partition carries a label that says so.

pub mod act;
pub mod health;
pub mod plan;
pub mod probe;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cloud;
use crate::paths::{self, Paths};
use crate::program::ProgramError;
use plan::Step;

/// The GPT partition type of the state partition (an id of Cairn's own).
pub const TYPE_STATE: &str = "C4A12B10-57A7-4E0F-8C1E-0F1D7A5B0001";
/// The GPT partition type of a data partition.
pub const TYPE_DATA: &str = "C4A12B10-57A7-4E0F-8C1E-0F1D7A5B0002";

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file or device could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// There is no disk to keep the node's state on.
    #[error(
        "no empty disk of at least 4 GiB to keep this node's state on; attach one (a disk that holds data is never touched)"
    )]
    NoDisk,
}

impl DiskError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> DiskError {
        let what = what.into();
        move |source| DiskError::Io { what, source }
    }
}

/// What was found and done, for the console screen and `cairn status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// One line per disk.
    pub disks: Vec<DiskLine>,
}

/// What became of one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLine {
    /// The device, as `/dev/vdb`.
    pub device: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it is used for, or why it isn't.
    pub use_: String,
}

/// Does the whole of it: mounts the state partition at its place, then every data partition under
/// [`Paths::disks`]. With `only`, no other device is even looked at.
pub fn prepare(paths: &Paths, only: &[PathBuf]) -> Result<Report, DiskError> {
    let devices = probe::devices(only)?;
    let mut report = Report::default();
    let steps = plan::plan(&devices)?;
    for step in steps.iter().filter(|s| matches!(s, Step::Partition { .. })) {
        act::partition(step)?;
    }
    let devices = probe::devices(only)?;
    let steps = plan::plan(&devices)?;
    for step in steps.iter().filter(|s| matches!(s, Step::Mount { state: true, .. })) {
        act::mount_state(paths, step)?;
    }
    let clouds = cloud::accepted(paths).map_err(DiskError::io("reading the cloud's id"))?;
    for step in &steps {
        if let Step::Mount { state: false, device, .. } = step {
            let use_ = act::mount_data(paths, step, &clouds).unwrap_or_else(|e| format!("not used: {e}"));
            report.disks.push(DiskLine {
                device: device.path.display().to_string(),
                size: device.size,
                use_,
            });
        }
        if let Step::Leave { device, why } = step {
            let use_ = format!("not used: {why}");
            report.disks.push(DiskLine {
                device: device.path.display().to_string(),
                size: device.size,
                use_,
            });
        }
    }
    save(paths, &report).map_err(DiskError::io("writing the disk report"))?;
    Ok(report)
}

/// The report of this boot, if disks were prepared.
pub fn last_report(paths: &Paths) -> Option<Report> {
    serde_json::from_slice(&std::fs::read(paths.run.join("node/disks.json")).ok()?).ok()
}

fn save(paths: &Paths, report: &Report) -> io::Result<()> {
    let dir = paths.run.join("node");
    paths::make_dir(&dir, 0o700)?;
    paths::write_file(&dir.join("disks.json"), &serde_json::to_vec(report)?, 0o600)
}
