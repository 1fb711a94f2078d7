//! The initrd that the appliance and the Debian guest share: built once, without kernel modules
//! (each image adds those of its own kernel).

use std::path::PathBuf;

use anyhow::Result;

use crate::apt::RELEASE;
use crate::mkosi::{self, Image};
use crate::stage::{Inputs, Stages};

/// Builds the initrd if what it is made of changed; returns its path.
pub fn build(stages: &mut Stages) -> Result<PathBuf> {
    mkosi::obtain(stages)?;
    let paths = stages.paths().clone();
    let initrd = mkosi::out_dir(&paths).join("initrd");
    let inputs = Inputs::new().text(RELEASE).tree(&paths.crate_dir().join("mkosi/initrd"))?;
    stages.run_if_changed("initrd", &inputs, &[&initrd], |step| {
        let image = Image { config: "mkosi/initrd", output: "initrd", args: Vec::new() };
        mkosi::build(&paths, step, &image).map(drop)
    })?;
    Ok(initrd)
}
