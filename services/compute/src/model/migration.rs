//! Moves of servers between nodes (or between flavors): what is wanted of both nodes, what each says of it, and the
//! record that stays.
//!
//! [`Moving`] is part of the server, written by the controller; [`MoveStatus`] is each node's own word.

use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::FlavorSnapshot;

/// Why and how a server moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MigrationKind {
    /// It is turned off, moved, and started.
    Cold,
    /// The same, to have another flavor; perhaps on the same node.
    Resize,
    /// It runs on while it moves.
    Live,
    /// Its node is dead.
    Evacuation,
}

impl MigrationKind {
    /// Nova's word.
    pub fn name(self) -> &'static str {
        match self {
            MigrationKind::Cold => "migration",
            MigrationKind::Resize => "resize",
            MigrationKind::Live => "live-migration",
            MigrationKind::Evacuation => "evacuation",
        }
    }
}

/// How far a migration is, in Nova's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MigrationStatus {
    /// An evacuation that has begun.
    Accepted,
    /// The target of a live migration makes ready.
    Preparing,
    /// A live migration's memory is being sent.
    Running,
    /// The guest is being turned off.
    Migrating,
    /// The guest is being started on the target.
    PostMigrating,
    /// The user is to confirm or revert it.
    Finished,
    /// The user confirmed it.
    Confirmed,
    /// It is being reverted.
    Reverting,
    /// The server is back where it was.
    Reverted,
    /// A live migration has ended well.
    Completed,
    /// An evacuation has ended well.
    Done,
    /// A live migration was aborted.
    Cancelled,
    /// It failed.
    Error,
}

impl MigrationStatus {
    /// Nova's word.
    pub fn name(self) -> &'static str {
        match self {
            MigrationStatus::Accepted => "accepted",
            MigrationStatus::Preparing => "preparing",
            MigrationStatus::Running => "running",
            MigrationStatus::Migrating => "migrating",
            MigrationStatus::PostMigrating => "post-migrating",
            MigrationStatus::Finished => "finished",
            MigrationStatus::Confirmed => "confirmed",
            MigrationStatus::Reverting => "reverting",
            MigrationStatus::Reverted => "reverted",
            MigrationStatus::Completed => "completed",
            MigrationStatus::Done => "done",
            MigrationStatus::Cancelled => "cancelled",
            MigrationStatus::Error => "error",
        }
    }

    /// Whether nothing more follows.
    pub fn ended(self) -> bool {
        use MigrationStatus::{Cancelled, Completed, Confirmed, Done, Error, Reverted};
        matches!(self, Confirmed | Reverted | Completed | Done | Cancelled | Error)
    }
}

/// A migration, kept for some days after it has ended. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Its number, from 1.
    pub number: u64,
    /// Its UUID, under which it holds its server's other claim.
    pub uuid: String,
    /// The server.
    pub server_id: String,
    /// The server's project.
    pub project_id: String,
    /// Who asked for it; empty when the cloud did.
    pub user_id: String,
    /// Its kind.
    pub kind: MigrationKind,
    /// The node it left.
    pub source: String,
    /// The node it goes to.
    pub dest: String,
    /// How far it is.
    pub status: MigrationStatus,
    /// The flavor's id before.
    pub old_flavor: String,
    /// The flavor's id after.
    pub new_flavor: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it last went on.
    pub updated: Option<Timestamp>,
    /// What went wrong.
    pub message: Option<String>,
}

/// The index of migrations by server.
pub const INDEX_SERVER: &str = "server";
/// The index of ended migrations by the day they ended on.
pub const INDEX_ENDED: &str = "ended";

impl Record for Migration {
    const KIND: &'static str = "compute/migration";

    fn id(&self) -> String {
        // Padded, so that the order of keys is the order of numbers.
        format!("{:012}", self.number)
    }

    fn indexes(&self) -> Vec<Index> {
        let day = self.updated.filter(|_| self.status.ended()).map(|t| t.strftime("%Y-%m-%d").to_string());
        let ended = day.map(|day| Index::multi(INDEX_ENDED, day));
        let own = [Index::unique("uuid", &self.uuid), Index::multi(INDEX_SERVER, &self.server_id)];
        own.into_iter().chain(ended).collect()
    }
}

/// The last number given to something that is counted. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// What is counted.
    pub what: String,
    /// The last number.
    pub last: u64,
}

impl Record for Counter {
    const KIND: &'static str = "compute/counter";

    fn id(&self) -> String {
        self.what.clone()
    }
}

/// How far the move of a server is. A live one is prepared and runs, then is over; the others leave, arrive, and may
/// wait for their user's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Live: the target gets its disks and ports.
    Preparing,
    /// Live: the source sends the guest.
    Running,
    /// The guest is turned off where it is.
    Leaving,
    /// The server is the target's, and starts there.
    Arriving,
    /// Its user is to confirm or revert.
    Verify,
    /// The guest is turned off on the target.
    Returning,
    /// The server is the source's again, and starts there.
    Returned,
}

/// The move a server is making.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moving {
    /// The migration's number.
    pub number: u64,
    /// The migration's UUID.
    pub migration: String,
    /// Its kind.
    pub kind: MigrationKind,
    /// The node it leaves.
    pub from: String,
    /// The node it goes to.
    pub to: String,
    /// How far it is.
    pub stage: Stage,
    /// The flavor it has on the side where it is not: the new one before the switch, the old one after it.
    pub flavor: FlavorSnapshot,
    /// Whether the user confirms it.
    pub verify: bool,
    /// When this stage began.
    pub since: Timestamp,
    /// Whether a live migration is to end without effect.
    #[serde(default)]
    pub abort: bool,
    /// Whether a live migration is to end soon, at the cost of a pause.
    #[serde(default)]
    pub force: bool,
}

impl Moving {
    /// Whether the guest runs while it moves.
    pub fn live(&self) -> bool {
        self.kind == MigrationKind::Live
    }

    /// Whether the guest is to be off where its server is.
    pub fn leaves(&self) -> bool {
        matches!(self.stage, Stage::Leaving | Stage::Returning)
    }

    /// Whether a node still has to act.
    pub fn open(&self) -> bool {
        self.stage != Stage::Verify
    }
}

/// How far one node is with a live migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MovePhase {
    /// Target: something is missing.
    Preparing,
    /// Target: the guest may come.
    Ready,
    /// Target: all of the guest is here, paused.
    Arrived,
    /// Target: the source has sent it, and nothing is here.
    Empty,
    /// Target: nothing of a deleted server is left here.
    Gone,
    /// Source: it is being sent.
    Sending,
    /// Source: it is no longer here.
    Sent,
    /// Source: it was not sent, and is still here.
    Failed,
}

/// How much memory a live migration has sent, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// All there is.
    pub total: u64,
    /// What was sent.
    pub processed: u64,
    /// What is left.
    pub remaining: u64,
}

/// What one node says of a live migration. Writer: the compute agent of that node; the controller removes it when
/// the migration is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveStatus {
    /// The server.
    pub server_id: String,
    /// The node.
    pub node: String,
    /// The migration it is about, by UUID.
    pub migration: String,
    /// How far it is.
    pub phase: MovePhase,
    /// What is in the way, or went wrong.
    pub error: Option<String>,
    /// What the source has sent.
    pub progress: Progress,
}

impl Record for MoveStatus {
    const KIND: &'static str = "compute/move-status";

    fn id(&self) -> String {
        move_status_id(&self.server_id, &self.node)
    }
}

/// The id of what a node says of a server's move.
pub fn move_status_id(server_id: &str, node: &str) -> String {
    format!("{server_id}/{node}")
}
