//! The changes of membership, each inside the caller's transaction. Whoever calls them is the controller.

use std::net::SocketAddr;

use cairn_state::{Abort, Tx};
use cairn_wire::remote::PeerId;
use jiff::{SignedDuration, Timestamp};

use super::records::{
    Belonging, Cloud, CloudState, JoinPolicy, Member, MemberState, Otherwise, Request, RequestState,
};
use crate::certificates::Authority;
use crate::der::Der;
use crate::key::{self, KeyError, NodeKey};
use crate::witness::Witness;
use crate::words::Words;

/// How long a new cloud is open to whoever asks.
pub const OPEN_AT_FIRST: SignedDuration = SignedDuration::from_mins(30);
/// The most nodes a cloud may have, those that were removed included.
pub const MEMBERS_MAX: usize = 1000;
/// The most nodes that may wait to be let in.
pub const REQUESTS_MAX: usize = 64;
/// How long a request waits before another may have its place.
const REQUEST_LASTS: SignedDuration = SignedDuration::from_hours(24);
/// How many addresses of a node are kept.
const ADDRESSES_MAX: usize = 16;

/// Why a change was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Abort),
    /// A key could not be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no cloud here, or it has given way to another.
    #[error("there is no cloud here to join")]
    NoCloud,
    /// There is a cloud here already.
    #[error("there is a cloud here already, {0}")]
    Founded(String),
    /// Nobody of this id belongs or asks.
    #[error("no node {0} is here")]
    Absent(PeerId),
    /// The node asked anew meanwhile.
    #[error("the words have changed to {0}: compare them again")]
    WordsChanged(Words),
    /// The key was removed and is refused for ever.
    #[error("this node was removed from the cloud; it can come back with a new key, when it is reset")]
    Removed,
    /// Two keys with the same name.
    #[error("another node is named {0}; reset this one to give it another name")]
    NameTaken(String),
    /// No room.
    #[error("{0}")]
    Full(&'static str),
    /// The authority was replaced since the successor was made.
    #[error("another node was removed at the same moment: try again")]
    Overtaken,
    /// The last node cannot be removed.
    #[error("the last node cannot be removed")]
    Last,
    /// A user has something in the cloud, so it is not given up.
    #[error("the cloud holds a user's data and is not given up")]
    InUse,
}

/// Founds a cloud with this node as its only member and voter, open to others for the first half hour.
pub fn found(
    tx: &mut Tx,
    authority: &Authority,
    key: &NodeKey,
    addresses: Vec<SocketAddr>,
    now: Timestamp,
) -> Result<Belonging, Error> {
    if let Some(cloud) = tx.get::<Cloud>(Cloud::ID)? {
        return Err(Error::Founded(cloud.id));
    }
    tx.put(&Cloud { id: authority.cloud.clone(), founded: now, state: CloudState::Active })?;
    tx.put(authority)?;
    let open_until = now.checked_add(OPEN_AT_FIRST).ok();
    tx.put(&JoinPolicy { open_until, otherwise: Otherwise::Ask })?;
    let public_key = key.public_key();
    tx.put(&Member {
        id: key.id(),
        name: key.name(),
        public_key: Der(public_key.clone()),
        addresses: bounded(addresses),
        state: MemberState::Member,
        voter: true,
        replica: None,
        joined: now,
    })?;
    belonging(tx, &public_key, now)
}

/// The cloud, if it goes on.
pub fn cloud(tx: &mut Tx) -> Result<Cloud, Error> {
    tx.get::<Cloud>(Cloud::ID)?.filter(|cloud| cloud.state == CloudState::Active).ok_or(Error::NoCloud)
}

/// The authority that issues now.
pub fn authority(tx: &mut Tx) -> Result<Authority, Error> {
    let cloud = cloud(tx)?;
    tx.get::<Authority>(&cloud.id)?.ok_or(Error::NoCloud)
}

