//! `cairn.iso`: the root tree plus the cairn binary as a verity-checked, read-only root partition, one EFI
//! program that holds kernel, initrd and command line, and a hybrid header so that the same file boots from a
//! CD-ROM and from a USB stick. ISO.md describes the result.
//!
//! mkosi does the work from `image-builder/mkosi/iso`; packages were installed with the root tree and are not
//! touched here, so that a changed binary costs only the copy and the compression.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::exec;
use crate::hybrid;
use crate::initrd;
use crate::mkosi::{self, Image};
use crate::paths::{Paths, ensure_dir};
use crate::root_tree;
use crate::stage::{Stages, Step};

/// Compiles `target/release/cairn`; cargo knows what there is to do.
pub fn compile(stages: &mut Stages) -> Result<PathBuf> {
    let paths = stages.paths().clone();
    // The witness is for other machines, and costs nothing beside.
    let packages = ["build", "--release", "--package", "cairn", "--package", "cairn-witness"];
    stages.run("compile cairn", |step| step.exec(&mut exec::cargo(paths.workspace(), &packages)))?;
    Ok(paths.cairn())
}

/// Builds `target/image/cairn.iso` around the given cairn binary; returns its path.
pub fn build(stages: &mut Stages, cairn: &Path) -> Result<PathBuf> {
    let root = root_tree::build(stages)?;
    let initrd = initrd::build(stages)?;
    let paths = stages.paths().clone();
    let iso = paths.iso();
    ensure!(cairn.is_file(), "there is no {}: build it first", cairn.display());
    let inputs = root_tree::inputs(&paths)?
        .tree(&paths.crate_dir().join("mkosi/iso"))?
        .text(include_str!("hybrid.rs"))
        .big_file(&initrd)?
        .tree(cairn)?;
    stages.run_if_changed("iso", &inputs, &[&iso], |step| make(&paths, step, &root, &initrd, cairn))?;
    Ok(iso)
}

fn make(paths: &Paths, step: &Step, root: &Path, initrd: &Path, cairn: &Path) -> Result<()> {
    let extra = paths.cache().join("iso-extra");
    let binary = ensure_dir(extra.join("usr/bin"))?.join("cairn");
    fs::copy(cairn, &binary).with_context(|| format!("cannot copy {}", cairn.display()))?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    let packages = mkosi::out_dir(paths).join("root.manifest");
    fs::copy(packages, ensure_dir(extra.join("usr/share/cairn"))?.join("packages.json"))?;
    let args = vec![
        "--base-tree".to_owned(),
        root.display().to_string(),
        "--extra-tree".to_owned(),
        format!("{}:/", extra.display()),
        "--initrd".to_owned(),
        initrd.display().to_string(),
        "--image-version".to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    ];
    mkosi::build(paths, step, &Image { config: "mkosi/iso", output: "cairn", args })?;
    let raw = mkosi::out_dir(paths).join("cairn.raw");
    step.note("hybrid header");
    hybrid::make(&raw, &hybrid::Label { volume: "CAIRN", made: mkosi::EPOCH.parse()? })?;
    fs::rename(&raw, paths.iso())?;
    Ok(())
}
