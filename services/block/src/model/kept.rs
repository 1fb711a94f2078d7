//! The records of what is kept aside of volumes: backups, and content that block storage does not manage any more.

use cairn_shards::crypt::keys::SealedKey;
use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BUSY, BY_LISTED, BY_PROJECT, BY_VOLUME, BY_WORK, LISTED, Metadata, Status};

/// The index of backups by the backup that they continue.
pub const BY_PARENT: &str = "parent";
/// The index of backups by their content.
pub const BY_CONTENT: &str = "content";

/// A backup of a volume. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// Its id, a UUID.
    pub id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Who made it.
    pub user_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// The volume it is of, which may be gone.
    pub volume_id: String,
    /// The snapshot it is of, if it is not of the volume as it was just then.
    pub snapshot_id: Option<String>,
    /// The volume's size in GiB.
    pub size_gb: u64,
    /// What it is at.
    pub status: Status,
    /// Why it is in error.
    pub fail_reason: Option<String>,
    /// The backup it continues.
    pub parent: Option<String>,
    /// The user's own notes.
    pub metadata: Metadata,
    /// Where the user wants it, a name without a meaning here.
    pub container: Option<String>,
    /// The engine's backup with its content; two records may have the same one, after an import.
    pub content: String,
    /// The node that has it, once it was begun.
    pub node: Option<String>,
    /// Whether its content was made.
    pub made: bool,
    /// Whether there is a copy of the volume in the engine, under the backup's id, which it is made from.
    pub frozen: bool,
    /// How many objects it has.
    pub objects: u64,
    /// What a volume made of it gets.
    pub of: Described,
    /// The volume it is being put into.
    pub restore: Option<Restore>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Option<Timestamp>,
    /// Of when its content is.
    pub data_timestamp: Timestamp,
}

/// What is known of the volume that a backup is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// The user's own notes on it.
    pub metadata: Metadata,
    /// What was known of its image.
    pub image_metadata: Metadata,
    /// Whether a server can start from it.
    pub bootable: bool,
    /// The id of its type; empty if that was not noted yet.
    #[serde(default)]
    pub type_id: String,
    /// What the backup's content is under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SealedKey>,
}

/// A backup on its way into a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The volume.
    pub volume_id: String,
    /// The engine's read-only volume that is made of the backup first.
    pub content: String,
    /// Whether that is whole, so that the volume's own content may go.
    pub whole: bool,
    /// Whether the volume was given it.
    pub given: bool,
    /// Whether it is over, one way or the other, and `content` is being removed.
    pub over: bool,
}

impl Record for Backup {
    const KIND: &'static str = "block/backup";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![
            Index::multi(BY_PROJECT, &self.project_id),
            Index::multi(BY_LISTED, LISTED),
            Index::multi(BY_VOLUME, &self.volume_id),
            Index::multi(BY_CONTENT, &self.content),
        ];
        if let Some(parent) = &self.parent {
            indexes.push(Index::multi(BY_PARENT, parent));
        }
        let deleting = self.status == Status::Deleting;
        if !self.made && self.status == Status::Creating || deleting || self.frozen || self.restore.is_some()
        {
            indexes.push(Index::multi(BY_WORK, BUSY));
        }
        indexes
    }
}

/// The engine's content of a volume or snapshot that block storage does not manage. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmanaged {
    /// The id it had, which is the engine's.
    pub id: String,
    /// The volume it is a snapshot of; none if it is a volume.
    pub of: Option<String>,
    /// Its size in GiB.
    pub size_gb: u64,
    /// The node that holds it.
    pub node: String,
    /// Its backend there.
    pub backend: String,
    /// The volume or snapshot that takes its content; it goes then.
    pub taken_by: Option<String>,
}

impl Record for Unmanaged {
    const KIND: &'static str = "block/unmanaged";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![Index::multi(BY_LISTED, LISTED)];
        if self.taken_by.is_some() {
            indexes.push(Index::multi(BY_WORK, BUSY));
        }
        indexes
    }
}
