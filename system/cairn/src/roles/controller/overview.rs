//! The cloud as this node sees it: members, who votes, who leads, who waits to be let in, what the next loss would mean.
//! For `cairn status` and the appliance's API.
//!
//! Only reading. What this replica knows is shown even without a majority, and then said to be old.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cairn_cluster::Alive;
use cairn_cluster::membership::{Cloud, JoinPolicy, Member, Request, RequestState, change};
use cairn_cluster::witness::Witness;
use cairn_state::{Abort, Tx};
use cairn_wire::remote::PeerId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::address;
use super::cluster::Cluster;
use super::witness;

/// How long it takes at most to find out whether what is shown is current.
const WITHIN: Duration = Duration::from_secs(2);

/// The cloud as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The cloud's id.
    pub cloud: String,
    /// This node's name.
    pub node: String,
    /// Who leads, by name, as far as is known.
    pub leader: Option<String>,
    /// Whether this is what a majority knows now; else it is what this node knew last.
    pub current: bool,
    /// How often the cloud was gone on with without its majority, and one.
    pub generation: u64,
    /// What the next loss would mean.
    pub outlook: String,
    /// The cloud's own address, if it was given one.
    pub address: Option<IpAddr>,
    /// The node that has it now.
    pub address_on: Option<String>,
    /// Until when joining is open.
    pub open_until: Option<Timestamp>,
    /// Everyone who belongs or has belonged.
    pub members: Vec<MemberLine>,
    /// The machine that votes and is no node, if there is one.
    pub witness: Option<WitnessLine>,
    /// Who waits to be let in, or was refused.
    pub requests: Vec<RequestLine>,
}

/// A member as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberLine {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: PeerId,
    /// How far it belongs.
    pub state: String,
    /// Whether its replica votes now.
    pub voter: bool,
    /// Whether it is in touch with the cloud.
    pub alive: bool,
    /// Where it can be tried.
    pub addresses: Vec<SocketAddr>,
}

/// The witness as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WitnessLine {
    /// Its identity.
    pub id: PeerId,
    /// Where it is.
    pub addresses: Vec<SocketAddr>,
    /// Whether it votes now.
    pub voter: bool,
    /// Whether it answers this node.
    pub alive: bool,
}

/// A request to join as an operator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestLine {
    /// The name of the node that asks.
    pub name: String,
    /// Its identity.
    pub id: PeerId,
    /// What its screen shows if nobody is in the middle.
    pub words: String,
    /// When it asked.
    pub asked: Timestamp,
    /// Who refused it, if somebody did.
    pub refused_by: Option<String>,
}

/// What this node sees now.
pub async fn overview(cluster: &Cluster) -> Result<Overview, change::Error> {
    let current = matches!(tokio::time::timeout(WITHIN, cluster.store.catch_up()).await, Ok(Ok(())));
    let status = cluster.store.status().map_err(Abort::from)?;
    let mut overview = cluster.store.read(|tx| lines(tx, &status.voters))?;
    if let Some(line) = &mut overview.witness {
        line.alive = witness::answers(cluster, line.id).await;
    }
    let leader = status.leader.and_then(|leader| cluster.names.of_replica(leader));
    overview.leader =
        leader.and_then(|id| overview.members.iter().find(|m| m.id == id)).map(|m| m.name.clone());
    overview.node.clone_from(&cluster.name);
    overview.outlook = outlook(&overview.members, overview.witness.as_ref(), current);
    (overview.current, overview.generation) = (current, status.generation);
    Ok(overview)
}

