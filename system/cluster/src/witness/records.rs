//! What the cloud remembers of its witness, and the key of what it gives it to keep.

use std::fmt;
use std::net::SocketAddr;

use cairn_state::Record;
use cairn_wire::remote::PeerId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::membership::Pin;
use crate::token::{self, NoRandomness};

const ONLY: &str = "this";

/// The cloud's witness. Its writer is the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Witness {
    /// Its identity, and what its key is held to.
    pub id: PeerId,
    /// Where it is, as a person has said.
    pub addresses: Vec<SocketAddr>,
    /// Whether it votes. What is wanted; the store's engine follows.
    pub voter: bool,
    /// The number of its replica of the store's log; none while it has to begin anew.
    pub replica: Option<u64>,
    /// Since when the cloud has it.
    pub since: Timestamp,
}

impl Witness {
    /// The id of the record.
    pub const ID: &'static str = ONLY;
    /// What the store's group calls it. No node is called so.
    pub const NAME: &'static str = "witness";

    /// What nodes need to know it by.
    pub fn pin(&self) -> Pin {
        Pin { id: self.id, name: Witness::NAME.into(), addresses: self.addresses.clone() }
    }
}

impl Record for Witness {
    const KIND: &'static str = "cluster/witness";

    fn id(&self) -> String {
        ONLY.into()
    }
}

/// The key with which members seal what a witness keeps. Its writer is the controller, once.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SealKey {
    /// 32 bytes, in hex. Never shown.
    key: String,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// The id of the record.
    pub const ID: &'static str = ONLY;

    /// A new one.
    pub fn generate() -> Result<SealKey, NoRandomness> {
        Ok(SealKey { key: hex::encode(token::nonce()?) })
    }

    /// The key, if it is one.
    pub fn bytes(&self) -> Option<[u8; 32]> {
        let mut key = [0; 32];
        hex::decode_to_slice(&self.key, &mut key).ok().map(|()| key)
    }
}

impl Record for SealKey {
    const KIND: &'static str = "cluster/seal";

    fn id(&self) -> String {
        ONLY.into()
    }
}
