//! What the agent follows of the store, and whether what a guest needs is ready on this node.

use std::path::{Path, PathBuf};

use cairn_network::model::{Phase as PortPhase, PortPrepared, PortStatus};
use cairn_shards::model::{NBD_EXTENSION, Phase, Prepared, VolumeSpec, VolumeStatus};
use cairn_state::Mirror;

use crate::model::{InstanceStatus, MoveStatus, Server};

/// What the agent follows of the store.
pub struct Mirrors {
    /// Servers.
    pub servers: Mirror<Server>,
    /// Volumes as they should be: who may use them.
    pub specs: Mirror<VolumeSpec>,
    /// Volumes as they are: where they are served.
    pub volumes: Mirror<VolumeStatus>,
    /// Volumes made ready on a node that their guest moves to.
    pub volumes_prepared: Mirror<Prepared>,
    /// Ports as they are.
    pub ports: Mirror<PortStatus>,
    /// Ports made ready on a node that their guest moves to.
    pub ports_prepared: Mirror<PortPrepared>,
    /// What was last said of guests.
    pub past: Mirror<InstanceStatus>,
    /// What was last said of migrations.
    pub moves: Mirror<MoveStatus>,
}

impl Mirrors {
    /// The socket by which a guest of this node has a volume. QEMU's own emulation must write a guest's memory itself
    /// (see `cairn_shards::nbd`), so it takes NBD.
    pub fn socket_of(&self, run_dir: &Path, volume_id: &str, emulated: bool) -> String {
        let told = self.volumes.get(volume_id).and_then(|v| v.socket.clone());
        let usual = || run_dir.join("storage").join(format!("{volume_id}.sock"));
        let socket = told.map_or_else(usual, PathBuf::from);
        let socket = if emulated { socket.with_extension(NBD_EXTENSION) } else { socket };
        socket.to_string_lossy().into_owned()
    }

    /// What a volume lacks before this server's guest may have it on this node.
    pub fn volume_lacks(&self, node: &str, server: &Server, id: &str) -> Option<String> {
        let Some(spec) = self.specs.get(id) else {
            return Some(format!("volume {id} is not known yet"));
        };
        let Some(export) = spec.export.as_ref().filter(|e| e.owner == server.id && e.node == node) else {
            return Some(format!("volume {id} is not given to this server"));
        };
        let Some(status) = self.volumes.get(id) else {
            return Some(format!("volume {id} is being made"));
        };
        if status.phase == Phase::Failed {
            let why = status.error.as_deref().unwrap_or("no reason given");
            return Some(format!("volume {id} failed: {why}"));
        }
        let served = status.socket.is_some() && status.epoch == export.epoch && status.node == node;
        (!served).then(|| format!("volume {id} is not served yet"))
    }

    /// What a port lacks before a guest may have it on this node.
    pub fn port_lacks(&self, node: &str, id: &str) -> Option<String> {
        match self.ports.get(id) {
            Some(port) if port.host == node && port.phase == PortPhase::Ready && port.tap.is_some() => None,
            Some(port) if port.phase == PortPhase::Failed => {
                Some(format!("port {id} failed: {}", port.error.as_deref().unwrap_or("no reason given")))
            }
            _ => Some(format!("port {id} is not plugged yet")),
        }
    }

    /// What a running guest that comes to this node still lacks here.
    pub fn move_lacks(&self, node: &str, server: &Server) -> Option<String> {
        let volumes = server.volumes.iter().find_map(|v| self.volume_unprepared(node, &v.volume_id));
        volumes.or_else(|| server.ports.iter().find_map(|p| self.port_unprepared(node, &p.port_id)))
    }

    fn volume_unprepared(&self, node: &str, id: &str) -> Option<String> {
        let Some(spec) = self.specs.get(id).filter(|spec| spec.moving.as_deref() == Some(node)) else {
            return Some(format!("volume {id} is not asked for here"));
        };
        let prepared = self.volumes_prepared.get(&format!("{id}/{node}"));
        let ready = prepared.is_some_and(|p| p.generation == spec.generation);
        (!ready).then(|| format!("volume {id} is not ready here yet"))
    }

    fn port_unprepared(&self, node: &str, id: &str) -> Option<String> {
        match self.ports_prepared.get(id).filter(|port| port.host == node) {
            Some(port) if port.phase == PortPhase::Ready => None,
            Some(port) if port.phase == PortPhase::Failed => {
                Some(format!("port {id} failed: {}", port.error.as_deref().unwrap_or("no reason given")))
            }
            _ => Some(format!("port {id} is not ready here yet")),
        }
    }
}
