//! The certificate of this node's API: issued here, by the cloud's authority in the store, for the names and addresses
//! that clients may use; made anew when those change or it is old. Its key never leaves this process.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cairn_cluster::ApiAuthority;
use cairn_cluster::membership::{Member, change};
use cairn_gateway::server::Certificates;
use cairn_node::told;
use tokio::time::Instant;

use super::address;
use super::cluster::Cluster;

/// How often addresses are looked at.
const LOOK: Duration = Duration::from_secs(3);
/// How often a new replica is asked for the authority.
const EAGER: Duration = Duration::from_millis(100);
/// How long a certificate is used before a new one is made (it is valid for far longer).
const RENEW_AFTER: Duration = Duration::from_secs(30 * 86_400);

/// What the API shows, and what it was made for.
pub struct Shown {
    /// To serve with.
    pub certificates: Arc<Certificates>,
    authority: ApiAuthority,
    addresses: BTreeSet<IpAddr>,
    made: Instant,
}

/// Waits until the replica has the authority, and issues the first certificate.
pub async fn first(cluster: &Cluster) -> Result<Shown> {
    let authority = loop {
        match authority(cluster)? {
            Some(authority) => break authority,
            None => tokio::time::sleep(EAGER).await,
        }
    };
    told::tell_authority(cluster.paths(), &authority.certificate, &authority.fingerprint()?)
        .context("the API's authority cannot be told to the node role")?;
    let addresses = addresses(cluster)?;
    let pem = issue(cluster, &authority, &addresses)?;
    let certificates = Certificates::from_pem(pem.as_bytes(), pem.as_bytes())?;
    Ok(Shown { certificates, authority, addresses, made: Instant::now() })
}

/// Keeps it fitting, for ever.
pub async fn keep(cluster: Arc<Cluster>, mut shown: Shown) {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(error) = shown.look(&cluster) {
            tracing::warn!(error = format!("{error:#}"), "the API's certificate cannot be renewed");
        }
    }
}

impl Shown {
    fn look(&mut self, cluster: &Cluster) -> Result<()> {
        let now = addresses(cluster)?;
        if now == self.addresses && self.made.elapsed() < RENEW_AFTER {
            return Ok(());
        }
        let pem = issue(cluster, &self.authority, &now)?;
        self.certificates.reload(pem.as_bytes(), pem.as_bytes())?;
        (self.addresses, self.made) = (now, Instant::now());
        tracing::info!("a new certificate of the API is in use");
        Ok(())
    }
}

fn authority(cluster: &Cluster) -> Result<Option<ApiAuthority>> {
    Ok(cluster.store.read(|tx| Ok::<_, change::Error>(tx.get::<ApiAuthority>(ApiAuthority::ID)?))?)
}

/// Every address that a client may use here: this node's own, those of all members, and the cloud's.
fn addresses(cluster: &Cluster) -> Result<BTreeSet<IpAddr>> {
    let (members, of_cloud) = cluster
        .store
        .read(|tx| Ok::<_, change::Error>((tx.list_unfenced::<Member>()?, address::get(tx)?.address)))?;
    let of_members = members.iter().filter(|m| m.is_trusted()).flat_map(|m| &m.addresses).map(|a| a.ip());
    let own: Vec<_> = cluster.addresses().borrow().clone();
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    Ok(of_members.chain(of_cloud).chain(own).chain(loopback).collect())
}

fn issue(cluster: &Cluster, authority: &ApiAuthority, addresses: &BTreeSet<IpAddr>) -> Result<String> {
    let name = &cluster.name;
    let names = [name.clone(), format!("{name}.local"), "cairn.local".to_owned(), "localhost".to_owned()];
    let addresses: Vec<_> = addresses.iter().copied().collect();
    authority.issue(&names, &addresses).context("no certificate can be issued")
}
