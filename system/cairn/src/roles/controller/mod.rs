//! The controller role: makes this node a member of a cloud, with a replica of its store; serves the APIs by TLS and
//! the store to the node's agents by its socket.
//!
//! `given` is what root hands over, `surroundings` what is around; `way_in`, `ask` and `opening` lead to a cloud and a
//! replica of its store; `cluster` is the member, with a file for each of its duties; `services` and `certificate` are
//! what clients see; `removal` and `left` are how a node goes, `recovery` how a cloud goes on that lost most of them;
//! `overview` shows it all, `operator` takes the orders of who is root here, `members_api` those of administrators.
//!
//! It must never open a store before it is settled whose it is, nor do for all nodes what only a leader may.

pub mod address;
mod alive;
mod announce;
mod ask;
mod backends;
mod certificate;
mod cluster;
mod disk_orders;
mod given;
mod giving_way;
mod hello;
mod in_use;
mod kept;
mod leading;
mod left;
mod listening;
mod liveness;
mod members;
mod members_api;
mod names;
mod opening;
mod operator;
mod overview;
mod recovery;
mod removal;
mod services;
mod surroundings;
#[cfg(test)]
mod tests;
mod voters;
mod way_in;
mod witness;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use cairn_gateway::server::{Certificates, Gateway, Listen, serve};
use cairn_node::Paths;
use cairn_state::Reporter;
use cairn_wire::{local_socket, store_server};
use tokio::task::JoinSet;

pub use self::backends::Removal;
pub use self::cluster::Cluster;
use self::leading::while_leading;
pub use self::operator::{Address, Open, Order};
pub use self::overview::{Overview, overview};
pub use self::recovery::{Confirmed, Prospect};
use self::services::Services;
use self::surroundings::Surroundings;
pub use self::witness::Add;
use crate::appliance::Appliance;
use crate::{lifecycle, roles};

/// How long the node role may take to show who the administrator is, before the API answers nevertheless.
const SHOWN_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Runs the role.
pub async fn run(paths: Paths) -> Result<()> {
    let given = given::wait(&paths).await?;
    // A node may wait for days to be let in: that it waits is all that it can be ready for.
    lifecycle::ready();
    let around = Surroundings::of_this_machine(paths)?;
    let cluster = tokio::select! {
        entered = Cluster::enter(around, given) => entered?,
        () = lifecycle::stopped() => return Ok(()),
    };
    let mut duties = cluster.start().await?;
    let (app, certificates, listen) = tokio::select! {
        ready = prepare(&cluster, &mut duties) => ready?,
        () = lifecycle::stopped() => return Ok(()),
    };
    tracing::info!(node = cluster.name, "the APIs answer");
    tokio::select! {
        to = giving_way::given_up(cluster.clone()) => bail!("this node's cloud gave way to {to}: starting anew"),
        () = recovery::ordered(cluster.clone()) => bail!("this node is to go on without its cloud's majority"),
        () = cluster.store.left_behind() => {
            recovery::put_aside(cluster.paths())?;
            bail!("the cloud was gone on with without this node: starting anew with an empty replica")
        }
        left = left::removed(cluster.clone()) => {
            left?;
            bail!("this node was removed from its cloud: it stops serving")
        }
        served = serve(app, certificates, listen, lifecycle::stopped()) => served.context("serving the APIs"),
        // Nothing more can be written. Started anew, the store's file is repaired, or says why it can't be.
        failure = cluster.store.failed() => bail!("the store's disk failed: {failure}"),
    }
}

/// Serves the node's agents and its operator, and makes all ready to serve the world.
async fn prepare(
    cluster: &Arc<Cluster>,
    duties: &mut JoinSet<()>,
) -> Result<(Router, Arc<Certificates>, Listen)> {
    let (store, node, paths) = (&cluster.store, &cluster.name, cluster.paths());
    let socket = local_socket::bind(&paths.state_socket(), 0o660).context("the store's socket")?;
    duties.spawn(store_server::serve(socket, store.clone(), roles::peers::policy(node)));
    duties.spawn(report(Reporter::new(Arc::new(store.clone()), node.clone(), "controller")));
    duties.spawn(operator::serve(cluster.clone()));

    let shown = certificate::first(cluster).await?;
    let services = Services::new(cluster);
    duties.spawn(services.clone().reach_others(paths.clone(), node.clone()));
    let (leader, conducted) = (cluster.clone(), services.clone());
    duties.spawn(while_leading(move || leader.leads(), move || conducted.conductors()));
    let appliance = Arc::new(Appliance::new(
        cluster.clone(),
        paths.handover().join("ca.pem"),
        members_api::router(cluster.clone())
            .merge(disk_orders::router(cluster.clone()))
            .merge(services.maintenance()),
    ));
    let app = Gateway::new(services.mounts(&appliance), services.identity.clone());
    let app = app.store(store.clone()).status(appliance).router();

    until_shown(paths).await;
    let any = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    let listen = Listen::bind(&[any(443)], &[any(80)]).await?;
    let certificates = shown.certificates.clone();
    duties.spawn(certificate::keep(cluster.clone(), shown));
    Ok((app, certificates, listen))
}

/// Reports for as long as the process runs.
async fn report(reporter: Reporter) {
    std::future::pending::<()>().await;
    drop(reporter);
}

/// Waits until the node role has entered the cloud, and so has shown what its screen has to show: who finds the API
/// answering finds the administrator's secret there.
async fn until_shown(paths: &Paths) {
    let cloud = paths.run.join("cloud");
    let shown = async {
        while !cloud.exists() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(SHOWN_MAX, shown).await.is_err() {
        tracing::warn!("the node role has not entered the cloud: is cairn-node up?");
    }
}
