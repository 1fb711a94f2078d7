//! What Cinder says while the data disks are full: volumes and backups fail, and each says why.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::says;
use crate::client::Client;
use crate::tour::names;

/// How long anything may take here: the cloud learns within seconds that its disks are full, or not any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// The names of what is refused or fails.
const VOLUME: &str = "full-volume";
const BACKUP: &str = "full-backup";

/// A volume is refused as soon as the cloud knows that they are.
pub fn refused(client: &Client) -> Result<()> {
    let mut said = None;
    until("a volume is not refused", || {
        said = refusal(client)?;
        Ok(said.is_some())
    })?;
    says(&said.unwrap_or_default(), &["its disks are nearly full"])
}

/// Volumes are taken again.
pub fn taken(client: &Client) -> Result<()> {
    until("Cinder does not take volumes again", || Ok(refusal(client)?.is_none()))
}

/// Asks for a volume: why it failed, if it did. It is deleted in any case.
fn refusal(client: &Client) -> Result<Option<String>> {
    let volume = client.field(&["volume", "create", "--size", "1", VOLUME], "id")?;
    let show = ["volume", "show", &volume];
    let mut status = String::new();
    until("a volume is neither made nor failed", || {
        status = client.field(&show, "status")?;
        Ok(status == "available" || status == "error")
    })?;
    let said = if status == "error" { Some(message_about(client, &volume)?) } else { None };
    client.run(&["volume", "delete", &volume])?;
    until("a volume is not deleted", || Ok(client.run(&show).is_err()))?;
    Ok(said)
}

/// What Cinder tells the user of a volume, who then needs it no more.
fn message_about(client: &Client, volume: &str) -> Result<String> {
    // Messages came with this microversion.
    let messages = client.json(&["--os-volume-api-version", "3.3", "volume", "message", "list"])?;
    let of_it = messages.as_array().into_iter().flatten().find(|m| m["Resource UUID"] == volume);
    let of_it = of_it.with_context(|| format!("no message about it: {messages}"))?;
    let text =
        |key: &str| of_it[key].as_str().map(str::to_owned).with_context(|| format!("no {key}: {of_it}"));
    client.run(&["--os-volume-api-version", "3.3", "volume", "message", "delete", &text("ID")?])?;
    text("User Message")
}

/// A backup fails, says why, and leaves nothing.
pub fn backup_fails(client: &Client) -> Result<()> {
    let create = ["volume", "backup", "create", "--force", "--name", BACKUP, names::VOLUME];
    let backup = client.field(&create, "id")?;
    let show = ["volume", "backup", "show", &backup];
    until("a backup to full disks does not end", || match client.field(&show, "status")?.as_str() {
        "error" => Ok(true),
        "available" => bail!("a backup found room on full disks"),
        _ => Ok(false),
    })?;
    let why = client.field(&show, "fail_reason")?;
    client.run(&["volume", "backup", "delete", &backup])?;
    until("a failed backup is not deleted", || Ok(client.run(&show).is_err()))?;
    ensure!(why.contains("full"), "the backup does not say that disks are full: {why}");
    Ok(())
}

fn until(failure: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !done()? {
        ensure!(begun.elapsed() < PATIENCE, "{failure}, after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}
