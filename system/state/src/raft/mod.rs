//! The replication of the store: a consensus group of the nodes that hold a copy of it.
//!
//! The protocol is openraft's, never one of our own. Here are its log and state machine on the store's files
//! (`log`, `tail`, `machine`, `image`, `saved`), how replicas talk (`network`, `messages`, `serve`) and what a
//! store asks of its group (`group`, `duties`); `standing` keeps apart what is of a group that went on without some;
//! `witness` and `seal` are of the replica that votes and cannot read. It opens no socket: a [`Network`] is given to it.
//!
//! A store of one node is a group of one voter: the same path, with nobody to wait for. What must never be: an
//! answer before a majority has it on stable media, a read that misses what was acknowledged before it (but for
//! those that say so), an effect of time that did not go through the log.

mod duties;
mod group;
mod image;
mod log;
mod machine;
mod messages;
mod network;
mod saved;
mod seal;
mod serve;
mod standing;
#[cfg(test)]
mod suite;
mod tail;
mod tickets;
mod types;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::{Config, ConfigError, SnapshotPolicy};

pub(crate) use self::group::{Group, Replica};
pub(crate) use self::messages::Change;
pub(crate) use self::network::Nobody;
pub use self::network::{Network, NotReached};
pub(crate) use self::saved::{
    Applied, Birth, Saved, found, number, open, put_applied, put_logged, put_membership, recover,
};
pub(crate) use self::seal::Seal;
pub(crate) use self::serve::Caller;
pub(crate) use self::standing::Standing;
pub(crate) use self::tail::Tail;
pub(crate) use self::types::{LogId, StoredMembership};
pub use self::types::{Member, NodeId, Runtime, Tokio, is_witness};

/// The times of a group, the same for all its members.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How often a leader is heard of.
    pub heartbeat: Duration,
    /// A voter that has heard of no leader for two and a half to three times this looks for another.
    pub election: Duration,
    /// How long to wait between looks for a leader.
    pub pause: Duration,
    /// How long a caller waits for an answer.
    pub patience: Duration,
    /// After how many entries the log before them may be dropped.
    pub log_entries: u64,
}

impl Default for Timing {
    /// For machines that are also busy with guests: a pause of two seconds is no reason to change leaders, and a lost
    /// one is replaced within three.
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(250),
            election: Duration::from_millis(800),
            pause: Duration::from_millis(50),
            patience: Duration::from_secs(15),
            log_entries: 5000,
        }
    }
}

impl Timing {
    fn config(&self, witness: bool) -> Result<Config, ConfigError> {
        let ms = |time: Duration| time.as_millis() as u64;
        let config = Config {
            cluster_name: "cairn".into(),
            heartbeat_interval: ms(self.heartbeat),
            // The engine waits for the longer of these, for which a leader may count on its followers, and then for
            // any time between them.
            election_timeout_min: ms(self.election),
            election_timeout_max: ms(self.election * 3 / 2),
            install_snapshot_timeout: ms(self.patience),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.log_entries),
            max_in_snapshot_log_to_keep: self.log_entries,
            purge_batch_size: (self.log_entries / 8).max(1),
            enable_pre_vote: Some(true),
            // A leader that goes on after a restart as if nothing had been would answer reads before it knows again
            // what it had committed.
            enable_leader_restore: Some(false),
            // A witness does so by itself, late: see there.
            enable_elect: !witness,
            ..Config::default()
        };
        config.validate()
    }
}

/// How a group looks from one of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This replica.
    pub node: NodeId,
    /// Who leads, as far as is known here.
    pub leader: Option<NodeId>,
    /// The term, which grows with each election.
    pub term: u64,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Everybody, voters and learners.
    pub members: BTreeMap<NodeId, Member>,
    /// The index of the last entry that this replica has applied.
    pub applied: u64,
    /// The index of the last entry in its log, which may not be acknowledged.
    pub last: u64,
    /// The group's generation as this replica knows it: how often it was gone on with without its majority, and one.
    pub generation: u64,
}
