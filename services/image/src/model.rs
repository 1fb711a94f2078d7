//! The records of the image service: images, the projects they are shared with, and content on its way out.
//!
//! Only types, their keys and indexes. Every record here is written by the controller alone.

use std::collections::{BTreeMap, BTreeSet};

use cairn_shards::crypt::keys::SealedKey;
use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How far an image has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has no content yet.
    Queued,
    /// Its content is on its way in.
    Saving,
    /// It can be used.
    Active,
    /// It has content that only administrators may read for now.
    Deactivated,
    /// Its content could not be had; it never will be.
    Killed,
}

impl Status {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Saving => "saving",
            Status::Active => "active",
            Status::Deactivated => "deactivated",
            Status::Killed => "killed",
        }
    }

    /// Whether content is there.
    pub fn has_data(self) -> bool {
        matches!(self, Status::Active | Status::Deactivated)
    }
}

/// Who may see an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everybody, in every list.
    Public,
    /// Everybody who knows its id or asks for such images.
    Community,
    /// Its owner and the projects it is shared with.
    Shared,
    /// Its owner.
    Private,
}

impl Visibility {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Visibility::Public => "public",
            Visibility::Community => "community",
            Visibility::Shared => "shared",
            Visibility::Private => "private",
        }
    }

    /// The one with this name in the API.
    pub fn parse(name: &str) -> Option<Visibility> {
        [Visibility::Public, Visibility::Community, Visibility::Shared, Visibility::Private]
            .into_iter()
            .find(|v| v.name() == name)
    }
}

/// Where the content of an image in [`Status::Saving`] comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Incoming {
    /// From a client, through this run of the controller: it dies with it.
    Upload {
        /// The run ([`crate::Service::run`]).
        run: String,
        /// This one upload.
        id: String,
    },
    /// From a volume; it can be taken again.
    Capture {
        /// The volume.
        volume: String,
        /// What its content is under on disks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<SealedKey>,
    },
}

/// An image. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Its id, a UUID.
    pub id: String,
    /// Its name; not unique.
    pub name: Option<String>,
    /// How far it has come.
    pub status: Status,
    /// Who may see it.
    pub visibility: Visibility,
    /// The project it belongs to.
    pub owner: String,
    /// The form of the uploaded content: `raw`, `qcow2` or `iso`.
    pub disk_format: Option<String>,
    /// Always `bare`, once it is set.
    pub container_format: Option<String>,
    /// Bytes of the uploaded content.
    pub size: Option<u64>,
    /// Bytes of the disk that the content describes.
    pub virtual_size: Option<u64>,
    /// MD5 of the uploaded content, in hexadecimal.
    pub checksum: Option<String>,
    /// SHA-512 of the uploaded content, in hexadecimal.
    pub os_hash_value: Option<String>,
    /// The least disk it needs, in GiB.
    pub min_disk: u64,
    /// The least memory it needs, in MiB.
    pub min_ram: u64,
    /// Whether it is protected from deletion.
    pub protected: bool,
    /// Whether it is left out of lists.
    pub os_hidden: bool,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its custom properties.
    pub properties: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Where its content comes from, while it is being saved.
    pub incoming: Option<Incoming>,
}

/// The index of images whose content is on its way in, under [`WORK_SAVING`].
pub const INDEX_WORK: &str = "work";
/// The value of [`INDEX_WORK`].
pub const WORK_SAVING: &str = "saving";

impl Record for Image {
    const KIND: &'static str = "image/image";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes =
            vec![Index::multi("owner", &self.owner), Index::multi("visibility", self.visibility.name())];
        if self.status == Status::Saving {
            indexes.push(Index::multi(INDEX_WORK, WORK_SAVING));
        }
        indexes
    }
}

impl Image {
    /// The least size in GiB of a disk made from it: its own size and its wish, whichever is greater.
    pub fn disk_gb_min(&self) -> u64 {
        self.virtual_size.unwrap_or(0).div_ceil(1 << 30).max(self.min_disk)
    }
}

/// A project that an image is shared with. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The image.
    pub image_id: String,
    /// The project.
    pub member_id: String,
    /// `pending`, `accepted` or `rejected`.
    pub status: String,
    /// When it was shared.
    pub created_at: Timestamp,
    /// When the status was last changed.
    pub updated_at: Timestamp,
}

impl Member {
    /// The record's id.
    pub fn key(image: &str, project: &str) -> String {
        format!("{image}/{project}")
    }
}

impl Record for Member {
    const KIND: &'static str = "image/member";

    fn id(&self) -> String {
        Member::key(&self.image_id, &self.member_id)
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::multi("image", &self.image_id), Index::multi("project", &self.member_id)]
    }
}

/// Content whose image is gone, until the storage agent has destroyed it. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doomed {
    /// The id of the image that was, and of the volume that is going.
    pub id: String,
}

impl Record for Doomed {
    const KIND: &'static str = "image/doomed";

    fn id(&self) -> String {
        self.id.clone()
    }
}
