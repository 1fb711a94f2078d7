//! What a role that talks to other nodes goes by: this node's key, which the node role leaves in the role's own
//! folder, and whom to trust, which the controller keeps fresh in one file for all ([`Belonging`] as JSON).
//!
//! Only reading: the key once, the other file whenever it has changed. It must never trust more than the file says,
//! and keeps to the last good one when a new one cannot be read.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_wire::remote::{Endpoint, PeerId, Peers, Trust, Versions};
use tokio::sync::watch;

use crate::key::NodeKey;
use crate::membership::{Belonging, Pin};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest file that is read: a thousand members, each with all its addresses.
const BYTES_MAX: u64 = 4 << 20;

/// What was handed over cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {why}")]
pub struct Error {
    file: PathBuf,
    why: String,
}

impl Error {
    fn of(file: &Path, why: impl ToString) -> Error {
        Error { file: file.to_owned(), why: why.to_string() }
    }
}

/// The other nodes, as a role knows them. Cheap to clone; clones are one.
#[derive(Clone)]
pub struct Neighbours {
    /// This node's end of connections, for [`cairn_wire::remote::serve`].
    pub endpoint: Endpoint,
    /// The others, for calls.
    pub peers: Peers,
    members: Arc<watch::Sender<Arc<Vec<Pin>>>>,
    trust: PathBuf,
    port: u16,
    read: Option<SystemTime>,
}

/// Reads `node.key` in the role's folder and the file of whom to trust. The role's calls go to this port of others.
pub fn open(dir: &Path, trust: &Path, port: u16) -> Result<Neighbours, Error> {
    let key_file = dir.join("node.key");
    let pem = std::fs::read_to_string(&key_file).map_err(|e| Error::of(&key_file, e))?;
    let key = NodeKey::from_pem(&pem).map_err(|e| Error::of(&key_file, e))?;
    let read = modified(trust);
    let belonging = belonging(trust)?;
    let credentials = key.credentials(belonging.certificate.der()).map_err(|e| Error::of(&key_file, e))?;
    let trusted = Trust::new(belonging.trust());
    let endpoint = Endpoint { credentials, trust: trusted, versions: Versions::OURS };
    let peers = Peers::new(endpoint.clone());
    let members = Arc::new(watch::Sender::new(Arc::default()));
    let neighbours = Neighbours { endpoint, peers, members, trust: trust.to_owned(), port, read };
    neighbours.apply(&belonging)?;
    Ok(neighbours)
}

/// As [`open`], once both files are there and can be used. A node that is of no cloud yet waits here.
pub async fn wait(dir: &Path, trust: &Path, port: u16) -> Neighbours {
    let mut said = false;
    loop {
        match open(dir, trust, port) {
            Ok(neighbours) => return neighbours,
            Err(error) if !said => tracing::info!(%error, "waiting for what other nodes are known by"),
            Err(_) => {}
        }
        said = true;
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Neighbours {
    /// The identity of the member of this name.
    pub fn id_of(&self, name: &str) -> Option<PeerId> {
        self.members.borrow().iter().find(|pin| pin.name == name).map(|pin| pin.id)
    }

    /// The members, this node among them, as they change.
    pub fn members(&self) -> watch::Receiver<Arc<Vec<Pin>>> {
        self.members.subscribe()
    }

    /// Follows the file, for ever.
    pub async fn follow(mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = modified(&self.trust);
            if now == self.read {
                continue;
            }
            match belonging(&self.trust).and_then(|belonging| self.apply(&belonging)) {
                Ok(()) => self.read = now,
                Err(error) => tracing::warn!(%error, "whom to trust cannot be read"),
            }
        }
    }

    fn apply(&self, belonging: &Belonging) -> Result<(), Error> {
        let certificate = belonging.certificate.der();
        self.endpoint.credentials.replace(certificate).map_err(|e| Error::of(&self.trust, e))?;
        self.endpoint.trust.replace(belonging.trust());
        for pin in &belonging.members {
            self.peers.set_addresses(pin.id, at_port(&pin.addresses, self.port));
        }
        self.peers.keep_only(|id| belonging.members.iter().any(|pin| pin.id == *id));
        self.members.send_replace(Arc::new(belonging.members.clone()));
        Ok(())
    }
}

/// The same addresses, another port: each role listens on its own.
fn at_port(addresses: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
    let mut addresses = addresses.to_vec();
    addresses.iter_mut().for_each(|address| address.set_port(port));
    addresses
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|m| m.modified()).ok()
}

fn belonging(file: &Path) -> Result<Belonging, Error> {
    let read = || -> io::Result<Belonging> {
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(file)?, BYTES_MAX), &mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    read().map_err(|e| Error::of(file, e))
}
