//! Keys, sealed blobs, and what says that a token is not valid any more.

use cairn_state::{Index, Record};
use serde::{Deserialize, Serialize};

/// One symmetric key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct KeySecret {
    /// Names the key in what it sealed.
    pub id: u8,
    /// 32 bytes in hex.
    pub secret: String,
    /// When it was made, in seconds since the epoch.
    pub created_s: i64,
}

impl std::fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySecret({})", self.id)
    }
}

/// The keys of this cloud's identity, one record. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// The keys that seal tokens: the last seals, all open.
    pub tokens: Vec<KeySecret>,
    /// The key that seals credentials at rest.
    pub credentials: KeySecret,
}

impl Keys {
    /// The record's id.
    pub const ID: &'static str = "keys";
}

impl Record for Keys {
    const KIND: &'static str = "identity/keys";

    fn id(&self) -> String {
        Keys::ID.into()
    }
}

/// A mark whose revision changes whenever something changes that a token's meaning rests on: a user (`user/ID`),
/// a project or domain (`scope/ID`), or anything that concerns many (`all`). It exists as long as its subject,
/// so that removal shows too. Only its revision is read. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The subject.
    pub id: String,
}

impl Record for Mark {
    const KIND: &'static str = "identity/mark";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// A token that was revoked before its end. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    /// The token's audit id.
    pub audit_id: String,
    /// When the token ends by itself, and this record can go; in seconds since the epoch.
    pub expires_s: i64,
}

impl Record for Revocation {
    const KIND: &'static str = "identity/revocation";

    fn id(&self) -> String {
        self.audit_id.clone()
    }
}

/// A credential kept for a user (EC2 keys, TOTP seeds), sealed. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// The id; of an EC2 credential the hex SHA-256 of its access key.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// The project it is for.
    pub project_id: Option<String>,
    /// What it is, as `ec2`.
    pub kind: String,
    /// The blob, sealed with the credentials key, in hex.
    pub sealed: String,
    /// All other attributes.
    pub extra: super::Extra,
}

impl Record for Credential {
    const KIND: &'static str = "identity/credential";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut all = vec![Index::multi("user", &self.user_id)];
        all.extend(self.project_id.iter().map(|p| Index::multi("project", p)));
        all
    }
}

/// A policy document that remote services keep here. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// The id.
    pub id: String,
    /// The document's MIME type.
    pub kind: String,
    /// The document.
    pub blob: String,
    /// All other attributes.
    pub extra: super::Extra,
}

impl Record for Policy {
    const KIND: &'static str = "identity/policy";

    fn id(&self) -> String {
        self.id.clone()
    }
}
