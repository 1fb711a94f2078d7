//! The controller's task: removes what the nodes have reported gone, gives nodes to routers that have none, and takes
//! routers from nodes that have fallen.
//!
//! Driven by state: each pass looks at the tombstones and the unplaced routers there are (both indexed), so nothing
//! is lost by a restart. It never touches a node, and takes a node for fallen only by the word of who knows.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::{LocalStore, Tx, conduct};
use jiff::Timestamp;

use crate::logic::hosts;
use crate::logic::residence::{self, Fallen};
use crate::model::{Network, NetworkStatus, Phase, Port, PortStatus, Router, RouterStatus, status};
use crate::service::Service;

/// How often it looks for nodes that have fallen: that they are silent is no change that anybody would be told of.
const TAKE_OVER_EVERY: Duration = Duration::from_secs(1);

/// Runs for ever, in a cloud whose nodes never fall.
pub async fn conductor(svc: Arc<Service>) {
    conductor_with(svc, Arc::new(|_, _| Ok(false))).await;
}

/// Runs for ever; `fallen` says which nodes' routers others take over.
pub async fn conductor_with(svc: Arc<Service>, fallen: Fallen) {
    if let Err(error) = svc.store.transact(residence::recount).await {
        tracing::warn!(%error, "routers could not be counted; what was counted before holds");
    }
    let pass = async || {
        pass(&svc.store).await;
        Ok::<(), Infallible>(())
    };
    let prefixes = ["network/".to_owned()];
    let clean = conduct(&svc.store, "network", &prefixes, pass);
    let rescue = async {
        loop {
            rescue(&svc.store, &fallen).await;
            tokio::time::sleep(TAKE_OVER_EVERY).await;
        }
    };
    tokio::join!(clean, rescue);
}

/// Gives the routers of nodes that have fallen another node each. What fails is left for the next time.
pub async fn rescue(store: &LocalStore, fallen: &Fallen) {
    let stranded = match store.read(|tx| residence::stranded(tx, fallen)) {
        Ok(stranded) => stranded,
        Err(error) => return tracing::warn!(%error, "the network conductor cannot read"),
    };
    for router in stranded {
        let now = Timestamp::now();
        match store.transact(|tx| residence::flee(tx, &router, fallen, now)).await {
            Ok(true) => tracing::info!(router, "a router was taken from a node that has fallen"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, router, "a router could not be taken from its node"),
        }
    }
}

/// Does what can be done now. What fails is left for the next pass.
pub async fn pass(store: &LocalStore) {
    let now = Timestamp::now();
    let todo = match store.read(work) {
        Ok(todo) => todo,
        Err(error) => return tracing::warn!(%error, "the network conductor cannot read"),
    };
    for step in todo {
        let done = store.transact(|tx| act(tx, &step, now)).await;
        if let Err(error) = done {
            tracing::warn!(%error, ?step, "a step of the network conductor failed");
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Remove a port's record.
    Port(String),
    /// Remove a router's record.
    Router(String),
    /// Remove a network's record.
    Network(String),
    /// Give a router a node.
    Place(String),
}

/// What can be done now.
fn work(tx: &mut Tx) -> ApiResult<Vec<Step>> {
    let mut steps = Vec::new();
    for port in tx.by_index::<Port>("deleted", "yes")? {
        if port_is_gone(tx, &port)? {
            steps.push(Step::Port(port.id));
        }
    }
    for router in tx.by_index::<Router>("deleted", "yes")? {
        if router_is_gone(tx, &router)? {
            steps.push(Step::Router(router.id));
        }
    }
    for network in tx.by_index::<Network>("deleted", "yes")? {
        if network_is_gone(tx, &network)? {
            steps.push(Step::Network(network.id));
        }
    }
    steps.extend(tx.by_index::<Router>("unplaced", "yes")?.into_iter().map(|r| Step::Place(r.id)));
    Ok(steps)
}

/// Does one step, if it can still be done.
fn act(tx: &mut Tx, step: &Step, now: Timestamp) -> Result<(), ApiError> {
    match step {
        Step::Port(id) => {
            let Some(port) = tx.get::<Port>(id)?.filter(|p| p.deleted) else { return Ok(()) };
            if port_is_gone(tx, &port)? {
                tx.delete::<PortStatus>(id)?;
                tx.delete::<Port>(id)?;
            }
        }
        Step::Router(id) => {
            let Some(router) = tx.get::<Router>(id)?.filter(|r| r.deleted) else { return Ok(()) };
            if router_is_gone(tx, &router)? {
                if let Some(host) = &router.host {
                    tx.delete::<RouterStatus>(&status::on_host(id, host))?;
                }
                tx.delete::<Router>(id)?;
            }
        }
        Step::Network(id) => {
            let Some(network) = tx.get::<Network>(id)?.filter(|n| n.deleted) else { return Ok(()) };
            if network_is_gone(tx, &network)? {
                for host in &network.hosts {
                    tx.delete::<NetworkStatus>(&status::on_host(id, host))?;
                }
                tx.delete::<Network>(id)?;
            }
        }
        Step::Place(id) => residence::place(tx, id, now).map(drop)?,
    }
    Ok(())
}

/// Only a report about the tombstone itself counts, not one from before it.
fn port_is_gone(tx: &mut Tx, port: &Port) -> ApiResult<bool> {
    let seen = tx.get::<PortStatus>(&port.id)?;
    if let Some(host) = &port.host
        && !hosts::is_known(tx, host)?
    {
        return Ok(true);
    }
    Ok(seen.is_some_and(|s| s.phase == Phase::Gone && s.generation >= port.generation()))
}

fn router_is_gone(tx: &mut Tx, router: &Router) -> ApiResult<bool> {
    let Some(host) = &router.host else { return Ok(true) };
    if !hosts::is_known(tx, host)? {
        return Ok(true);
    }
    let seen = tx.get::<RouterStatus>(&status::on_host(&router.id, host))?;
    Ok(seen.is_some_and(|s| s.phase == Phase::Gone && s.generation >= router.stamp.revision))
}

fn network_is_gone(tx: &mut Tx, network: &Network) -> ApiResult<bool> {
    for host in &network.hosts {
        let seen = tx.get::<NetworkStatus>(&status::on_host(&network.id, host))?;
        let gone = seen.is_some_and(|s| s.phase == Phase::Gone && s.generation >= network.stamp.revision);
        // A node without a network agent never had anything of it.
        if !gone && hosts::is_known(tx, host)? {
            return Ok(false);
        }
    }
    Ok(true)
}
