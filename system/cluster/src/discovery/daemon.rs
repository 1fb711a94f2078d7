//! The thin end of discovery: mDNS sockets in a thread of mdns-sd's, and what was seen as a value that changes.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;

use mdns_sd::{
    IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::announcement::Announcement;

/// The type of our service.
const SERVICE: &str = "_cairn._tcp.local.";
/// What people look for: the cloud, by the one name that all its nodes answer to in turn.
const FRONT: &str = "_https._tcp.local.";
const FRONT_NAME: &str = "Cairn";
const FRONT_HOST: &str = "cairn.local.";
const FRONT_PORT: u16 = 443;
/// The most nodes that are seen at a time.
const SEEN_MAX: usize = 512;
/// The most addresses that are taken of a node.
const ADDRESSES_MAX: usize = 16;

/// A node that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// What it says.
    pub announcement: Announcement,
    /// Where it can be tried, with the scope of link-local ones: addresses of IPv6 first, since those of a link
    /// need no configuration.
    pub addresses: Vec<SocketAddr>,
}

/// Which links are used, by name: those of this machine's own, not those of its guests.
pub type Links = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Discovery does not work.
#[derive(Debug, Clone, thiserror::Error)]
#[error("nodes on the same link cannot be found: {0}")]
pub struct Error(String);

impl From<mdns_sd::Error> for Error {
    fn from(e: mdns_sd::Error) -> Error {
        Error(e.to_string())
    }
}

/// Announces this node and listens for others, until it is dropped.
pub struct Discovery {
    daemon: ServiceDaemon,
    port: u16,
    seen: watch::Receiver<Arc<Vec<Sighting>>>,
    listener: AbortHandle,
}

impl Discovery {
    /// Listens on these links. `port` is where this node takes connections of others. It needs a tokio runtime.
    pub fn start(port: u16, links: Links) -> Result<Discovery, Error> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(IfKind::All)?;
        let ours = IfPredicate::new(move |link| !link.is_loopback() && links(&link.name));
        daemon.enable_interface(IfKind::Predicate(ours))?;
        let events = daemon.browse(SERVICE)?;
        let (sender, seen) = watch::channel(Arc::default());
        let listener = tokio::spawn(listen(events, sender)).abort_handle();
        Ok(Discovery { daemon, port, seen, listener })
    }

    /// Says this from now on, in the place of what it said before.
    pub fn announce(&self, announcement: &Announcement) -> Result<(), Error> {
        let id = announcement.node.to_string();
        let name = id.get(..16).unwrap_or(&id);
        let records: HashMap<_, _> = announcement.records().into_iter().collect();
        let host = format!("{name}.local.");
        let mut service = ServiceInfo::new(SERVICE, name, &host, "", self.port, records)?.enable_addr_auto();
        // The name comes from the key, so there is no other to look for.
        service.set_requires_probe(false);
        Ok(self.daemon.register(service)?)
    }

    /// Answers for the cloud's name, `cairn.local`, beside this node's own, or does not any more. One node of a cloud
    /// does, and another when that is lost.
    pub fn answer_for_cloud(&self, answer: bool) -> Result<(), Error> {
        if !answer {
            self.daemon.unregister(&format!("{FRONT_NAME}.{FRONT}"))?;
            return Ok(());
        }
        let none: HashMap<String, String> = HashMap::new();
        let front = ServiceInfo::new(FRONT, FRONT_NAME, FRONT_HOST, "", FRONT_PORT, none)?;
        let mut front = front.enable_addr_auto();
        // Who answered before may not have said good-bye: the name is the cloud's, not a node's.
        front.set_requires_probe(false);
        Ok(self.daemon.register(front)?)
    }

    /// Who is seen, this node among them if it announces itself, as it changes.
    pub fn seen(&self) -> watch::Receiver<Arc<Vec<Sighting>>> {
        self.seen.clone()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.listener.abort();
        // It says good-bye on the link, in its own thread.
        if let Err(e) = self.daemon.shutdown() {
            tracing::debug!(error = %e, "discovery did not end in order");
        }
    }
}

async fn listen(events: Receiver<ServiceEvent>, seen: watch::Sender<Arc<Vec<Sighting>>>) {
    let mut nodes: BTreeMap<String, Sighting> = BTreeMap::new();
    while let Ok(event) = events.recv_async().await {
        match event {
            ServiceEvent::ServiceResolved(service) => match sighting(&service) {
                Some(sighting) if nodes.len() < SEEN_MAX || nodes.contains_key(&service.fullname) => {
                    nodes.insert(service.fullname.clone(), sighting);
                }
                _ => continue,
            },
            ServiceEvent::ServiceRemoved(_, name) => drop(nodes.remove(&name)),
            _ => continue,
        }
        let all: Vec<_> = nodes.values().cloned().collect();
        seen.send_if_modified(|last| {
            let news = **last != all;
            *last = Arc::new(all);
            news
        });
    }
}

fn sighting(service: &ResolvedService) -> Option<Sighting> {
    let announcement = Announcement::read(|key| service.get_property_val_str(key))
        .inspect_err(
            |e| tracing::debug!(name = service.fullname, error = %e, "an announcement is passed over"),
        )
        .ok()?;
    let mut addresses: Vec<_> = service.addresses.iter().filter_map(|ip| address(ip, service.port)).collect();
    addresses.sort_by_key(|address| (address.is_ipv4(), *address));
    addresses.truncate(ADDRESSES_MAX);
    Some(Sighting { announcement, addresses })
}

fn address(ip: &ScopedIp, port: u16) -> Option<SocketAddr> {
    match ip {
        ScopedIp::V4(v4) => Some(SocketAddr::new((*v4.addr()).into(), port)),
        ScopedIp::V6(v6) => Some(SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into()),
        _ => None,
    }
}
