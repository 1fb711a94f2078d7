//! The leader's duty towards its group: takes in replicas of members, makes voters of those that are wanted, lets go
//! of those that are no member's any more.
//!
//! Who shall vote is [`voters`]'s to decide; [`plan`] makes steps of it, pure, from the records, the group, and how the
//! leader finds the members. Each step is one change of the group or one transaction, and what was cut short is found
//! undone by the next look. Only a leader acts, and the group refuses one that no longer is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cairn_cluster::membership::service::Health as Heard;
use cairn_cluster::membership::voters::{Candidate, Health, voters};
use cairn_cluster::membership::{Member, change};
use cairn_cluster::witness::Witness;
use cairn_state::{Status, is_witness};
use cairn_wire::remote::PeerId;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::cluster::{Cluster, leads};
use super::witness;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a member may take to say how it is.
const WITHIN: Duration = Duration::from_secs(2);
/// How many entries of the log a replica may be behind and still count as up to date: they are on their way.
const LAG_MAX: u64 = 1000;

/// Runs for ever.
pub async fn run(cluster: Arc<Cluster>) {
    let mut watch = Watch::default();
    loop {
        if let Err(error) = watch.look(&cluster).await {
            tracing::info!(error = format!("{error:#}"), "the store's group could not be changed this time");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a leader remembers of its members, for as long as it leads.
#[derive(Default)]
struct Watch {
    heard: BTreeMap<PeerId, Instant>,
    since: Option<Instant>,
}

impl Watch {
    async fn look(&mut self, cluster: &Cluster) -> Result<()> {
        let status = cluster.store.status()?;
        if !leads(&status) {
            *self = Watch::default();
            return Ok(());
        }
        let (members, witness) = cluster.store.read(|tx| {
            Ok::<_, change::Error>((tx.list_unfenced::<Member>()?, tx.get::<Witness>(Witness::ID)?))
        })?;
        let told = async {
            match &witness {
                Some(witness) => witness::tell(cluster, witness, &members).await,
                None => None,
            }
        };
        let (mut health, heard) = tokio::join!(self.health(cluster, &status, &members), told);
        if let Some(witness) = &witness {
            health.insert(witness.id, self.heard(witness.id, witness.replica, heard, status.applied));
        }
        for step in plan(&status, &seats(&members, witness.as_ref()), &health) {
            tracing::info!(?step, "the store's group changes");
            step.take(cluster).await?;
        }
        Ok(())
    }

    /// Asks every member how it is, all at once.
    async fn health(
        &mut self,
        cluster: &Cluster,
        status: &Status,
        members: &[Member],
    ) -> BTreeMap<PeerId, Health> {
        let others = members.iter().filter(|m| m.is_trusted() && m.id != cluster.id);
        let asked = others.map(|m| async move {
            (m, cluster.peers.call::<_, Heard>(m.id, "cluster/health", &(), WITHIN).await.ok())
        });
        let mut health = BTreeMap::from([(cluster.id, Health::Up { caught_up: true })]);
        for (member, heard) in join_all(asked).await {
            health.insert(member.id, self.heard(member.id, member.replica, heard, status.applied));
        }
        health
    }

    /// Notes whether it has answered, and says how it is.
    fn heard(&mut self, id: PeerId, replica: Option<u64>, heard: Option<Heard>, applied: u64) -> Health {
        let since = *self.since.get_or_insert_with(Instant::now);
        if heard.is_some() {
            self.heard.insert(id, Instant::now());
        }
        let last = self.heard.get(&id).copied().unwrap_or(since);
        judge(replica, heard, applied, last.elapsed())
    }
}

/// How a member is that has answered so, or was last heard of so long ago.
fn judge(replica: Option<u64>, heard: Option<Heard>, applied: u64, silent: Duration) -> Health {
    match heard {
        Some(heard) => {
            let same = replica == Some(heard.replica);
            Health::Up { caught_up: same && heard.applied.saturating_add(LAG_MAX) >= applied }
        }
        None => Health::Silent(silent),
    }
}

/// One change.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Takes a replica in.
    Admit(u64, cairn_state::Member),
    /// Writes down who shall vote.
    Record(BTreeSet<PeerId>),
    /// Makes these replicas the voters.
    Voters(BTreeSet<u64>),
    /// Lets another lead, since this node shall not vote.
    HandOver(u64),
    /// Lets a replica go.
    Dismiss(u64),
}

impl Step {
    async fn take(self, cluster: &Cluster) -> Result<()> {
        let store = &cluster.store;
        match self {
            Step::Admit(replica, member) => store.admit(replica, member).await?,
            Step::Record(wanted) => store.transact(|tx| change::set_voters(tx, &wanted)).await?,
            Step::Voters(replicas) => store.set_voters(replicas).await?,
            Step::HandOver(to) => store.hand_over(to).await?,
            Step::Dismiss(replica) => store.dismiss(replica).await?,
        }
        Ok(())
    }
}

/// Who may sit in the group, as far as a plan goes: a node that is trusted, or the witness.
struct Seat {
    candidate: Candidate,
    replica: Option<u64>,
    name: String,
    addresses: Vec<String>,
}

/// The seats. How the candidates are is not known yet.
fn seats(members: &[Member], witness: Option<&Witness>) -> Vec<Seat> {
    let unknown = Health::Silent(Duration::ZERO);
    let addresses = |all: &[std::net::SocketAddr]| all.iter().map(ToString::to_string).collect();
    let nodes = members.iter().filter(|m| m.is_trusted()).map(|m| Seat {
        candidate: Candidate::of(m, false, unknown),
        replica: m.replica,
        name: m.name.clone(),
        addresses: addresses(&m.addresses),
    });
    let witness = witness.map(|w| Seat {
        candidate: Candidate::of_witness(w, unknown),
        replica: w.replica,
        name: Witness::NAME.into(),
        addresses: addresses(&w.addresses),
    });
    nodes.chain(witness).collect()
}

/// What the leader does next.
fn plan(status: &Status, seats: &[Seat], health: &BTreeMap<PeerId, Health>) -> Vec<Step> {
    let in_group = |replica: &u64| status.members.contains_key(replica);
    let missing = seats.iter().filter_map(|s| Some((s.replica.filter(|r| !in_group(r))?, s)));
    let mut steps: Vec<_> = missing.map(|(r, s)| Step::Admit(r, in_the_group(s))).collect();
    let wanted = wanted(status, seats, health);
    let voting: BTreeSet<_> = seats.iter().map(|s| &s.candidate).filter(|c| c.voter).map(|c| c.id).collect();
    if wanted != voting {
        steps.push(Step::Record(wanted.clone()));
    }
    let find = |id: &PeerId| seats.iter().find(|s| s.candidate.id == *id).and_then(|s| s.replica);
    let replicas: Option<BTreeSet<u64>> = wanted.iter().map(|id| find(id).filter(in_group)).collect();
    match replicas {
        Some(replicas) if replicas.is_empty() || replicas == status.voters => {}
        Some(replicas) if replicas.contains(&status.node) => steps.push(Step::Voters(replicas)),
        Some(replicas) => {
            steps.push(match replicas.intersection(&status.voters).find(|r| !is_witness(**r)) {
                Some(to) => Step::HandOver(*to),
                // None of them votes yet: they do beside this node until one of them leads.
                None => Step::Voters(replicas.into_iter().chain([status.node]).collect()),
            })
        }
        // One of them is only being taken in.
        None => {}
    }
    let of_members: BTreeSet<_> = seats.iter().filter_map(|s| s.replica).collect();
    let left = status.members.keys().filter(|r| **r != status.node && !status.voters.contains(r));
    steps.extend(left.filter(|r| !of_members.contains(r)).map(|r| Step::Dismiss(*r)));
    steps
}

/// Who shall vote.
fn wanted(status: &Status, seats: &[Seat], health: &BTreeMap<PeerId, Health>) -> BTreeSet<PeerId> {
    let candidates: Vec<_> = seats
        .iter()
        .map(|s| {
            let leader = s.replica == Some(status.node);
            let health = health.get(&s.candidate.id).copied().unwrap_or(s.candidate.health);
            Candidate { leader, health, ..s.candidate.clone() }
        })
        .collect();
    voters(&candidates)
}

fn in_the_group(seat: &Seat) -> cairn_state::Member {
    cairn_state::Member { name: seat.name.clone(), addresses: seat.addresses.clone() }
}

#[cfg(test)]
#[path = "voters_tests.rs"]
mod tests;
