//! The records of types: of volumes, with their encryption and QoS specs, and of groups.

use std::collections::BTreeSet;

use cairn_state::{Index, Record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Metadata;

/// A volume type. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeType {
    /// Its id, a UUID.
    pub id: String,
    /// Its name; unique.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: bool,
    /// What a backend must be capable of for it.
    pub extra_specs: Metadata,
    /// The projects that may use it though it is not public.
    pub projects: BTreeSet<String>,
    /// The [`QosSpecs`] of its volumes.
    #[serde(default)]
    pub qos_id: Option<String>,
    /// How its volumes shall be encrypted.
    #[serde(default)]
    pub encryption: Option<Encryption>,
}

impl Record for VolumeType {
    const KIND: &'static str = "block/type";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name)]
    }
}

/// How volumes of a type shall be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Its id, a UUID.
    pub id: String,
    /// The format, as `luks`.
    pub provider: String,
    /// The cipher, as `aes-xts-plain64`.
    pub cipher: Option<String>,
    /// Bits of a key.
    pub key_size: Option<u64>,
    /// Who encrypts: `front-end` or `back-end`.
    pub control_location: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Option<Timestamp>,
}

/// Limits on the volumes of types, as the field writes them: see [`crate::qos`]. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosSpecs {
    /// Its id, a UUID.
    pub id: String,
    /// Its name; unique.
    pub name: String,
    /// Who is said to keep the limits.
    pub consumer: String,
    /// The limits.
    pub specs: Metadata,
}

impl Record for QosSpecs {
    const KIND: &'static str = "block/qos";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name)]
    }
}

/// A type of groups. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupType {
    /// Its id, a UUID.
    pub id: String,
    /// Its name; unique.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: bool,
    /// What a backend must be capable of for it.
    pub group_specs: Metadata,
}

impl Record for GroupType {
    const KIND: &'static str = "block/group-type";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name)]
    }
}
