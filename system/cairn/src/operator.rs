//! What an operator types: disks and status.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use cairn_node::Paths;
use cairn_node::disks::{self, DiskError};
use cairn_state::{RoleStatus, StoreExt};
use cairn_wire::RemoteStore;
use comfy_table::{Table, presets};
use serde_json::Value;

/// How often a node without a disk for its state looks for one.
const DISK_WAIT: Duration = Duration::from_secs(5);

/// `cairn disks`.
pub fn disks(paths: &Paths, only: &[PathBuf], no_wait: bool) -> Result<()> {
    crate::logging::init();
    let mut said = false;
    let report = loop {
        match disks::prepare(paths, only) {
            Err(e @ DiskError::NoDisk) if !no_wait => {
                if !said {
                    tracing::error!("{e}");
                    eprintln!("cairn: {e}; waiting for one");
                }
                said = true;
                std::thread::sleep(DISK_WAIT);
            }
            done => break done?,
        }
    };
    for line in report.disks {
        eprintln!("{:<16} {:>8} MiB  {}", line.device, line.size >> 20, line.use_);
    }
    Ok(())
}

/// `cairn status`.
#[allow(clippy::print_stdout, reason = "the command's answer")]
pub async fn status(paths: &Paths, json: bool) -> Result<()> {
    let store = RemoteStore::new(paths.state_socket());
    let asked = tokio::time::timeout(Duration::from_secs(5), store.list_records::<RoleStatus>()).await;
    let hint = "the controller does not answer; see: journalctl -u cairn-controller -n 30";
    let roles = asked.context(hint)?.context(hint)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&roles)?);
        return Ok(());
    }
    println!("{}", roles_table(&roles));
    for role in &roles {
        println!("{}", facts_table(role));
    }
    Ok(())
}

fn roles_table(roles: &[RoleStatus]) -> Table {
    let mut table = table(&["node", "role", "pid", "version", "last heard", "reconcilers", "last errors"]);
    let now = jiff::Timestamp::now();
    for r in roles {
        let faults =
            r.reconcilers.iter().flat_map(|c| &c.faults).map(|f| format!("{}: {}", f.subject, f.error));
        let names: Vec<_> = r.reconcilers.iter().map(|c| c.name.as_str()).collect();
        let seconds = now.duration_since(r.updated).as_secs();
        table.add_row(vec![
            r.node.clone(),
            r.role.clone(),
            r.pid.to_string(),
            r.version.clone(),
            format!("{seconds} s ago"),
            names.join(", "),
            faults.collect::<Vec<_>>().join("\n"),
        ]);
    }
    table
}

fn facts_table(role: &RoleStatus) -> Table {
    let mut table = table(&[&format!("{} {}", role.node, role.role), ""]);
    for (name, value) in role.facts.as_object().into_iter().flatten() {
        table.add_row(vec![name.clone(), fact(value)]);
    }
    table
}

/// A fact as a person reads it: lists one entry a line, objects as `name=value`.
fn fact(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(fact).collect::<Vec<_>>().join("\n"),
        Value::Object(fields) => {
            fields.iter().map(|(k, v)| format!("{k}={}", fact(v))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(head.to_vec());
    table
}
