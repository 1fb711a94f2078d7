//! Where things are: the workspace, what is built (`target/image`), what runs (`target/cloud`).
//!
//! Only names paths and makes folders; it must never remove anything.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The workspace and the places under it that this crate reads and writes.
#[derive(Clone, Debug)]
pub struct Paths {
    workspace: PathBuf,
}

impl Paths {
    /// Finds the workspace above the folder that cargo runs us for, or above the current folder.
    pub fn find() -> Result<Self> {
        let cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let here = std::env::current_dir().context("the current folder is gone")?;
        for start in cargo.into_iter().chain([here]) {
            for folder in start.ancestors() {
                if folder.join("image-builder/mkosi").is_dir() {
                    return Ok(Self { workspace: folder.to_owned() });
                }
            }
        }
        bail!("not inside the Cairn workspace: change into its folder and run again")
    }

    /// A workspace at a known place.
    pub fn at(workspace: &Path) -> Self {
        Self { workspace: workspace.to_owned() }
    }

    /// The folder that holds the workspace's `Cargo.toml`.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// This crate's folder, where the image's configuration is.
    pub fn crate_dir(&self) -> PathBuf {
        self.workspace.join("image-builder")
    }

    /// `target/image`: all that is built here.
    pub fn image(&self) -> PathBuf {
        self.workspace.join("target/image")
    }

    /// `target/image/cache`: downloads, the tools tree, mkosi's caches. Safe to delete, slow to refill.
    pub fn cache(&self) -> PathBuf {
        self.image().join("cache")
    }

    /// `target/image/root`: the appliance's userland.
    pub fn root_tree(&self) -> PathBuf {
        self.image().join("root")
    }

    /// `target/image/guests`: disk images to upload to the cloud.
    pub fn guests(&self) -> PathBuf {
        self.image().join("guests")
    }

    /// `target/image/cairn.iso`.
    pub fn iso(&self) -> PathBuf {
        self.image().join("cairn.iso")
    }

    /// `target/release/cairn`: the binary that goes into the ISO.
    pub fn cairn(&self) -> PathBuf {
        self.workspace.join("target/release/cairn")
    }

    /// `target/cloud`: the disks, logs and access files of the cloud that `cargo up` runs.
    pub fn cloud(&self) -> PathBuf {
        self.workspace.join("target/cloud")
    }
}

/// Makes a folder and those above it, and returns it.
pub fn ensure_dir(path: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
    Ok(path)
}
