//! The servers in the namespaces: DHCP, DNS and metadata. Each is a task on a socket that was made there.
//!
//! What they answer is changed without a break; a socket is opened anew only when it failed or when its
//! namespace is another one. It never stops a server because the store is away.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use cairn_state::Mirror;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::desired::{METADATA_IP, Space};
use super::dhcp::{self, Scope};
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

struct Dhcp {
    scope: watch::Sender<Scope>,
    task: Task,
}

struct Metadata {
    tenants: watch::Sender<Tenants>,
    task: Task,
}

/// The servers of one namespace.
#[derive(Default)]
struct Running {
    inode: u64,
    dhcp: Option<Dhcp>,
    dns: BTreeMap<IpAddr, Task>,
    metadata: Option<Metadata>,
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
        dhcp.and(dns).and(metadata)
    }
}

impl Running {
    async fn ensure_dhcp(&mut self, name: &str, want: &Space) -> io::Result<()> {
        let Some(scope) = &want.scope else {
            self.dhcp = None;
            return Ok(());
        };
        if let Some(dhcp) =
            self.dhcp.as_ref().filter(|d| d.task.runs() && d.scope.borrow().device == scope.device)
        {
            replace(&dhcp.scope, scope);
            return Ok(());
        }
        self.dhcp = None;
        let socket = dhcp::server::open(name, scope.device.clone()).await?;
        let (sender, receiver) = watch::channel(scope.clone());
        let task = Task::spawn(format!("DHCP in {name}"), dhcp::server::serve(socket, receiver));
        self.dhcp = Some(Dhcp { scope: sender, task });
        Ok(())
    }

    async fn ensure_dns(&mut self, name: &str, want: &Space) -> io::Result<()> {
        let all = want.links.values().flat_map(|v| &v.addresses).map(|a| a.addr());
        let addresses: BTreeSet<IpAddr> =
            all.filter(|ip| want.dns && *ip != IpAddr::V4(METADATA_IP)).collect();
        self.dns.retain(|ip, task| task.runs() && addresses.contains(ip));
        for ip in addresses {
            if !self.dns.contains_key(&ip) {
                let sockets = dns::open(name, ip).await?;
                self.dns.insert(ip, Task::spawn(format!("DNS in {name}"), dns::serve(sockets)));
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
            replace(&metadata.tenants, &want.tenants);
            return Ok(());
        }
        self.metadata = None;
        let listener = metadata::server::open(name).await?;
        let (sender, receiver) = watch::channel(want.tenants.clone());
        let serve = metadata::server::serve(listener, receiver, records.clone());
        self.metadata =
            Some(Metadata { tenants: sender, task: Task::spawn(format!("metadata in {name}"), serve) });
        Ok(())
    }
}

fn replace<T: Clone + PartialEq>(sender: &watch::Sender<T>, value: &T) {
    sender.send_if_modified(|now| {
        let differs = now != value;
        if differs {
            *now = value.clone();
        }
        differs
    });
}
