//! What a server takes along when it moves: its ports and volumes, made ready on the other node, given to it, or left
//! where they are. The few functions through which compute asks network and storage for that.

use cairn_gateway::ApiResult;
use cairn_network::logic::ports;
use cairn_network::model::Port;
use cairn_network::servers as network;
use cairn_shards::model::VolumeSpec;
use cairn_shards::volumes;
use cairn_state::Tx;
use jiff::Timestamp;

use crate::model::Server;

/// Asks for the server's volumes and ports on another node as well, for a guest that runs on meanwhile.
pub fn prepare(tx: &mut Tx, server: &Server, to: &str) -> ApiResult<()> {
    for id in volumes_of(tx, server)? {
        volumes::begin_move(tx, &id, to)?;
    }
    for port in network::ports_of(tx, &server.id)?.iter().filter(|p| p.host.as_deref() != Some(to)) {
        network::prepare_move(tx, &port.id, to)?;
    }
    Ok(())
}

/// Gives the server's volumes and ports to this node, and takes them from any other: nothing is written from
/// elsewhere any more once this is committed. Asking again changes nothing.
pub fn hand_over(tx: &mut Tx, server: &Server, to: &str) -> ApiResult<()> {
    for id in volumes_of(tx, server)? {
        volumes::export(tx, &id, to, &server.id)?;
    }
    for port in network::ports_of(tx, &server.id)? {
        match port.host.as_deref() {
            None => bind(tx, port, to)?,
            Some(host) if host == to => {}
            Some(_) => drop(network::finish_move(tx, &port.id, to)?),
        }
    }
    Ok(())
}

/// The server's volumes that are there.
fn volumes_of(tx: &mut Tx, server: &Server) -> ApiResult<Vec<String>> {
    let mut there = Vec::new();
    for volume in &server.volumes {
        if tx.get::<VolumeSpec>(&volume.volume_id)?.is_some_and(|spec| !spec.deleted) {
            there.push(volume.volume_id.clone());
        }
    }
    Ok(there)
}

fn bind(tx: &mut Tx, mut port: Port, to: &str) -> ApiResult<()> {
    ports::bind(tx, &mut port, Some(to))?;
    port.stamp.touch(Timestamp::now());
    Ok(tx.put(&port)?)
}

/// Takes back what [`prepare`] asked for.
pub fn abandon(tx: &mut Tx, server: &Server, to: &str) -> ApiResult<()> {
    for id in volumes_of(tx, server)? {
        if tx.get::<VolumeSpec>(&id)?.is_some_and(|spec| spec.moving.as_deref() == Some(to)) {
            volumes::abort_move(tx, &id)?;
        }
    }
    for port in network::ports_of(tx, &server.id)?.iter().filter(|p| p.migrating_to.as_deref() == Some(to)) {
        network::abort_move(tx, &port.id, to)?;
    }
    Ok(())
}
