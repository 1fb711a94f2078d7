//! Going on without a majority that is lost for good: a person orders it at one surviving node, which then goes on alone
//! with all that its own log has. What others had acknowledged without it is lost.
//!
//! Whether it may be is decided by [`objection`], pure, from what this node finds. The order is kept in a file and carried
//! out by the next start, since nobody may have the store open then; each step can be repeated. The group's next
//! generation keeps out what others still hold: they hear that they were left behind, put their replicas aside and are
//! taken in anew, with their disks and what is on them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_cluster::alive;
use cairn_cluster::membership::service::Health;
use cairn_cluster::membership::{Cloud, Member, change};
use cairn_node::{Paths, paths};
use cairn_state::{LocalStore, Member as InGroup};
use cairn_wire::remote::PeerId;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;

/// How long others may take to answer, and the majority to be found.
const WITHIN: Duration = Duration::from_secs(3);
/// How long a node must have been out of touch before it may go on alone.
const OUT_OF_TOUCH: Duration = Duration::from_secs(60);
/// How often it looks whether it was ordered.
const LOOK: Duration = Duration::from_millis(500);

/// What this node would go on with, and without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prospect {
    /// The cloud's id, which is to be typed to confirm.
    pub cloud: String,
    /// This node's name.
    pub node: String,
    /// Whether the majority is reached: there is nothing to recover.
    pub majority: bool,
    /// Whether this node votes.
    pub votes: bool,
    /// How many vote, this node included if it does.
    pub voters: usize,
    /// The other members.
    pub others: Vec<Other>,
    /// The last change that this node knows to be acknowledged.
    pub applied: u64,
    /// The last change in its log.
    pub last: u64,
    /// How many seconds ago it was in touch with the cloud, since it was switched on.
    pub in_touch_s: Option<u64>,
    /// The generation that the store's group is of.
    pub generation: u64,
    /// Why it may not go on alone.
    pub objection: Option<String>,
}

/// Another member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// Whether it votes.
    pub votes: bool,
    /// The last change in its log, if it answers.
    pub last: Option<u64>,
}

/// The order, typed by a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Confirmed {
    /// The cloud's id.
    pub cloud: String,
}

/// An order that is to be carried out by the next start.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    generation: u64,
}

/// What stands against going on alone.
pub fn objection(p: &Prospect) -> Option<String> {
    let answering = p.others.iter().filter(|o| o.votes && o.last.is_some());
    let good = answering.clone().count() + usize::from(p.votes);
    let ahead = p.others.iter().filter(|o| o.last.is_some_and(|last| last > p.last)).max_by_key(|o| o.last);
    if p.cloud.is_empty() || p.last == 0 {
        return Some("this node does not hold the cloud's state".into());
    }
    if p.majority {
        return Some("the cloud has its majority, and nothing is to be recovered".into());
    }
    if good > p.voters / 2 {
        return Some(format!(
            "{good} of the {} members that vote answer: they will go on by themselves",
            p.voters
        ));
    }
    if let Some(voter) = answering.clone().next().filter(|_| !p.votes) {
        return Some(format!(
            "{} votes and answers, and this node does not vote: order it there",
            voter.name
        ));
    }
    if let Some(other) = ahead {
        return Some(format!(
            "{} answers and has more of the log than this node: order it there",
            other.name
        ));
    }
    let lately = p.in_touch_s.filter(|s| *s < OUT_OF_TOUCH.as_secs());
    lately.map(|s| {
        format!("this node was in touch with the majority {s} s ago: try again when that was a minute ago")
    })
}

/// What this node finds now.
pub async fn prospect(cluster: &Cluster) -> Result<Prospect> {
    let majority = matches!(tokio::time::timeout(WITHIN, cluster.store.catch_up()).await, Ok(Ok(())));
    let status = cluster.store.status()?;
    let (cloud, members) = cluster
        .store
        .read(|tx| Ok::<_, change::Error>((tx.get::<Cloud>(Cloud::ID)?, tx.list_unfenced::<Member>()?)))?;
    let others = members.iter().filter(|m| m.is_trusted() && m.id != cluster.id).map(|m| async {
        let votes = m.replica.is_some_and(|replica| status.voters.contains(&replica));
        let asked = cluster.peers.call::<_, Health>(m.id, "cluster/health", &(), WITHIN).await.ok();
        // One that holds another replica by now, or was left behind, has nothing to say here.
        let last = asked.filter(|h| m.replica == Some(h.replica) && h.generation == status.generation);
        Other { name: m.name.clone(), votes, last: last.map(|h| h.last) }
    });
    let mut found = Prospect {
        cloud: cloud.map(|cloud| cloud.id).unwrap_or_default(),
        node: cluster.name.clone(),
        majority,
        votes: status.voters.contains(&status.node),
        voters: status.voters.len(),
        others: join_all(others).await,
        applied: status.applied,
        last: status.last,
        in_touch_s: alive::since_renewal(&cluster.paths().alive()).map(|age| age.as_secs()),
        generation: status.generation,
        objection: None,
    };
    found.objection = objection(&found);
    Ok(found)
}

