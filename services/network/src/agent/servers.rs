//! The servers in the namespaces: DHCP, DNS, metadata and router advertisements. Each is a task on a socket that was made there.
//!
//! What they answer is changed without a break; a socket is opened anew only when it failed or when its
//! namespace is another one. It never stops a server because the store is away.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use cairn_state::Mirror;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::advertise::{self, Advert};
use super::desired::{METADATA_IP, Space};
use super::dhcp::{self, Scope};
use super::dns::Audience;
use super::metadata::{self, Tenants};
use super::{dns, netns};
use crate::model::ServerMetadata;

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Task {
    fn spawn(name: String, run: impl Future<Output = io::Error> + Send + 'static) -> Task {
        Task(tokio::spawn(async move {
            let error = run.await;
            tracing::warn!(server = name, %error, "a server's socket failed");
        }))
    }

    fn runs(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A server, and what it goes by.
struct Server<T> {
    by: watch::Sender<T>,
    task: Task,
}

impl<T: Clone + PartialEq> Server<T> {
    fn spawn<F>(name: String, by: &T, run: impl FnOnce(watch::Receiver<T>) -> F) -> Server<T>
    where
        F: Future<Output = io::Error> + Send + 'static,
    {
        let (sender, receiver) = watch::channel(by.clone());
        Server { by: sender, task: Task::spawn(name, run(receiver)) }
    }

    /// Goes by something else from now on.
    fn go_by(&self, value: &T) {
        self.by.send_if_modified(|now| {
            let differs = now != value;
            if differs {
                *now = value.clone();
            }
            differs
        });
    }
}

/// The servers of one namespace.
#[derive(Default)]
struct Running {
    inode: u64,
    dhcp: Option<Server<Scope>>,
    dns: BTreeMap<IpAddr, Server<Audience>>,
    metadata: Option<Server<Tenants>>,
    adverts: BTreeMap<String, Server<Advert>>,
}

/// All servers of the node.
pub struct Servers {
    spaces: BTreeMap<String, Running>,
    records: Mirror<ServerMetadata>,
}

impl Servers {
    /// None yet.
    pub fn new(records: Mirror<ServerMetadata>) -> Servers {
        Servers { spaces: BTreeMap::new(), records }
    }

    /// Ends the servers of all namespaces that are not in `keep`.
    pub fn retain(&mut self, keep: &BTreeMap<String, Space>) {
        self.spaces.retain(|name, _| keep.contains_key(name));
    }

    /// Whether DHCP and metadata are answered in a namespace.
    pub fn answers(&self, space: &str) -> bool {
        self.spaces.get(space).is_some_and(|s| {
            s.dhcp.as_ref().is_some_and(|d| d.task.runs())
                && s.metadata.as_ref().is_some_and(|m| m.task.runs())
        })
    }

    /// Makes a namespace answer what it should.
    pub async fn ensure(&mut self, name: &str, want: &Space) -> io::Result<()> {
        let inode = netns::inode(name)?;
        let running = self.spaces.entry(name.to_owned()).or_default();
        if running.inode != inode {
            *running = Running { inode, ..Running::default() };
        }
        // One that fails must not keep the others from answering.
        let dhcp = running.ensure_dhcp(name, want).await;
        let dns = running.ensure_dns(name, want).await;
        let metadata = running.ensure_metadata(name, want, &self.records).await;
        let adverts = running.ensure_adverts(name, want).await;
        dhcp.and(dns).and(metadata).and(adverts)
    }
}

impl Running {
    async fn ensure_dhcp(&mut self, name: &str, want: &Space) -> io::Result<()> {
        let Some(scope) = &want.scope else {
            self.dhcp = None;
            return Ok(());
        };
        let right = |d: &&Server<Scope>| d.task.runs() && d.by.borrow().device == scope.device;
        if let Some(dhcp) = self.dhcp.as_ref().filter(right) {
            dhcp.go_by(scope);
            return Ok(());
        }
        self.dhcp = None;
        let socket = dhcp::server::open(name, scope.device.clone()).await?;
        self.dhcp =
            Some(Server::spawn(format!("DHCP in {name}"), scope, |by| dhcp::server::serve(socket, by)));
        Ok(())
    }

    async fn ensure_dns(&mut self, name: &str, want: &Space) -> io::Result<()> {
        let Some(audience) = &want.dns else {
            self.dns.clear();
            return Ok(());
        };
        let all = want.links.values().flat_map(|v| &v.addresses).map(|a| a.addr());
        let addresses: BTreeSet<IpAddr> = all.filter(|ip| *ip != IpAddr::V4(METADATA_IP)).collect();
        self.dns.retain(|ip, server| server.task.runs() && addresses.contains(ip));
        for ip in addresses {
            match self.dns.entry(ip) {
                Entry::Occupied(server) => server.get().go_by(audience),
                Entry::Vacant(vacant) => {
                    let sockets = dns::open(name, ip).await?;
                    let title = format!("DNS in {name}");
                    vacant.insert(Server::spawn(title, audience, |by| dns::serve(sockets, by)));
                }
            }
        }
        Ok(())
    }

    async fn ensure_metadata(
        &mut self,
        name: &str,
        want: &Space,
        records: &Mirror<ServerMetadata>,
    ) -> io::Result<()> {
        if let Some(metadata) = self.metadata.as_ref().filter(|m| m.task.runs()) {
            metadata.go_by(&want.tenants);
            return Ok(());
        }
        self.metadata = None;
        let listener = metadata::server::open(name).await?;
        let serve = |by| metadata::server::serve(listener, by, records.clone());
        self.metadata = Some(Server::spawn(format!("metadata in {name}"), &want.tenants, serve));
        Ok(())
    }

    async fn ensure_adverts(&mut self, name: &str, want: &Space) -> io::Result<()> {
        self.adverts.retain(|link, server| server.task.runs() && want.adverts.contains_key(link));
        for (link, advert) in &want.adverts {
            match self.adverts.entry(link.clone()) {
                Entry::Occupied(server) => server.get().go_by(advert),
                Entry::Vacant(vacant) => {
                    let socket = advertise::open(name, link).await?;
                    let title = format!("advertisements on {link}");
                    vacant.insert(Server::spawn(title, advert, |by| advertise::serve(socket, by)));
                }
            }
        }
        Ok(())
    }
}