fn lines(tx: &mut Tx, voters: &BTreeSet<u64>) -> Result<Overview, change::Error> {
    let policy = tx.get::<JoinPolicy>(JoinPolicy::ID)?.unwrap_or_default();
    let alive: BTreeSet<_> = tx.list_unfenced::<Alive>()?.into_iter().map(|alive| alive.node).collect();
    let members = tx.list_unfenced::<Member>()?.into_iter().map(|m| MemberLine {
        alive: alive.contains(&m.name),
        voter: m.replica.is_some_and(|replica| voters.contains(&replica)),
        state: format!("{:?}", m.state).to_lowercase(),
        name: m.name,
        id: m.id,
        addresses: m.addresses,
    });
    let members = members.collect();
    // Whether it answers, it is asked.
    let witness = tx.get::<Witness>(Witness::ID)?.map(|w| WitnessLine {
        voter: w.replica.is_some_and(|replica| voters.contains(&replica)),
        alive: false,
        id: w.id,
        addresses: w.addresses,
    });
    let requests = tx.list_unfenced::<Request>()?.into_iter().map(|r| RequestLine {
        refused_by: match r.state {
            RequestState::Waiting => None,
            RequestState::Refused { by } => Some(by),
        },
        name: r.name,
        id: r.id,
        words: r.words.to_string(),
        asked: r.asked,
    });
    let requests = requests.collect();
    let cloud = tx.get::<Cloud>(Cloud::ID)?.map(|cloud| cloud.id).unwrap_or_default();
    let front = address::get(tx)?;
    let address_on = front.holder.filter(|_| front.address.is_some());
    let (address, open_until) = (front.address, policy.open_until);
    Ok(Overview { cloud, address, address_on, open_until, members, witness, requests, ..Overview::default() })
}

/// What the next loss of a member would mean.
fn outlook(members: &[MemberLine], witness: Option<&WitnessLine>, current: bool) -> String {
    let witness = witness.filter(|w| w.voter).map(|w| ("the witness", w.alive));
    let nodes = members.iter().filter(|m| m.voter).map(|m| (m.name.as_str(), m.alive));
    let voters: Vec<_> = nodes.chain(witness).collect();
    let others = members.iter().filter(|m| m.state != "removed" && !m.voter).count();
    let spare = voters.iter().filter(|(_, alive)| *alive).count().checked_sub(voters.len() / 2 + 1);
    match (&voters[..], spare) {
        _ if !current => "The majority of the members that vote cannot be reached: nothing can be changed, and what is \
                          shown is what this node knew last. Switch the others on; if they are lost for good, see: \
                          cairn recover"
            .into(),
        ([(one, _)], _) if others == 0 => format!("{one} is the only node: what is lost with it is lost."),
        ([(one, _)], _) => format!(
            "Only {one} votes. If another node is lost, all goes on; if {one} is lost, nothing can be changed until it \
             is back or \"cairn recover\" is given on another node. A third node ends that, or a witness: see \"cairn \
             witness\"."
        ),
        (_, Some(0) | None) => "If one more of the members that vote is lost, nothing can be changed until it is back, \
                                or another takes its place."
            .into(),
        (_, Some(1)) => "One more of the members that vote may be lost, and all goes on.".into(),
        (_, Some(n)) => format!("{n} more of the members that vote may be lost, and all goes on."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(all: &[(bool, bool)]) -> Vec<MemberLine> {
        let line = |(n, (voter, alive)): (usize, &(bool, bool))| MemberLine {
            name: format!("n{n}"),
            id: PeerId::new([n as u8; 32]),
            state: "member".into(),
            voter: *voter,
            alive: *alive,
            addresses: vec![],
        };
        all.iter().enumerate().map(line).collect()
    }

    #[test]
    fn what_the_next_loss_means_is_said_plainly() {
        let (voter, learner, dead) = ((true, true), (false, true), (true, false));
        let say = |all: &[(bool, bool)]| outlook(&members(all), None, true);
        assert!(say(&[voter]).starts_with("n0 is the only node"));
        assert!(
            say(&[voter, learner])
                .starts_with("Only n0 votes. If another node is lost, all goes on; if n0 is lost")
        );
        let with_witness = |alive| {
            let witness = WitnessLine { id: PeerId::new([9; 32]), addresses: vec![], voter: true, alive };
            outlook(&members(&[voter, voter]), Some(&witness), true)
        };
        assert!(with_witness(true).starts_with("One more") && with_witness(false).starts_with("If one more"));
        assert!(say(&[voter; 3]).starts_with("One more"));
        assert!(say(&[voter, voter, dead]).starts_with("If one more"));
        assert!(say(&[voter; 5]).starts_with("2 more"));
        assert!(outlook(&members(&[voter, dead, dead]), None, false).contains("what this node knew last"));
    }
}
