//! The appliance's userland as a folder, `target/image/root`: all packages and all configuration, without
//! the cairn binary. A development node enters it by namespaces, and the ISO's root partition is made of it,
//! so what is tested daily is what boots.
//!
//! Replaces the tree as a whole by renaming; it must never change one in place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::RELEASE;
use crate::mkosi::{self, Image};
use crate::paths::Paths;
use crate::stage::{Inputs, Stages};

/// Builds the tree if what it is made of changed; returns its path.
pub fn build(stages: &mut Stages) -> Result<PathBuf> {
    mkosi::obtain(stages)?;
    let paths = stages.paths().clone();
    let tree = paths.root_tree();
    stages.run_if_changed("root tree", &inputs(&paths)?, &[&tree], |step| {
        let image = Image { config: "mkosi/root", output: "root", args: Vec::new() };
        let built = mkosi::build(&paths, step, &image)?;
        step.note("putting it in place");
        replace(&built, &tree)
    })?;
    Ok(tree)
}

/// What the tree is made of; the ISO's inputs begin with it.
pub fn inputs(paths: &Paths) -> Result<Inputs> {
    Inputs::new().text(RELEASE).tree(&paths.crate_dir().join("mkosi/root"))
}

/// Puts a freshly built folder where an older one may be.
fn replace(built: &Path, place: &Path) -> Result<()> {
    let old = place.with_extension("old");
    if old.exists() {
        fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    if place.exists() {
        fs::rename(place, &old)?;
    }
    fs::rename(built, place).with_context(|| format!("cannot put {} in place", place.display()))?;
    if old.exists() {
        fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(())
}
