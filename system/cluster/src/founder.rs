//! What a node does about clouds, given what it is and what it sees: found one, wait, ask to join, or give way.
//!
//! Pure, and the same for all nodes, so that they come to the same end. A cloud that is there beats a claim to
//! found one; of claims the lowest cloud id wins; of clouds one that is in use beats one that is not, then the
//! older wins, then the lower id. A cloud in use never gives way. Announcements may be lost, late or lies: what follows
//! from them is at most that a node asks to join, or that a cloud without anything of a user's is given up.

use std::collections::BTreeMap;

use cairn_wire::remote::PeerId;

use crate::discovery::{Announcement, Phase};

/// How long a new node listens before it claims, in milliseconds; some of them longer, by their key.
pub const LISTEN_MS: u64 = 4_000;
/// How much longer, at most.
pub const SPREAD_MS: u64 = 2_000;
/// How long a claim stands before it is a cloud.
pub const SETTLE_MS: u64 = 4_000;
/// How long to wait for others who claim, since they may have gone.
pub const PATIENCE_MS: u64 = 20_000;

/// What a node is, as far as clouds go. Times are of its own clock that does not go back, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// Of no cloud, or of one that has given way.
    Alone {
        /// Since when it listens.
        since_ms: u64,
    },
    /// It says that it will found a cloud.
    Claiming {
        /// Since when.
        since_ms: u64,
        /// The id that the cloud would have.
        cloud: String,
    },
    /// Of a cloud.
    Member {
        /// The cloud, as the node announces it.
        cloud: Standing,
        /// Whether the node leads it: only then does it decide for the cloud.
        leads: bool,
    },
}

/// What counts of a cloud when it is compared with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub id: String,
    /// When it was founded, by its founder's clock, in seconds since 1970.
    pub founded_s: i64,
    /// Whether it holds anything of a user's.
    pub in_use: bool,
}

impl Standing {
    /// The better first.
    fn rank(&self) -> (bool, i64, &str) {
        (!self.in_use, self.founded_s, &self.id)
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing for now; look again at the latest after this long.
    Wait {
        /// In milliseconds.
        ms: u64,
    },
    /// Say that it will found a cloud, with a new id.
    Claim,
    /// Take the claim back, and listen from now on.
    Withdraw,
    /// Found the cloud it has claimed.
    Found,
    /// Ask to join this cloud, at one of these nodes. What it claimed is forgotten.
    Ask {
        /// The cloud.
        cloud: String,
        /// Its nodes that are seen.
        nodes: Vec<PeerId>,
    },
    /// Ask to join this cloud, and once it is let in give up its own, if that still holds nothing of a user's.
    GiveWay {
        /// The cloud.
        cloud: String,
        /// Its nodes that are seen.
        nodes: Vec<PeerId>,
    },
    /// Several clouds are in use here: a person says which to join, or a token.
    Choose {
        /// Their ids.
        clouds: Vec<String>,
    },
    /// All is well.
    Stay,
}

/// How often a member looks again, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// What the node `me` does now.
pub fn decide(me: PeerId, own: &Own, seen: &[Announcement], now_ms: u64) -> Decision {
    let clouds = clouds(me, seen);
    match own {
        Own::Member { cloud, leads } => member(cloud, *leads, &clouds),
        Own::Alone { since_ms } => join(&clouds).unwrap_or_else(|| {
            let waited = now_ms.saturating_sub(*since_ms);
            let claimed = seen.iter().any(|a| a.node != me && a.phase == Phase::Founding);
            let until = if claimed { PATIENCE_MS } else { LISTEN_MS } + spread(me);
            if waited >= until {
                Decision::Claim
            } else {
                Decision::Wait { ms: (until - waited).min(LOOK_MS) }
            }
        }),
        Own::Claiming { since_ms, cloud } => join(&clouds).unwrap_or_else(|| {
            let rivals = seen.iter().filter(|a| a.node != me && a.phase == Phase::Founding);
            let waited = now_ms.saturating_sub(*since_ms);
            if rivals.into_iter().any(|rival| rival.cloud < *cloud) {
                Decision::Withdraw
            } else if waited >= SETTLE_MS {
                Decision::Found
            } else {
                Decision::Wait { ms: (SETTLE_MS - waited).min(LOOK_MS) }
            }
        }),
    }
}

/// A cloud that others announce, and its nodes.
type Clouds = BTreeMap<String, (Standing, Vec<PeerId>)>;

/// The clouds that are there.
fn clouds(me: PeerId, seen: &[Announcement]) -> Clouds {
    let mut clouds = Clouds::new();
    for a in seen.iter().filter(|a| a.node != me && a.phase == Phase::Member) {
        let standing = Standing { id: a.cloud.clone(), founded_s: a.founded_s, in_use: a.in_use };
        let (cloud, nodes) = clouds.entry(a.cloud.clone()).or_insert((standing, Vec::new()));
        // Its nodes may be of several moments: what one has seen in use is in use.
        cloud.in_use |= a.in_use;
        cloud.founded_s = cloud.founded_s.min(a.founded_s);
        nodes.push(a.node);
    }
    clouds
}

/// What a node of no cloud does about those that are there; `None` if there is none.
fn join(clouds: &Clouds) -> Option<Decision> {
    let in_use: Vec<_> = clouds.values().filter(|(cloud, _)| cloud.in_use).collect();
    if in_use.len() > 1 {
        return Some(Decision::Choose { clouds: in_use.iter().map(|(cloud, _)| cloud.id.clone()).collect() });
    }
    let (cloud, nodes) = clouds.values().min_by(|a, b| a.0.rank().cmp(&b.0.rank()))?;
    Some(Decision::Ask { cloud: cloud.id.clone(), nodes: nodes.clone() })
}

/// What a node does for its cloud.
fn member(own: &Standing, leads: bool, clouds: &Clouds) -> Decision {
    if own.in_use || !leads {
        return Decision::Stay;
    }
    let others = clouds.values().filter(|(cloud, _)| cloud.id != own.id);
    match others.min_by(|a, b| a.0.rank().cmp(&b.0.rank())) {
        Some((best, nodes)) if best.rank() < own.rank() => {
            Decision::GiveWay { cloud: best.id.clone(), nodes: nodes.clone() }
        }
        _ => Decision::Stay,
    }
}

/// How much longer this node listens than others, so that few claim at once.
fn spread(me: PeerId) -> u64 {
    let [high, low, ..] = *me.as_bytes();
    u64::from(u16::from_be_bytes([high, low])) * SPREAD_MS / u64::from(u16::MAX)
}

#[cfg(test)]
#[path = "founder_tests.rs"]
mod tests;
