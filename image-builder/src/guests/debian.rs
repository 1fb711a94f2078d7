//! `debian.qcow2`: Debian with cloud-init for people, built by mkosi from `image-builder/guests/debian`.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::apt::RELEASE;
use crate::initrd;
use crate::mkosi::{self, Image};
use crate::paths::ensure_dir;
use crate::stage::{Inputs, Stages};

/// Builds `target/image/guests/debian.qcow2` if what it is made of changed; returns its path.
pub fn build(stages: &mut Stages) -> Result<PathBuf> {
    let initrd = initrd::build(stages)?;
    let paths = stages.paths().clone();
    let image = paths.guests().join("debian.qcow2");
    let inputs =
        Inputs::new().text(RELEASE).tree(&paths.crate_dir().join("guests/debian"))?.big_file(&initrd)?;
    stages.run_if_changed("debian guest", &inputs, &[&image], |step| {
        let args = vec!["--initrd".to_owned(), initrd.display().to_string()];
        mkosi::build(&paths, step, &Image { config: "guests/debian", output: "debian", args })?;
        let out = mkosi::out_dir(&paths);
        let (raw, compressed) = (out.join("debian.raw"), out.join("debian.qcow2"));
        step.note("compressing");
        step.exec(
            mkosi::tool(&paths, "qemu-img")?.args(["convert", "-c", "-O", "qcow2"]).args([&raw, &compressed]),
        )?;
        ensure_dir(paths.guests())?;
        fs::rename(&compressed, &image)?;
        fs::remove_file(&raw)?;
        Ok(())
    })?;
    Ok(image)
}
