//! The real clients that the tests use, each in a Python environment of its own under `target/tools`, pinned by a
//! requirements file of the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use image_builder::{Paths, exec};

/// An environment with the packages of `requirements` (a path below the workspace); made on the first call, made
/// anew when the file changes. Gives its `bin` folder.
pub fn python_env(paths: &Paths, name: &str, requirements: &str) -> Result<PathBuf> {
    let dir = paths.workspace().join("target/tools").join(name);
    let wanted = paths.workspace().join(requirements);
    let text = fs::read_to_string(&wanted).with_context(|| format!("cannot read {requirements}"))?;
    let stamp = dir.join("requirements.installed");
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&text) {
        make(&dir, &wanted).with_context(|| format!("cannot install the packages of {requirements}"))?;
        fs::write(&stamp, text)?;
    }
    Ok(dir.join("bin"))
}

fn make(dir: &Path, requirements: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    exec::run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    let mut pip = Command::new(dir.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"])
        .arg(requirements);
    exec::run(&mut pip)
}
