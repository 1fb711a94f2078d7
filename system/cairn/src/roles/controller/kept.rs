//! What this node keeps of its membership on its own disk, so that it is known to the others and knows them before its
//! replica of the store says anything.
//!
//! One file beside the store, replaced whole, readable by the controller alone.

use anyhow::{Context, Result};
use cairn_cluster::Belonging;
use cairn_node::{Paths, paths};
use serde::{Deserialize, Serialize};

/// What is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Whether this node founded its cloud.
    pub founded: bool,
    /// Whether it has heard that it was removed from it.
    #[serde(default)]
    pub left: bool,
    /// What makes it a member.
    #[serde(flatten)]
    pub belonging: Belonging,
}

/// Where it is kept.
pub fn file(paths: &Paths) -> std::path::PathBuf {
    paths.role("controller").join("belonging.json")
}

/// Reads it; `None` if this node is of no cloud yet.
pub fn load(paths: &Paths) -> Result<Option<Kept>> {
    let file = file(paths);
    let text = match std::fs::read(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let kept = serde_json::from_slice(&text);
    kept.map(Some).with_context(|| format!("{} is damaged", file.display()))
}

/// Keeps it; on stable media when this returns.
pub fn save(paths: &Paths, kept: &Kept) -> Result<()> {
    paths::write_file(&file(paths), &serde_json::to_vec(kept)?, 0o600)
        .context("cannot keep what this node is of")
}
