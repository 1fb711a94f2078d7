//! The cloud's witness: taken in and let go by an operator's order, told by the leader who the nodes are.
//!
//! Each order is one transaction; the group follows by the leader's duty (`voters`). It must not be let go while a node
//! that votes is out of touch, since the votes that are left would be too few to agree on it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_cluster::membership::service::Health;
use cairn_cluster::membership::{Member, change};
use cairn_cluster::witness::{Begin, Code, Known, SealKey, Told, Witness};
use cairn_wire::remote::{Connection, Expect, PeerId};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::cluster::Cluster;

/// How long the witness may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// How long the leader waits for it, once a look.
const TELL_WITHIN: Duration = Duration::from_secs(2);
/// How long the group may take to let it go before it is left to find out by itself.
const LET_GO_WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);

/// An order to take in a witness.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    /// Where it is: an IP address, or one with a port.
    pub address: String,
    /// The code that it shows.
    pub code: String,
}

/// Takes in the witness at this address, if it has this code; says where one is now that the cloud has already.
pub async fn add(cluster: &Cluster, order: &Add) -> Result<()> {
    let code: Code = order.code.parse()?;
    let address = address(&order.address)?;
    let connection = Connection::open(cluster.endpoint(), &[address], Expect::Anyone).await?;
    let id = connection.peer().id;
    if !code.is_of(id) {
        bail!("{address} is not the machine whose code this is");
    }
    let members = cluster.store.read(|tx| Ok::<_, change::Error>(tx.list_unfenced::<Member>()?))?;
    if members.iter().any(|member| member.id == id) {
        bail!("{address} is a node of this cloud: a witness is a machine of its own");
    }
    let secret = code.secret.reveal().to_owned();
    let begin = Begin { secret, told: told(cluster, &members)? };
    let health: Health = connection.call("witness/begin", &begin, WITHIN).await?;
    let key = SealKey::generate()?;
    let taken = cluster.store.transact(|tx| {
        let before = tx.get::<Witness>(Witness::ID)?;
        if before.as_ref().is_some_and(|before| before.id != id) {
            return Ok(false);
        }
        if tx.get::<SealKey>(SealKey::ID)?.is_none() {
            tx.put(&key)?;
        }
        let (voter, since) = before.map_or((false, Timestamp::now()), |before| (before.voter, before.since));
        tx.put(&Witness { id, addresses: vec![address], voter, replica: Some(health.replica), since })?;
        Ok::<_, change::Error>(true)
    });
    if !taken.await? {
        bail!("the cloud has another witness: let that go first (cairn witness remove)");
    }
    tracing::info!(%address, "the cloud has a witness");
    Ok(())
}

/// Lets the witness go.
pub async fn remove(cluster: &Cluster) -> Result<()> {
    let read = cluster
        .store
        .read(|tx| Ok::<_, change::Error>((tx.get::<Witness>(Witness::ID)?, tx.list_unfenced::<Member>()?)));
    let (Some(witness), members) = read? else { bail!("the cloud has no witness") };
    if witness.voter
        && let Some(name) = silent(cluster, &members).await
    {
        bail!("{name} votes and does not answer: the witness makes up for it until it is back, or removed");
    }
    let done = cluster.store.transact(|tx| Ok::<_, change::Error>(tx.delete::<Witness>(Witness::ID)?));
    done.await?;
    tracing::info!("the cloud lets its witness go");
    let until = Instant::now() + LET_GO_WITHIN;
    let in_group = |replica| cluster.store.status().is_ok_and(|s| s.members.contains_key(&replica));
    while witness.replica.is_some_and(in_group) && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
    }
    // It may be gone for good; then nobody is left to forget anything.
    let end = Connection::open(cluster.stranger(), &witness.addresses, Expect::Stranger(witness.id)).await;
    if let Ok(connection) = end
        && let Err(error) = connection.call::<_, ()>("witness/end", &(), WITHIN).await
    {
        tracing::info!(%error, "the witness was not told that it is let go");
    }
    Ok(())
}

/// A node that votes and does not answer.
async fn silent(cluster: &Cluster, members: &[Member]) -> Option<String> {
    let voters = members.iter().filter(|m| m.is_trusted() && m.voter && m.id != cluster.id);
    let asked = voters.map(|m| async {
        let heard = cluster.peers.call::<_, Health>(m.id, "cluster/health", &(), TELL_WITHIN).await;
        heard.is_err().then(|| m.name.clone())
    });
    join_all(asked).await.into_iter().flatten().next()
}

/// Tells the witness who the nodes are; what it answers, and that it has begun anew if it had to.
pub async fn tell(cluster: &Cluster, witness: &Witness, members: &[Member]) -> Option<Health> {
    let told = told(cluster, members).ok()?;
    let health: Health = cluster.peers.call(witness.id, "witness/tell", &told, TELL_WITHIN).await.ok()?;
    if witness.replica != Some(health.replica)
        && let Err(error) = began_anew(cluster, witness, health.replica).await
    {
        tracing::info!(error = format!("{error:#}"), "that the witness has begun anew was not written down");
    }
    Some(health)
}

async fn began_anew(cluster: &Cluster, witness: &Witness, replica: u64) -> Result<()> {
    let noted = cluster.store.transact(|tx| {
        if let Some(mut now) = tx.get::<Witness>(Witness::ID)?.filter(|now| now == witness) {
            (now.replica, now.voter) = (Some(replica), false);
            tx.put(&now)?;
        }
        Ok::<_, change::Error>(())
    });
    Ok(noted.await?)
}

/// Whether the witness answers.
pub async fn answers(cluster: &Cluster, witness: PeerId) -> bool {
    cluster.peers.call::<_, Health>(witness, "witness/health", &(), TELL_WITHIN).await.is_ok()
}

/// What a witness is told of this cloud.
fn told(cluster: &Cluster, members: &[Member]) -> Result<Told> {
    let known = members.iter().filter(|m| m.is_trusted()).map(|m| Known {
        id: m.id,
        name: m.name.clone(),
        addresses: m.addresses.clone(),
        replica: m.replica,
    });
    let generation = cluster.store.status()?.generation;
    Ok(Told { cloud: cluster.kept().belonging.cloud, generation, members: known.collect() })
}

fn address(text: &str) -> Result<SocketAddr> {
    let ip = text.parse().map(|ip| SocketAddr::new(ip, cairn_wire::remote::PORT));
    text.parse().or(ip).with_context(|| format!("{text} is no IP address, nor one with a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_port() {
        let is = |text: &str| address(text).ok().map(|a| a.to_string());
        assert_eq!(is("192.0.2.9").as_deref(), Some("192.0.2.9:4600"));
        assert_eq!(is("2001:db8::9").as_deref(), Some("[2001:db8::9]:4600"));
        assert_eq!(is("192.0.2.9:4700").as_deref(), Some("192.0.2.9:4700"));
        assert_eq!((is("nas"), is("")), (None, None));
    }
}
