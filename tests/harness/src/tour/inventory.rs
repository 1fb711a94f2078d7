//! What a cloud holds, as its nodes report it: domains, taps, namespaces, nft rules, volumes, store records.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::client::Client;

/// How long the last clean-up may take after the last delete was acknowledged.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// The countable part of `/appliance/v1/inventory`.
#[derive(Clone, Debug, PartialEq)]
pub struct Inventory(Value);

impl Inventory {
    /// Reads the inventory of a cloud that is to be used now: its lasting parts are there (the project's default
    /// security group, which the first use makes), and every role has looked at its node.
    pub fn before(client: &Client) -> Result<Inventory> {
        client.run(&["security", "group", "list"])?;
        let since = Instant::now();
        loop {
            let now = Inventory::read(client)?;
            if now.0["nodes"].as_object().is_some_and(|nodes| nodes.values().all(complete)) {
                return Ok(now);
            }
            if since.elapsed() > SETTLE_MAX {
                bail!("not every role reports: {}", now.0);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn read(client: &Client) -> Result<Inventory> {
        let (status, body) = client.http("GET", "/appliance/v1/inventory", Some(&client.token()?), None)?;
        ensure!(status == 200, "the inventory answers {status}: {body}");
        let mut all: Value = serde_json::from_str(&body).context("the inventory is no JSON")?;
        for (name, node) in all["nodes"].as_object_mut().into_iter().flatten() {
            // How far the search is says nothing of what is left; what it found must not be there at all.
            let search = node["storage"].as_object_mut().and_then(|facts| facts.remove("search_for_damage"));
            let met = node["storage"].as_object_mut().and_then(|facts| facts.remove("damage_met"));
            ensure!(!is_damaged(&search) && !is_damaged(&met), "damage on {name}: {search:?} {met:?}");
        }
        Ok(Inventory(all))
    }

    /// Waits until the cloud holds just what it held before.
    pub fn wait_same(&self, client: &Client) -> Result<()> {
        let since = Instant::now();
        loop {
            let now = Inventory::read(client)?;
            if now == *self {
                return Ok(());
            }
            if since.elapsed() > SETTLE_MAX {
                bail!("something is left behind:\n  before {}\n  now    {}", self.0, now.0);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// Whether corrupt blocks are reported of a disk or a volume.
fn is_damaged(reported: &Option<Value>) -> bool {
    let each = reported.as_ref().and_then(Value::as_object).into_iter().flatten();
    let found = each.map(|(_, of)| &of["corrupt"]);
    found.into_iter().any(|corrupt| match corrupt {
        Value::Null => false,
        Value::Object(blocks) => !blocks.is_empty(),
        count => *count != 0,
    })
}

/// Whether a node's roles have said all that is compared later.
fn complete(node: &Value) -> bool {
    let facts = [
        ("storage", "orphans"),
        ("storage", "volumes_on_disk"),
        ("network", "taps"),
        ("compute", "guests"),
        ("compute", "standing"),
    ];
    facts.iter().all(|(role, fact)| !node[role][fact].is_null())
}
