//! mkosi of the image's own release: obtained as a Debian package, unpacked, and run by the host's python
//! with a tools tree, so that a Debian 12 host builds what a Debian 13 host builds.
//!
//! Writes under `target/image/cache` and installs nothing on the host.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, AptRoot, RELEASE};
use crate::chroot;
use crate::exec;
use crate::paths::{Paths, ensure_dir};
use crate::stage::{Inputs, Stages, Step};

/// The time stamp of every file in an image: builds of the same inputs give the same bytes.
pub const EPOCH: &str = "1735689600";

/// One image that mkosi builds.
pub struct Image<'a> {
    /// The folder of its configuration, under `image-builder/`.
    pub config: &'a str,
    /// The name of the output in `target/image/cache/out`.
    pub output: &'a str,
    /// Further arguments.
    pub args: Vec<String>,
}

/// Gets mkosi and builds the tools tree, unless both are here.
pub fn obtain(stages: &mut Stages) -> Result<()> {
    let paths = stages.paths().clone();
    let package = package_dir(&paths);
    let program = package.join("usr/lib/python3/dist-packages/mkosi/__init__.py");
    stages.run_if_changed("mkosi", &Inputs::new().text(RELEASE), &[&program], |step| {
        let apt = AptRoot::open(&paths, step)?;
        apt.unpack(step, &["mkosi"], &package)
    })?;
    let inputs = Inputs::new().text(RELEASE).tree(&paths.crate_dir().join("mkosi/tools"))?;
    stages.run_if_changed("tools tree", &inputs, &[&tools_tree(&paths)], |step| {
        let image = Image { config: "mkosi/tools", output: "tools", args: Vec::new() };
        build_without_tools(&paths, step, &image)?;
        Ok(())
    })?;
    Ok(())
}

/// Builds an image with the tools tree; returns the path of its main output.
pub fn build(paths: &Paths, step: &Step, image: &Image) -> Result<PathBuf> {
    let sandbox = apt::sandbox(paths)?;
    let mut command = command(paths, &sandbox, image)?;
    command.arg("--tools-tree").arg(tools_tree(paths));
    command.arg("--tools-tree-sandbox-tree").arg(format!("{}:/", sandbox.display()));
    finish(paths, step, image, command)
}

/// A command that runs a program of the tools tree.
pub fn tool(paths: &Paths, program: &str) -> Result<Command> {
    chroot::command(paths, &tools_tree(paths), program)
}

/// Where mkosi puts what it builds.
pub fn out_dir(paths: &Paths) -> PathBuf {
    paths.cache().join("out")
}

fn build_without_tools(paths: &Paths, step: &Step, image: &Image) -> Result<PathBuf> {
    let sandbox = apt::sandbox(paths)?;
    finish(paths, step, image, command(paths, &sandbox, image)?)
}

fn finish(paths: &Paths, step: &Step, image: &Image, mut command: Command) -> Result<PathBuf> {
    command.args(&image.args).args(["--force", "build"]);
    step.exec(&mut command)?;
    Ok(out_dir(paths).join(image.output))
}

fn command(paths: &Paths, sandbox: &Path, image: &Image) -> Result<Command> {
    let cache = paths.cache();
    let config = paths.crate_dir().join(image.config);
    let mut command = exec::command("/usr/bin/python3", ["-m", "mkosi"]);
    command
        .env("PYTHONPATH", package_dir(paths).join("usr/lib/python3/dist-packages"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(paths.crate_dir())
        .arg("--directory")
        .arg(config)
        .args(["--distribution", "debian", "--release", RELEASE, "--architecture", "x86-64"])
        .args(["--incremental", "yes", "--source-date-epoch", EPOCH])
        .args(["--output", image.output])
        .arg("--output-directory")
        .arg(ensure_dir(out_dir(paths))?)
        .arg("--cache-directory")
        // One each: images of the same distribution would take each other's place in it.
        .arg(ensure_dir(cache.join("build").join(image.output))?)
        .arg("--package-cache-dir")
        .arg(ensure_dir(cache.join("packages"))?)
        .arg("--workspace-directory")
        .arg(ensure_dir(cache.join("work"))?)
        .arg("--sandbox-tree")
        .arg(format!("{}:/", sandbox.to_str().context("the workspace's path is not UTF-8")?));
    Ok(command)
}

fn tools_tree(paths: &Paths) -> PathBuf {
    out_dir(paths).join("tools")
}

fn package_dir(paths: &Paths) -> PathBuf {
    paths.cache().join("mkosi")
}
