//! Images made from volumes: servers' snapshots, and volumes uploaded as images.
//!
//! [`begin`] writes the record inside the caller's transaction; the conductor sees it and takes the content,
//! again if the controller is restarted meanwhile. Who waits for the end watches the image's status: `active`,
//! or `killed` if the content could not be had.

use std::collections::{BTreeMap, BTreeSet};

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_shards::model::VolumeSpec;
use cairn_state::Tx;
use jiff::Timestamp;

use crate::model::{Image, Incoming, Status, Visibility};

/// The property of an image whose content is under a key: what the key is called. So clients know that what they download is
/// ciphertext, of use to this cloud alone.
pub const KEY_ID: &str = "cinder_encryption_key_id";

/// What an image made from a volume shall be.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    /// Its name.
    pub name: String,
    /// The volume whose present content it gets.
    pub volume: String,
    /// Its custom properties.
    pub properties: BTreeMap<String, String>,
    /// The least disk it needs, in GiB.
    pub min_disk: u64,
    /// Whether it is protected from deletion.
    pub protected: bool,
    /// Who may see it; shared (so, at first, its owner) if not given.
    pub visibility: Option<Visibility>,
}

/// Writes the record of an image whose content the conductor will take from a volume. The caller has checked
/// that who asks may read that volume. The content is raw.
pub fn begin(tx: &mut Tx, caller: &Caller, wanted: Capture) -> ApiResult<Image> {
    let owner = caller.require_writer()?.to_owned();
    let visibility = wanted.visibility.unwrap_or(Visibility::Shared);
    if visibility == Visibility::Public && !caller.is_admin() {
        return Err(ApiError::forbidden("You are not authorized to publicize an image."));
    }
    let key = tx.get::<VolumeSpec>(&wanted.volume)?.and_then(|spec| spec.key);
    let mut properties = wanted.properties;
    if let Some(key) = &key {
        properties.insert(KEY_ID.into(), key.id.clone());
    }
    let now = Timestamp::now();
    let image = Image {
        id: uuid::Uuid::new_v4().to_string(),
        name: Some(wanted.name),
        status: Status::Saving,
        visibility,
        owner,
        disk_format: Some("raw".into()),
        container_format: Some("bare".into()),
        size: None,
        virtual_size: None,
        checksum: None,
        os_hash_value: None,
        min_disk: wanted.min_disk,
        min_ram: 0,
        protected: wanted.protected,
        os_hidden: false,
        tags: BTreeSet::new(),
        properties,
        created_at: now,
        updated_at: now,
        incoming: Some(Incoming::Capture { volume: wanted.volume, key }),
    };
    tx.put(&image)?;
    Ok(image)
}
