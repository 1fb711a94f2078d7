//! What an operator types: disks, status, and who belongs to the cloud.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_node::disks::{self, DiskError};
use cairn_node::paths::make_dir;
use cairn_node::{Paths, told};
use cairn_shards::disks::{DiskState, DiskView};
use cairn_shards::external::model::{Access, Secret};
use cairn_shards::external::orders::{BackendView, NewBackend};
use cairn_shards::health::{self, Health};
use cairn_state::RoleStatus;
use cairn_wire::local_http;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::roles::controller::{Address, Confirmed, Overview, Prospect};

/// How often a node without a disk for its state looks for one.
const DISK_WAIT: Duration = Duration::from_secs(5);

/// What to do when the controller says nothing.
const SILENT: &str = "the controller does not answer (are you root? journalctl -u cairn-controller -n 30)";

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

/// `cairn disk-health`.
pub fn disk_health(paths: &Paths, only: &[PathBuf]) -> Result<()> {
    crate::logging::init();
    let directory = paths.run.join(health::FOLDER);
    make_dir(&directory, 0o755)?;
    disks::health::ask(only, |disk, said| {
        let Some(health) = Health::of_smartctl(said) else { return };
        match health.write(&directory, disk) {
            Ok(()) => tracing::info!(disk, health = health.told(), "a disk was asked"),
            Err(e) => tracing::error!(disk, error = %e, "what a disk says cannot be kept"),
        }
    })?;
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
    let roles: Vec<RoleStatus> = match controller(paths).get_json("/roles").await {
        Ok(roles) => roles,
        Err(e) => return silence(paths, e),
    };
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

/// What is known of a node whose controller does not answer: it may have said why before it fell silent.
#[allow(clippy::print_stdout, reason = "the command's answer")]
fn silence(paths: &Paths, e: local_http::Error) -> Result<()> {
    match told::joining(paths).filter(|joining| !joining.state.is_empty()) {
        Some(joining) => println!("{}", joining.state),
        None => return Err(e).context(SILENT),
    }
    Ok(())
}

/// `cairn disk list`.
#[allow(clippy::print_stdout, reason = "the command's answer")]
pub async fn disk_list(paths: &Paths, json: bool) -> Result<()> {
    let disks: Vec<DiskView> = controller(paths).get_json("/disks").await.context(SILENT)?;
    match json {
        true => println!("{}", serde_json::to_string_pretty(&disks)?),
        false => println!("{}", disks_table(&disks)?),
    }
    Ok(())
}

fn disks_table(disks: &[DiskView]) -> Result<Table> {
    let mut rows =
        table(&["node", "disk", "state", "GiB", "free", "volumes", "evening out", "health", "trouble"]);
    for d in disks {
        let backups = d.backups.then(|| "backups are still on it".to_owned());
        let trouble = d.error.clone().or(backups.filter(|_| d.state == DiskState::Draining));
        let state = serde_json::to_value(d.state)?.as_str().unwrap_or_default().to_owned();
        rows.add_row(vec![
            d.node.clone(),
            d.disk.clone(),
            state,
            (d.size >> 30).to_string(),
            (d.free >> 30).to_string(),
            d.volumes.to_string(),
            evening_out(d),
            d.health.as_ref().map(Health::told).unwrap_or_default(),
            trouble.unwrap_or_default(),
        ]);
    }
    Ok(rows)
}

/// What comes to a disk and goes from it, so that disks fill evenly.
fn evening_out(disk: &DiskView) -> String {
    let told = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let both = [told(disk.coming, "coming"), told(disk.going, "going")];
    both.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `cairn backend list`.
#[allow(clippy::print_stdout, reason = "the command's answer")]
pub async fn backend_list(paths: &Paths, json: bool) -> Result<()> {
    let backends: Vec<BackendView> = controller(paths).get_json("/backends").await.context(SILENT)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&backends)?);
        return Ok(());
    }
    let mut rows = table(&["backend", "pool", "monitors", "GiB", "free", "volumes", "nodes"]);
    for b in backends {
        let node = |(node, trouble): (String, Option<String>)| match trouble {
            Some(trouble) => format!("{node}: {trouble}"),
            None => node,
        };
        rows.add_row(vec![
            b.name,
            format!("{}, as {}", b.access.pool, b.access.user),
            b.access.monitors.join("\n"),
            (b.size >> 30).to_string(),
            (b.free >> 30).to_string(),
            b.volumes.to_string(),
            b.nodes.into_iter().map(node).collect::<Vec<_>>().join("\n"),
        ]);
    }
    println!("{rows}");
    Ok(())
}

