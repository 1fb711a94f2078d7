//! Disks that hold somebody else's data: named as such, not used, and not a byte of them written.

use anyhow::{Context, Result, ensure};

use crate::dev::{Foreign, Node, devices_of};

/// The node has seen them at its start, and works with its others.
pub fn untouched(node: &Node) -> Result<()> {
    let status = node.status()?;
    for disk in Foreign::all(node.dir()) {
        let device = devices_of(&disk.file)?.pop().context("a foreign disk is not attached")?;
        let name = format!("device={} ", device.display());
        let line = status.lines().find(|l| l.contains(&name)).with_context(|| {
            format!("the status does not name {} ({}):\n{status}", device.display(), disk.holds)
        })?;
        let why = format!("not used: it holds {}", disk.holds);
        ensure!(line.contains(&why), "the status does not say {why:?}: {line}");
        disk.check()?;
    }
    Ok(())
}
