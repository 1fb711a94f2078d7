//! Tells the cloud where this node is and which replica of the store it holds, whenever the records say otherwise.
//!
//! A replica that is in the group writes that down itself; one that is not yet asks a member to, and the leader then
//! takes it in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cairn_cluster::membership::service::Hello;
use cairn_cluster::membership::{Member, MemberState, change};

use super::address;
use super::cluster::Cluster;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a member may take to write it down.
const WITHIN: Duration = Duration::from_secs(10);

/// Runs for ever.
pub async fn run(cluster: Arc<Cluster>) {
    loop {
        if let Err(error) = look(&cluster).await {
            tracing::info!(error = format!("{error:#}"), "the cloud could not be told where this node is");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(cluster: &Cluster) -> Result<()> {
    let status = cluster.store.status()?;
    // The cloud's own address is nobody's for long.
    let shared = cluster.store.read(|tx| Ok::<_, change::Error>(address::get(tx)?.address))?;
    let mut addresses = cluster.around().reachable_at();
    addresses.retain(|own| Some(own.ip()) != shared);
    let hello = Hello { replica: status.node, addresses };
    let id = cluster.id.to_string();
    if !status.members.contains_key(&status.node) {
        return ask(cluster, &hello).await;
    }
    let mine = cluster.store.read(|tx| Ok::<_, change::Error>(tx.get::<Member>(&id)?))?;
    // Without a record this replica is behind, and with a removed one there is nothing to say.
    if !mine.is_some_and(|mine| is_news(&mine, &hello)) {
        return Ok(());
    }
    let written = cluster
        .store
        .transact(|tx| change::heard_of(tx, cluster.id, hello.addresses.clone(), Some(hello.replica)));
    Ok(written.await?)
}

/// Whether the record does not say all of this.
fn is_news(mine: &Member, hello: &Hello) -> bool {
    let moved = !hello.addresses.is_empty() && addresses(&mine.addresses) != addresses(&hello.addresses);
    mine.is_trusted() && (moved || mine.replica != Some(hello.replica) || mine.state == MemberState::Joining)
}

/// What is kept of addresses, in any order: those of one link mean nothing elsewhere.
fn addresses(of: &[SocketAddr]) -> std::collections::BTreeSet<SocketAddr> {
    let local = |a: &SocketAddr| match a {
        SocketAddr::V6(v6) => v6.ip().is_unicast_link_local(),
        SocketAddr::V4(v4) => v4.ip().is_link_local(),
    };
    of.iter().filter(|a| !local(a)).copied().collect()
}

/// Asks one member after the other.
async fn ask(cluster: &Cluster, hello: &Hello) -> Result<()> {
    let mut last = None;
    for pin in cluster.kept().belonging.members.iter().filter(|pin| pin.id != cluster.id) {
        match cluster.peers.call(pin.id, "cluster/hello", hello, WITHIN).await {
            Ok(()) => return Ok(()),
            Err(e) => last = Some(e),
        }
    }
    Err(last.context("no other member is known")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_cluster::{Der, NodeKey};

    #[test]
    fn only_news_is_told() {
        let key = NodeKey::generate().unwrap();
        let at: SocketAddr = "192.0.2.1:4600".parse().unwrap();
        let link: SocketAddr = "[fe80::1]:4600".parse().unwrap();
        let mine = Member {
            id: key.id(),
            name: key.name(),
            public_key: Der(key.public_key()),
            addresses: vec![at],
            state: MemberState::Member,
            voter: false,
            replica: Some(7),
            joined: jiff::Timestamp::UNIX_EPOCH,
        };
        let hello = |replica, addresses: &[SocketAddr]| Hello { replica, addresses: addresses.to_vec() };
        assert!(!is_news(&mine, &hello(7, &[at, link])) && !is_news(&mine, &hello(7, &[])));
        assert!(
            is_news(&mine, &hello(8, &[at]))
                && is_news(&mine, &hello(7, &["192.0.2.2:4600".parse().unwrap()]))
        );
        assert!(is_news(&Member { state: MemberState::Joining, ..mine.clone() }, &hello(7, &[at])));
        assert!(!is_news(&Member { state: MemberState::Removed, ..mine }, &hello(8, &[at])));
    }
}