/// All that makes the node with this key a member, with a new certificate. It must be one already.
pub fn belonging(tx: &mut Tx, public_key: &[u8], now: Timestamp) -> Result<Belonging, Error> {
    let id = PeerId::of_key(public_key);
    let members = tx.list_unfenced::<Member>()?;
    match tx.get::<Member>(&id.to_string())? {
        None => return Err(Error::Absent(id)),
        Some(member) if !member.is_trusted() => return Err(Error::Removed),
        Some(_) => {}
    }
    let authority = authority(tx)?;
    Ok(Belonging {
        cloud: authority.cloud.clone(),
        certificate: authority.issue(public_key, now)?,
        authority: authority.certificate,
        members: members.iter().filter(|m| m.is_trusted()).map(Member::pin).collect(),
        removed: members.iter().filter(|m| !m.is_trusted()).map(|m| m.id).collect(),
        witness: tx.get::<Witness>(Witness::ID)?.map(|witness| witness.pin()),
    })
}

/// Lets in whoever made this request. Letting in a member again changes its addresses alone.
pub fn admit(tx: &mut Tx, request: &Request, now: Timestamp) -> Result<(), Error> {
    cloud(tx)?;
    let id = request.id.to_string();
    let name = key::name_of(&request.public_key.0)?;
    tx.delete::<Request>(&id)?;
    if let Some(mut member) = tx.get::<Member>(&id)? {
        if !member.is_trusted() {
            return Err(Error::Removed);
        }
        member.addresses = bounded(request.addresses.clone());
        return Ok(tx.put(&member)?);
    }
    let members = tx.list::<Member>()?;
    if members.len() >= MEMBERS_MAX {
        return Err(Error::Full("the cloud has as many nodes as it can have"));
    }
    if members.iter().any(|member| member.name == name) {
        return Err(Error::NameTaken(name));
    }
    Ok(tx.put(&Member {
        id: request.id,
        name,
        public_key: request.public_key.clone(),
        addresses: bounded(request.addresses.clone()),
        state: MemberState::Joining,
        voter: false,
        replica: None,
        joined: now,
    })?)
}

/// Puts a request where a person sees it; in the place of the same node's last one, or of one that waited too long.
pub fn ask(tx: &mut Tx, request: &Request) -> Result<(), Error> {
    cloud(tx)?;
    let waiting = tx.list::<Request>()?;
    let stale = |r: &&Request| request.asked.duration_since(r.asked) > REQUEST_LASTS;
    if waiting.len() >= REQUESTS_MAX && waiting.iter().all(|r| r.id != request.id) {
        let old = waiting.iter().find(stale);
        let old = old.ok_or(Error::Full("too many nodes wait to be let in: answer them first"))?;
        tx.delete::<Request>(&old.id.to_string())?;
    }
    Ok(tx.put(request)?)
}

/// A person says yes, having compared these words.
pub fn accept(tx: &mut Tx, id: PeerId, words: Words, now: Timestamp) -> Result<(), Error> {
    let request = tx.get::<Request>(&id.to_string())?.ok_or(Error::Absent(id))?;
    if request.words != words {
        return Err(Error::WordsChanged(request.words));
    }
    admit(tx, &request, now)
}

/// A person says no.
pub fn refuse(tx: &mut Tx, id: PeerId, by: &str) -> Result<(), Error> {
    let mut request = tx.get::<Request>(&id.to_string())?.ok_or(Error::Absent(id))?;
    request.state = RequestState::Refused { by: by.to_owned() };
    Ok(tx.put(&request)?)
}

/// Notes that a node that was let in has come, or where a member is now and which replica of the store it holds.
/// Who does not know where it is leaves what was known.
pub fn heard_of(
    tx: &mut Tx,
    id: PeerId,
    addresses: Vec<SocketAddr>,
    replica: Option<u64>,
) -> Result<(), Error> {
    let mut member = trusted(tx, id)?;
    let before = member.clone();
    if !addresses.is_empty() {
        member.addresses = bounded(addresses);
    }
    member.replica = replica.or(member.replica);
    if member.state == MemberState::Joining {
        member.state = MemberState::Member;
    }
    if member != before {
        tx.put(&member)?;
    }
    Ok(())
}

/// Begins to let a node go. It votes no more once another can take its place, of whom there must be one.
pub fn leave(tx: &mut Tx, id: PeerId) -> Result<(), Error> {
    let mut member = trusted(tx, id)?;
    if !tx.list::<Member>()?.iter().any(|m| m.id != id && m.state == MemberState::Member) {
        return Err(Error::Last);
    }
    member.state = MemberState::Leaving;
    Ok(tx.put(&member)?)
}

