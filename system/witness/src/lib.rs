//! The witness: a small program for a third machine, which votes on the stores of clouds that have too few nodes to
//! bear the loss of one.
//!
//! What lives here: its folder with its key and secret ([`house`]), the clouds that it serves and its replica of each
//! one's log ([`clouds`], [`cloud`]), and what it answers on the wire ([`service`]). What a cloud says to it is in
//! `cairn_cluster::witness`, what a replica that cannot read does in `cairn_state::raft`.
//!
//! It needs no root, no cloud's certificate and no configuration; it must never be given anything that it could read.

pub mod cloud;
pub mod clouds;
pub mod house;
pub mod service;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use cairn_cluster::witness::SERVICE;
use cairn_wire::remote::{self, REPLICAS, Services};
use tokio::net::TcpListener;

use clouds::Clouds;
use house::House;
use service::{Replicas, WitnessService};

/// Serves all clouds that are known in this folder, and those that come, until it is dropped.
pub async fn serve(folder: &Path, listen: SocketAddr) -> Result<()> {
    let house = House::open(folder)?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let endpoint = house.endpoint()?;
    let clouds = Arc::new(Clouds::open(house, endpoint.clone()).await?);
    let services = Services::new()
        .with(SERVICE, Arc::new(WitnessService::new(clouds.clone())))
        .with(REPLICAS, Arc::new(Replicas::new(clouds)));
    tracing::info!(%listen, "clouds are served");
    Ok(remote::serve(listener, endpoint, services).await?)
}
