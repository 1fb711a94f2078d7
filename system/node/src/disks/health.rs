//! Asks the data disks of this node how they are (SMART), by smartctl. Only reads, and wakes no disk that sleeps.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use super::probe::{self, Content, Device};
use super::{DiskError, ProgramError};

/// Parts of smartctl's exit status that say that there is no answer; the others say what it is.
const UNANSWERED: i32 = 0b11;

/// Asks each disk with data partitions of ours, all at the same time: one that hangs keeps none from answering. `told` is
/// called with the id of each such partition and what smartctl says of the disk, as JSON. With `only`, no other disk is
/// asked.
pub fn ask(only: &[PathBuf], told: impl Fn(&str, &str) + Sync) -> Result<(), DiskError> {
    let devices = probe::devices(only)?;
    thread::scope(|scope| {
        let asked = |device: &Device| {
            let ids = data_partitions(device);
            let (path, told) = (device.path.clone(), &told);
            scope.spawn(move || match smartctl(&path) {
                Ok(said) => {
                    if let Some(said) = said {
                        ids.iter().for_each(|id| told(id, &said));
                    }
                    Ok(())
                }
                Err(e) => Err(e),
            })
        };
        let all: Vec<_> =
            devices.iter().filter(|device| !data_partitions(device).is_empty()).map(asked).collect();
        all.into_iter().filter_map(|asking| asking.join().ok()).collect()
    })
}

fn data_partitions(device: &Device) -> Vec<String> {
    match &device.content {
        Content::Ours(all) => all.iter().filter(|p| !p.state && p.finished).map(|p| p.id.clone()).collect(),
        Content::Blank | Content::Foreign(_) => Vec::new(),
    }
}

/// What smartctl says of a disk; `None` if it cannot be asked, as it sleeps or knows no such question.
fn smartctl(device: &Path) -> Result<Option<String>, DiskError> {
    let output = Command::new("smartctl")
        .args(["--json=c", "--all", "--nocheck=standby"])
        .arg(device)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|source| ProgramError::Start { program: "smartctl".into(), source })?;
    let answered = output.status.code().is_some_and(|code| code & UNANSWERED == 0);
    Ok(answered.then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}