/// What `cairn backend add` is given, with the key that is in the file.
pub fn backend(name: String, access: Access, key_file: &Path) -> Result<NewBackend> {
    let text =
        std::fs::read_to_string(key_file).with_context(|| format!("cannot read {}", key_file.display()))?;
    let secret = Secret::of_file(&text)
        .with_context(|| format!("{} has no key, alone or as `key = ...`", key_file.display()))?;
    Ok(NewBackend { name, access, secret })
}

/// What `cairn address` is given.
pub fn address(text: &str) -> Result<Address> {
    let address = match text {
        "none" => None,
        text => Some(text.parse().with_context(|| format!("{text} is no IP address, nor \"none\""))?),
    };
    Ok(Address { address })
}

/// Gives the controller an order.
#[allow(clippy::print_stdout, reason = "the command's answer")]
pub async fn order(paths: &Paths, path: &str, order: &impl Serialize) -> Result<()> {
    match controller(paths).post_json(path, order).await {
        Ok(()) => println!("done"),
        Err(local_http::Error::Status { body, .. }) => bail!(body),
        Err(e) => return Err(e).context(SILENT),
    }
    Ok(())
}

fn controller(paths: &Paths) -> local_http::Client {
    local_http::Client::new(paths.operator_socket())
}

/// `cairn recover`.
#[allow(clippy::print_stdout, reason = "the command's answer")]
pub async fn recover(paths: &Paths, cloud: Option<String>) -> Result<()> {
    let found: Prospect = controller(paths).get_json("/recovery").await.context(SILENT)?;
    println!("{}", prospect_text(&found));
    if let Some(objection) = &found.objection {
        bail!("{objection}; nothing was done");
    }
    let cloud = match cloud {
        Some(cloud) => cloud,
        None => {
            eprint!("To go on, type the cloud's id: ");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line)?;
            line.trim().to_owned()
        }
    };
    order(paths, "/recovery", &Confirmed { cloud }).await?;
    println!("this node goes on alone within seconds; see: cairn status");
    Ok(())
}

fn prospect_text(p: &Prospect) -> String {
    let mut others = table(&["member", "votes", "answers"]);
    for o in &p.others {
        let answers = o.last.map_or_else(|| "no".to_owned(), |last| format!("has changes up to {last}"));
        others.add_row(vec![o.name.clone(), if o.votes { "yes" } else { "no" }.to_owned(), answers]);
    }
    let unsure = match p.last.saturating_sub(p.applied) {
        0 => String::new(),
        n => format!(" It has {n} more that may never have been acknowledged, and become so."),
    };
    format!(
        "cloud {}: this node, {}, would go on alone with all changes up to number {} that it knows to be acknowledged.{unsure}\n\
         Changes that others acknowledged without it are lost for ever, and so are the replicas of the cloud's state on \
         these members: when they come back they are told so, and begin anew with an empty one. Volumes on their disks \
         stay.\n{others}",
        p.cloud, p.node, p.applied
    )
}

/// The cloud and its members, as text.
async fn cloud(paths: &Paths) -> String {
    let asked = controller(paths).get_json::<Overview>("/cluster").await;
    match asked {
        Ok(overview) => cloud_text(&overview),
        Err(e) => format!("the cloud's members cannot be shown: {e}"),
    }
}

fn cloud_text(overview: &Overview) -> String {
    let mut members = table(&["member", "state", "votes", "in touch", "addresses"]);
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let lines = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for m in &overview.members {
        let leads = overview.leader.as_ref() == Some(&m.name);
        let votes = if leads { "leads".to_owned() } else { yes(m.voter) };
        members.add_row(vec![m.name.clone(), m.state.clone(), votes, yes(m.alive), lines(&m.addresses)]);
    }
    if let Some(w) = &overview.witness {
        let at = lines(&w.addresses);
        members.add_row(vec!["the witness".to_owned(), String::new(), yes(w.voter), yes(w.alive), at]);
    }
    let mut text = format!("cloud {}, seen from {}\n{members}", overview.cloud, overview.node);
    text += &format!("\n{}", overview.outlook);
    if let (Some(address), on) = (overview.address, overview.address_on.as_deref().unwrap_or("no node")) {
        text += &format!("\nThe cloud answers at {address}, now on {on}.");
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
