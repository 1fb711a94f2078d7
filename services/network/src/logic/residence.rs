//! Which node a router lives on: one at a time, given to it when it is made, and another when that one has fallen.
//!
//! A router moves by its record alone: the new node sees itself named and makes it, the old one (if it is there)
//! sees that it is not, and lets go. Who says that a node has fallen must be sure that it has stepped back by then.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_gateway::ApiResult;
use cairn_state::Tx;
use jiff::Timestamp;

use super::hosts::{self, Candidate};
use super::{interfaces, ports};
use crate::model::{Network, Router, RouterLoad};

/// Says whether a node has fallen for good: it has stepped back by its own clock, so that others may do what it did.
/// What it reads becomes a condition of the commit.
pub type Fallen = Arc<dyn Fn(&mut Tx, &str) -> ApiResult<bool> + Send + Sync>;

/// The node for a router that is being made: its load counts it from now on. `None` when there is none alive.
pub fn settle(tx: &mut Tx, router_id: &str, now: Timestamp) -> ApiResult<Option<String>> {
    let host = pick(tx, router_id, now, None)?;
    if let Some(host) = &host {
        count(tx, host, true)?;
    }
    Ok(host)
}

/// Gives a router that has no node one, and its ports with it; true if there was one to give.
pub fn place(tx: &mut Tx, router_id: &str, now: Timestamp) -> ApiResult<bool> {
    let router = tx.get::<Router>(router_id)?.filter(|r| !r.deleted && r.host.is_none());
    router.map_or(Ok(false), |router| rehome(tx, router, None, now))
}

/// The routers of nodes that have fallen, or are no longer of the cloud.
pub fn stranded(tx: &mut Tx, fallen: &Fallen) -> ApiResult<Vec<String>> {
    let mut stranded = Vec::new();
    for load in tx.list_unfenced::<RouterLoad>()?.into_iter().filter(|l| l.routers > 0) {
        if is_out(tx, fallen, &load.node)? {
            stranded.extend(tx.by_index::<Router>("host", &load.node)?.into_iter().map(|r| r.id));
        }
    }
    Ok(stranded)
}

fn is_out(tx: &mut Tx, fallen: &Fallen, node: &str) -> ApiResult<bool> {
    Ok(!hosts::is_known(tx, node)? || fallen(tx, node)?)
}

/// Gives a router whose node has fallen another one; true if there was one to give.
pub fn flee(tx: &mut Tx, router_id: &str, fallen: &Fallen, now: Timestamp) -> ApiResult<bool> {
    let Some(router) = tx.get::<Router>(router_id)?.filter(|r| !r.deleted) else { return Ok(false) };
    match router.host.clone() {
        Some(host) if is_out(tx, fallen, &host)? => rehome(tx, router, Some(fallen), now),
        _ => Ok(false),
    }
}

fn rehome(tx: &mut Tx, mut router: Router, fallen: Option<&Fallen>, now: Timestamp) -> ApiResult<bool> {
    let Some(host) = pick(tx, &router.id, now, fallen)? else { return Ok(false) };
    if let Some(before) = router.host.replace(host.clone()) {
        count(tx, &before, false)?;
    }
    count(tx, &host, true)?;
    router.stamp.touch(now);
    tx.put(&router)?;
    for mut port in interfaces::ports_of(tx, &router.id)? {
        ports::bind(tx, &mut port, Some(&host))?;
        port.stamp.touch(now);
        tx.put(&port)?;
    }
    Ok(true)
}

/// Takes a router from its node: it leaves a tombstone there, if there is somebody to see it.
pub fn leave(tx: &mut Tx, mut router: Router, now: Timestamp) -> ApiResult<()> {
    let Some(host) = router.host.clone() else { return Ok(tx.delete::<Router>(&router.id).map(drop)?) };
    count(tx, &host, false)?;
    if !hosts::is_known(tx, &host)? {
        return Ok(tx.delete::<Router>(&router.id).map(drop)?);
    }
    router.deleted = true;
    router.stamp.touch(now);
    Ok(tx.put(&router)?)
}

/// The best node that is alive and has not fallen.
fn pick(tx: &mut Tx, router_id: &str, now: Timestamp, fallen: Option<&Fallen>) -> ApiResult<Option<String>> {
    // Not a condition of the commit: two routers that are made at once may well go to the same node.
    let loads = tx.list_unfenced::<RouterLoad>()?;
    let near = neighbourhood(tx, router_id)?;
    let mut candidates = Vec::new();
    for node in hosts::alive(tx, now)?.into_iter().map(|h| h.node) {
        // Its heartbeat may be later to end than its place in the cloud.
        if fallen.map_or(Ok(false), |fallen| fallen(tx, &node))? {
            continue;
        }
        let routers = loads.iter().find(|l| l.node == node).map_or(0, |l| l.routers);
        candidates.push(Candidate { routers, near: near.contains(&node), node });
    }
    Ok(hosts::choose(candidates, router_id))
}

/// The nodes that have things of the router's networks.
fn neighbourhood(tx: &mut Tx, router_id: &str) -> ApiResult<Vec<String>> {
    let mut near = Vec::new();
    for port in interfaces::of(tx, router_id)? {
        near.extend(tx.get::<Network>(&port.network_id)?.into_iter().flat_map(|n| n.hosts));
    }
    Ok(near)
}

fn count(tx: &mut Tx, node: &str, more: bool) -> ApiResult<()> {
    let mut load = tx.get::<RouterLoad>(node)?.unwrap_or_default();
    node.clone_into(&mut load.node);
    load.routers = if more { load.routers + 1 } else { load.routers.saturating_sub(1) };
    Ok(tx.put(&load)?)
}

/// Counts all routers anew, and gives those that an earlier release left without it their index entry. For the start.
pub fn recount(tx: &mut Tx) -> ApiResult<()> {
    let mut loads: BTreeMap<String, u64> =
        tx.list::<RouterLoad>()?.into_iter().map(|l| (l.node, 0)).collect();
    for router in tx.list::<Router>()?.into_iter().filter(|r| !r.deleted) {
        let Some(host) = router.host.clone() else { continue };
        if !tx.by_index::<Router>("host", &host)?.iter().any(|r| r.id == router.id) {
            tx.put(&router)?;
        }
        *loads.entry(host).or_default() += 1;
    }
    for (node, routers) in loads {
        if tx.get::<RouterLoad>(&node)?.is_none_or(|l| l.routers != routers) {
            tx.put(&RouterLoad { node, routers })?;
        }
    }
    Ok(())
}
