//! What root has handed over to the controller: the node's key, what a cloud is founded with or carried over by, and
//! what the kernel's command line says of joining.
//!
//! Only reading. What is secret in it is never logged.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use cairn_cluster::{NodeKey, Token};
use cairn_node::{Paths, links};

/// How long the node role may take.
const HANDOVER_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
/// What gives a node a token to join with.
const TOKEN: &str = "cairn.token";

/// What was handed over.
pub struct Given {
    /// The node's key.
    pub key: NodeKey,
    /// The id that the node's disks are marked with, and that a cloud founded here gets.
    pub cloud: String,
    /// The hash of the first administrator's secret, as long as there is one.
    pub admin: Option<String>,
    /// The authority, certificate and key in PEM, that the API has had before clouds had several nodes.
    pub authority: Option<(String, String)>,
    /// What to join with.
    pub token: Option<Token>,
}

/// Waits for the node role, and takes what it hands over.
pub async fn wait(paths: &Paths) -> Result<Given> {
    let last = paths.handover().join("own-cloud");
    let there = async {
        while !last.exists() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(HANDOVER_MAX, there)
        .await
        .context("the node's key was not handed over: is cairn-node up? (systemctl status cairn-node)")?;
    take(paths)
}

fn take(paths: &Paths) -> Result<Given> {
    let dir = paths.handover();
    let pem = read(&dir.join("node.key"))?.context("the node's key was not handed over")?;
    let cloud = read(&dir.join("own-cloud"))?.context("the id of the node's disks was not handed over")?;
    let certificate = read(&dir.join("own-ca.pem"))?;
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let token = links::kernel_parameter(&cmdline, TOKEN).map(str::parse);
    Ok(Given {
        key: NodeKey::from_pem(&pem).context("the node's key cannot be used")?,
        cloud: cloud.trim().to_owned(),
        admin: read(&dir.join("admin.phc"))?,
        authority: certificate.zip(read(&dir.join("own-ca.key"))?),
        token: token.transpose().context("the kernel's command line holds a bad cairn.token")?,
    })
}

fn read(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", file.display())),
    }
}
