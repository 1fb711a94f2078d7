//! A folder with programs of Debian that are no part of the image: what tests and benches run beside it. Unpacked and not
//! installed, so that nothing of it is on the machine.
//!
//! Makes a folder once, by renaming it into place; it must never touch one that is there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::AptRoot;
use crate::paths::Paths;
use crate::stage::Step;

/// The root with these packages and all that they need, below `home`; got from the machine's mirror unless it is there.
/// `mounts` are empty folders in it.
pub fn root(paths: &Paths, home: &Path, name: &str, packages: &[&str], mounts: &[&str]) -> Result<PathBuf> {
    let root = home.join("root");
    if root.exists() {
        return Ok(root);
    }
    let step = Step::begin(&format!("{name} from Debian's packages"), home.join("logs"));
    let made = unpack(paths, &step, packages, mounts, &home.join("root.new"));
    step.end(&made);
    made.with_context(|| {
        format!("{name} is not there: its packages are got from the machine's Debian mirror")
    })?;
    fs::rename(home.join("root.new"), &root)?;
    Ok(root)
}

fn unpack(paths: &Paths, step: &Step, packages: &[&str], mounts: &[&str], root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    for part in ["usr", "etc", "dev", "proc", "tmp", "run"].iter().chain(mounts) {
        fs::create_dir_all(root.join(part))?;
    }
    for part in ["bin", "sbin", "lib", "lib64"] {
        symlink(Path::new("usr").join(part), root.join(part))?;
    }
    AptRoot::open(paths, step)?.unpack_whole(step, packages, root)?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    for part in ["doc", "man", "locale"] {
        let unread = root.join("usr/share").join(part);
        if unread.exists() {
            fs::remove_dir_all(unread)?;
        }
    }
    Ok(())
}