/// Ends that: it stays.
pub fn stay(tx: &mut Tx, id: PeerId) -> Result<(), Error> {
    let mut member = trusted(tx, id)?;
    if member.state == MemberState::Leaving {
        member.state = MemberState::Member;
        tx.put(&member)?;
    }
    Ok(())
}

/// This member goes on as the only one that has a replica of the store: the others get new ones when they are back.
pub fn recovered(tx: &mut Tx, me: PeerId) -> Result<(), Error> {
    for mut member in tx.list::<Member>()?.into_iter().filter(Member::is_trusted) {
        let mine = member.id == me;
        (member.voter, member.replica) = (mine, member.replica.filter(|_| mine));
        tx.put(&member)?;
    }
    if let Some(mut witness) = tx.get::<Witness>(Witness::ID)? {
        (witness.voter, witness.replica) = (false, None);
        tx.put(&witness)?;
    }
    Ok(())
}

/// A member by its id, if it belongs.
pub fn member(tx: &mut Tx, id: PeerId) -> Result<Member, Error> {
    trusted(tx, id)
}

/// Removes a node, dead or alive, for ever; `successor` is the authority that takes the place of the one it has
/// seen ([`Authority::successor`] of [`authority`]). On [`Error::Overtaken`] it is to be made anew.
pub fn remove(tx: &mut Tx, id: PeerId, successor: &Authority) -> Result<(), Error> {
    let mut member = trusted(tx, id)?;
    if tx.list::<Member>()?.iter().filter(|m| m.is_trusted()).count() == 1 {
        return Err(Error::Last);
    }
    if Some(successor.generation) != authority(tx)?.generation.checked_add(1) {
        return Err(Error::Overtaken);
    }
    tx.put(successor)?;
    member.state = MemberState::Removed;
    member.voter = false;
    Ok(tx.put(&member)?)
}

/// Makes exactly these members voters, the witness among them.
pub fn set_voters(tx: &mut Tx, voters: &std::collections::BTreeSet<PeerId>) -> Result<(), Error> {
    for mut member in tx.list::<Member>()? {
        let votes = voters.contains(&member.id) && member.is_trusted();
        if member.voter != votes {
            member.voter = votes;
            tx.put(&member)?;
        }
    }
    if let Some(mut witness) = tx.get::<Witness>(Witness::ID)? {
        let votes = voters.contains(&witness.id);
        if witness.voter != votes {
            witness.voter = votes;
            tx.put(&witness)?;
        }
    }
    Ok(())
}

/// Opens the cloud to whoever asks, for this long.
pub fn open(tx: &mut Tx, span: SignedDuration, now: Timestamp) -> Result<(), Error> {
    let mut policy = tx.get::<JoinPolicy>(JoinPolicy::ID)?.unwrap_or_default();
    policy.open_until = now.checked_add(span).ok();
    Ok(tx.put(&policy)?)
}

/// Gives this cloud up for another, if it holds nothing of a user's (`in_use`, which reads in the same
/// transaction, so that whoever creates something at this moment keeps the cloud).
pub fn yield_to(
    tx: &mut Tx,
    other: &str,
    in_use: impl FnOnce(&mut Tx) -> Result<bool, Abort>,
) -> Result<(), Error> {
    let mut cloud = cloud(tx)?;
    if in_use(tx)? {
        return Err(Error::InUse);
    }
    cloud.state = CloudState::Yielded { to: other.to_owned() };
    Ok(tx.put(&cloud)?)
}

fn trusted(tx: &mut Tx, id: PeerId) -> Result<Member, Error> {
    let member = tx.get::<Member>(&id.to_string())?.ok_or(Error::Absent(id))?;
    if member.is_trusted() { Ok(member) } else { Err(Error::Removed) }
}

/// The first few, without what means something only on the link it was seen on.
fn bounded(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| {
        let local = match address {
            SocketAddr::V6(v6) => v6.ip().is_unicast_link_local(),
            SocketAddr::V4(v4) => v4.ip().is_link_local(),
        };
        !local && !address.ip().is_unspecified() && seen.insert(*address)
    });
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