/// Takes the order, if nothing stands against it. It is carried out by the next start.
pub async fn order(cluster: &Cluster, confirmed: &Confirmed) -> Result<()> {
    let found = prospect(cluster).await?;
    if let Some(objection) = found.objection {
        bail!("{objection}; nothing was done");
    }
    if confirmed.cloud != found.cloud {
        bail!("{} is not this cloud, which is {}; nothing was done", confirmed.cloud, found.cloud);
    }
    tracing::warn!(last = found.last, "this node is to go on without its cloud's majority");
    let order = serde_json::to_vec(&Order { generation: found.generation + 1 })?;
    Ok(paths::write_file(&file(cluster.paths()), &order, 0o600)?)
}

/// Returns when it was ordered: the process is to start anew.
pub async fn ordered(cluster: Arc<Cluster>) {
    while !file(cluster.paths()).exists() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Carries out an order there is, on the store that nobody has open; true if there was one.
pub async fn carry_out(paths: &Paths, me: InGroup) -> Result<bool> {
    let order = match fs::read(file(paths)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        read => serde_json::from_slice::<Order>(&read?).context("the order to recover is damaged")?,
    };
    let store = paths.store();
    let done = tokio::task::spawn_blocking(move || LocalStore::recover(&store, me, order.generation)).await?;
    done.context("this node cannot go on without its cloud's majority")?;
    Ok(true)
}

/// Writes down that this node is the only one that votes and has a replica, and forgets the order.
pub async fn finish(paths: &Paths, store: &LocalStore, me: PeerId) -> Result<()> {
    store.transact(|tx| change::recovered(tx, me)).await?;
    tracing::warn!("this node has gone on without its cloud's majority");
    fs::remove_file(file(paths))?;
    Ok(sync(&paths.role("controller"))?)
}

fn file(paths: &Paths) -> PathBuf {
    paths.role("controller").join("recover.json")
}

/// Puts aside the replica of a node that was left behind; it gets an empty one when it starts anew, which the cloud
/// fills. The last one that was put aside is kept, for who wants to look for what is lost.
pub fn put_aside(paths: &Paths) -> Result<()> {
    let store = paths.store();
    let done = fs::rename(&store, store.with_extension("left-behind"));
    done.and_then(|()| sync(&paths.role("controller"))).context("a replica that was left behind stays")
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(votes: bool, last: Option<u64>) -> Other {
        Other { name: "other".into(), votes, last }
    }

    /// One of three that vote, the others dead, out of touch.
    fn lone() -> Prospect {
        Prospect {
            cloud: "c".into(),
            votes: true,
            voters: 3,
            others: vec![other(true, None), other(true, None)],
            last: 100,
            generation: 1,
            ..Prospect::default()
        }
    }

    fn objects(p: Prospect) -> String {
        objection(&p).unwrap_or_default()
    }

    #[test]
    fn one_that_nobody_answers_may_go_on_and_a_learner_too() {
        assert_eq!(objects(lone()), "");
        assert_eq!(
            objects(Prospect { votes: false, voters: 1, others: vec![other(true, None)], ..lone() }),
            ""
        );
        assert_eq!(objects(Prospect { in_touch_s: Some(61), ..lone() }), "");
    }

    #[test]
    fn it_may_not_where_others_could_or_have_more() {
        assert!(objects(Prospect { majority: true, ..lone() }).contains("has its majority"));
        let two = vec![other(true, Some(90)), other(true, None)];
        assert!(objects(Prospect { others: two, ..lone() }).contains("2 of the 3"));
        let five =
            |last| vec![other(true, Some(last)), other(true, None), other(true, None), other(true, None)];
        assert!(objects(Prospect { voters: 5, others: five(101), ..lone() }).contains("has more"));
        assert_eq!(objects(Prospect { voters: 5, others: five(100), ..lone() }), "");
        let voter = vec![other(true, Some(1)), other(true, None), other(true, None)];
        assert!(objects(Prospect { votes: false, others: voter, ..lone() }).contains("order it there"));
        assert!(objects(Prospect { in_touch_s: Some(59), ..lone() }).contains("59 s ago"));
        assert!(objects(Prospect { cloud: String::new(), ..lone() }).contains("does not hold"));
    }
}
