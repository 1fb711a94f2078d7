//! What an operator types: disks, status, and who belongs to the cloud.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_node::disks::{self, DiskError};
use cairn_node::{Paths, told};
use cairn_state::{RoleStatus, StoreExt};
use cairn_wire::{RemoteStore, local_http};
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::roles::controller::{Order, Overview};

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
    // A node that is of no cloud yet has no store, and this to say.
    if let Some(joining) = told::joining(paths).filter(|_| told::cloud(paths).is_none()) {
        println!("{}", joining.state);
        if let Some(words) = joining.words {
            println!("{words}");
        }
        return Ok(());
    }
    let store = RemoteStore::new(paths.state_socket());
    let asked = tokio::time::timeout(Duration::from_secs(5), store.list_records::<RoleStatus>()).await;
    let hint = "the controller does not answer; see: journalctl -u cairn-controller -n 30";
    let roles = asked.context(hint)?.context(hint)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&roles)?);
        return Ok(());
    }
    println!("{}", cloud(paths).await);
    println!("{}", roles_table(&roles));
    for role in &roles {
        println!("{}", facts_table(role));
    }
    Ok(())
}

/// An order about one node.
pub fn node(node: String, words: Option<String>) -> Order {
    Order { node, words }
}

/// Gives the controller an order.
#[allow(clippy::print_stdout, reason = "the command's answer")]
pub async fn order(paths: &Paths, path: &str, order: &impl Serialize) -> Result<()> {
    match local_http::Client::new(paths.operator_socket()).post_json(path, order).await {
        Ok(()) => println!("done"),
        Err(local_http::Error::Status { body, .. }) => bail!(body),
        Err(e) => {
            return Err(e).context(
                "the controller does not answer (are you root? journalctl -u cairn-controller -n 30)",
            );
        }
    }
    Ok(())
}

/// The cloud and its members, as text.
async fn cloud(paths: &Paths) -> String {
    let asked = local_http::Client::new(paths.operator_socket()).get_json::<Overview>("/cluster").await;
    match asked {
        Ok(overview) => cloud_text(&overview),
        Err(e) => format!("the cloud's members cannot be shown: {e}"),
    }
}

fn cloud_text(overview: &Overview) -> String {
    let mut members = table(&["member", "state", "votes", "in touch", "addresses"]);
    for m in &overview.members {
        let leads = overview.leader.as_ref() == Some(&m.name);
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let addresses = m.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let votes = if leads { "leads".to_owned() } else { yes(m.voter) };
        members.add_row(vec![m.name.clone(), m.state.clone(), votes, yes(m.alive), addresses]);
    }
    let mut text = format!("cloud {}, seen from {}\n{members}", overview.cloud, overview.node);
    if overview.leader.is_none() {
        text += "\nNobody leads: nothing can be written. Are most of the members that vote switched on?";
    }
    if let Some(until) = overview.open_until.filter(|until| *until > jiff::Timestamp::now()) {
        text += &format!("\nWhoever asks is let in until {until}.");
    }
    for request in &overview.requests {
        text += &match &request.refused_by {
            Some(by) => format!("\n{} asked to join and was refused by {by}", request.name),
            None => format!(
                "\n{name} asks to join; if its screen shows these words: cairn accept {name} {words}",
                name = request.name,
                words = request.words
            ),
        };
    }
    text
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
