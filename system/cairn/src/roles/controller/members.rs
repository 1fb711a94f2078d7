//! Follows who belongs: trust, addresses and this node's certificate are kept as the store says, for this process, for
//! the next start, and for the node's other roles.
//!
//! What is to be known is decided by [`known`] and [`reachable`], pure. A replica that has not heard of this node yet
//! says nothing about it: until then holds what the node was given when it joined.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cairn_cluster::certificates::{Renewal, renewal};
use cairn_cluster::discovery::Sighting;
use cairn_cluster::membership::{Cloud, Member, MemberState, Request, RequestState, change};
use cairn_cluster::witness::{SealKey, Witness};
use cairn_cluster::{Authority, Belonging};
use cairn_node::paths;
use cairn_node::told::{self, Joining, Waiting};
use cairn_state::{Revision, Store};
use cairn_wire::remote::PeerId;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::cluster::Cluster;
use super::left;
use super::surroundings::news;

/// How long it goes without a look.
const LOOK: Duration = Duration::from_secs(2);
/// How many addresses of a node are tried, and how many of them are only what was seen on a link.
const ADDRESSES_MAX: usize = 16;
const SEEN_MAX: usize = 8;

/// Follows, for ever.
pub async fn follow(cluster: Arc<Cluster>) {
    let mut sightings = cluster.sight().seen();
    loop {
        let seen = cluster.store.snapshot().map_or(Revision(0), |s| s.revision());
        if let Err(error) = refresh(&cluster) {
            tracing::warn!(%error, "who belongs to the cloud cannot be followed");
        }
        let change = async {
            match cluster.store.watch("cluster/", seen).await {
                Ok(mut changes) => drop(changes.next().await),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        tokio::select! {
            () = change => {}
            () = news(&mut sightings) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Everything about membership in the store, at one moment.
struct Records {
    cloud: Option<Cloud>,
    members: Vec<Member>,
    authority: Option<Authority>,
    witness: Option<Witness>,
    seal: Option<SealKey>,
    requests: Vec<Request>,
}

fn records(cluster: &Cluster) -> Result<Records> {
    let records = cluster.store.read(|tx| {
        let cloud = tx.get::<Cloud>(Cloud::ID)?;
        let authority = match &cloud {
            Some(cloud) => tx.get::<Authority>(&cloud.id)?,
            None => None,
        };
        let (members, requests) = (tx.list_unfenced::<Member>()?, tx.list_unfenced::<Request>()?);
        let (witness, seal) = (tx.get::<Witness>(Witness::ID)?, tx.get::<SealKey>(SealKey::ID)?);
        Ok::<_, change::Error>(Records { cloud, members, authority, witness, seal, requests })
    });
    Ok(records?)
}

/// One look.
pub fn refresh(cluster: &Cluster) -> Result<()> {
    let records = records(cluster)?;
    let mut belonging = cluster.kept().belonging;
    if let Some(authority) = &records.authority
        && let Some(now) = known(&belonging, cluster.id, &records, authority)
    {
        belonging = now;
        if renewal(&belonging.certificate, authority.generation, Timestamp::now()) == Renewal::Now {
            belonging.certificate = authority.issue(&cluster.key.public_key(), Timestamp::now())?;
        }
        cluster.keep(belonging.clone())?;
        cluster.names.set_members(&records.members, records.witness.as_ref());
    }
    if let Some(key) = records.seal.as_ref().and_then(SealKey::bytes) {
        cluster.store.seal_with(&key)?;
    }
    let seen = cluster.sight().seen().borrow().clone();
    let belonging = reachable(belonging, &seen);
    cluster.call_at(&belonging);
    tell(cluster, &belonging, &records)
}

/// Leaves word for the node's other roles, and for its screen.
fn tell(cluster: &Cluster, belonging: &Belonging, records: &Records) -> Result<()> {
    write_if_new(cluster, &serde_json::to_vec(belonging)?)?;
    let waiting = records.requests.iter().filter(|r| r.state == RequestState::Waiting);
    let waiting = waiting.map(|r| Waiting { name: r.name.clone(), words: r.words.to_string() }).collect();
    let joining = Joining { state: state(cluster.id, records), words: None, waiting };
    if told::joining(cluster.paths()).as_ref() != Some(&joining) {
        told::tell_joining(cluster.paths(), &joining)?;
    }
    Ok(())
}

fn write_if_new(cluster: &Cluster, text: &[u8]) -> Result<()> {
    let file = cluster.paths().trust();
    if std::fs::read(&file).is_ok_and(|had| had == text) {
        return Ok(());
    }
    Ok(paths::write_file(&file, text, 0o644)?)
}

/// What a person must be told of this node; nothing if all is well.
fn state(me: PeerId, records: &Records) -> String {
    let mine = records.members.iter().find(|m| m.id == me);
    match (mine, &records.cloud) {
        (Some(me), _) if me.state == MemberState::Removed => left::SAYS.into(),
        (None, None) => "This node was let in and waits for the cloud's state.".into(),
        _ => String::new(),
    }
}

/// What this node knows of its cloud by its store; `None` if the store does not say that it belongs.
fn known(before: &Belonging, me: PeerId, records: &Records, authority: &Authority) -> Option<Belonging> {
    let members = &records.members;
    let mine = members.iter().find(|m| m.id == me)?;
    if !mine.is_trusted() || authority.cloud != before.cloud {
        return None;
    }
    Some(Belonging {
        authority: authority.certificate.clone(),
        members: members.iter().filter(|m| m.is_trusted()).map(Member::pin).collect(),
        removed: members.iter().filter(|m| !m.is_trusted()).map(|m| m.id).collect(),
        witness: records.witness.as_ref().map(Witness::pin),
        ..before.clone()
    })
}

/// The same with the addresses at which members are seen on the links, behind those that they have reported: both
/// are hints, and who answers must have the member's key.
fn reachable(mut belonging: Belonging, seen: &[Sighting]) -> Belonging {
    let seen: BTreeMap<PeerId, &Vec<SocketAddr>> =
        seen.iter().map(|s| (s.announcement.node, &s.addresses)).collect();
    for pin in &mut belonging.members {
        pin.addresses.truncate(ADDRESSES_MAX - SEEN_MAX);
        let found = seen.get(&pin.id).into_iter().copied().flatten();
        let more: Vec<_> = found.filter(|a| !pin.addresses.contains(a)).take(SEEN_MAX).copied().collect();
        pin.addresses.extend(more);
    }
    belonging
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_cluster::membership::Pin;
    use cairn_cluster::{Der, NodeKey};

    fn member(key: &NodeKey, state: MemberState) -> Member {
        let public_key = Der(key.public_key());
        let (joined, addresses) = (Timestamp::UNIX_EPOCH, vec!["192.0.2.1:4600".parse().unwrap()]);
        Member {
            id: key.id(),
            name: key.name(),
            public_key,
            addresses,
            state,
            voter: false,
            replica: None,
            joined,
        }
    }

    fn records(members: &[Member]) -> Records {
        let members = members.to_vec();
        Records { cloud: None, members, authority: None, witness: None, seal: None, requests: vec![] }
    }

    #[test]
    fn a_store_that_does_not_say_so_takes_nothing_away() {
        let (a, b) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        let authority = Authority::create("c", 2).unwrap();
        let certificate = authority.issue(&a.public_key(), Timestamp::now()).unwrap();
        let before = Belonging {
            cloud: "c".into(),
            certificate: certificate.clone(),
            authority: Der(vec![1]),
            members: vec![Pin { id: b.id(), name: b.name(), addresses: vec![] }],
            removed: vec![],
            witness: None,
        };
        let (mine, other) = (member(&a, MemberState::Member), member(&b, MemberState::Removed));
        let known =
            |members: &[Member], authority: &Authority| known(&before, a.id(), &records(members), authority);
        assert_eq!(known(&[], &authority), None);
        assert_eq!(known(&[member(&a, MemberState::Removed)], &authority), None);
        let foreign = Authority::create("other", 1).unwrap();
        assert_eq!(known(std::slice::from_ref(&mine), &foreign), None);
        let now = known(&[mine.clone(), other], &authority).unwrap();
        assert_eq!((&now.members, &now.removed), (&vec![mine.pin()], &vec![b.id()]));
        assert_eq!((now.authority, now.certificate), (authority.certificate, certificate));
    }

    #[test]
    fn what_is_seen_comes_behind_what_was_reported_and_cannot_push_it_out() {
        use cairn_cluster::discovery::{Announcement, Phase};
        let key = NodeKey::generate().unwrap();
        let announcement = Announcement {
            node: key.id(),
            name: key.name(),
            cloud: "c".into(),
            phase: Phase::Member,
            founded_s: 0,
            members: 1,
            in_use: false,
            versions: cairn_wire::remote::Versions::OURS,
        };
        let addresses = (0..50).map(|n| SocketAddr::from(([10, 0, 0, n], 4600))).collect();
        let authority = Authority::create("c", 1).unwrap();
        let belonging = Belonging {
            cloud: "c".into(),
            certificate: authority.issue(&key.public_key(), Timestamp::now()).unwrap(),
            authority: authority.certificate,
            members: vec![member(&key, MemberState::Member).pin()],
            removed: vec![],
            witness: None,
        };
        let now = reachable(belonging, &[Sighting { announcement, addresses }]);
        let [pin] = &now.members[..] else { panic!("one member") };
        assert_eq!(pin.addresses[0], "192.0.2.1:4600".parse().unwrap());
        assert_eq!(pin.addresses.len(), 1 + SEEN_MAX);
    }
}
