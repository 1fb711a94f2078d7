//! Who is at the other end of a connection between nodes: a public key, and what the cloud thinks of it.
//!
//! Only values. A peer's address is known for logs and limits; no decision about trust rests on it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A node's identity: the SHA-256 of its public key, as SubjectPublicKeyInfo in DER (RFC 5280, 4.1).
///
/// Written as 64 hex digits wherever people or JSON see it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The identity that these 32 bytes are.
    pub const fn new(bytes: [u8; 32]) -> PeerId {
        PeerId(bytes)
    }

    /// The identity of a public key.
    pub fn of_key(spki_der: &[u8]) -> PeerId {
        let mut id = [0; 32];
        id.copy_from_slice(digest::digest(&digest::SHA256, spki_der).as_ref());
        PeerId(id)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", hex::encode(&self.0[..4]))
    }
}

/// A text that is not 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node's id is 64 hex digits")]
pub struct NotAPeerId;

impl FromStr for PeerId {
    type Err = NotAPeerId;

    fn from_str(text: &str) -> Result<PeerId, NotAPeerId> {
        let mut id = [0; 32];
        hex::decode_to_slice(text, &mut id).map_err(|_| NotAPeerId)?;
        Ok(PeerId(id))
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PeerId, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(PeerId)
        }
    }
}

/// What a peer is to this cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its key is a member's. No certificate or clock can take that away.
    Member,
    /// Its key is not known here, but one of the cloud's authorities vouches for it and the certificate has not
    /// expired: a member that this node has not heard of yet.
    Certified,
    /// Its key is that of the cloud's witness, which takes part in votes and in nothing else.
    Witness,
    /// Holds the key it shows, and that is all that is known.
    Stranger,
    /// Its key was removed from the cloud. No certificate helps it.
    Removed,
}

impl Standing {
    /// Whether it is one of the cloud's own.
    pub const fn belongs(self) -> bool {
        matches!(self, Standing::Member | Standing::Certified)
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity; it has proven to hold the key.
    pub id: PeerId,
    /// Its public key, SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    /// What it was to the cloud when the call began.
    pub standing: Standing,
    /// Where it comes from; for logs and limits alone.
    pub address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_text_and_from_bytes() {
        let id = PeerId::of_key(b"a key");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("xy".parse::<PeerId>(), Err(NotAPeerId));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<PeerId>(&json).unwrap(), id);
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(bytes.len(), 32);
        assert_eq!(postcard::from_bytes::<PeerId>(&bytes).unwrap(), id);
    }
}
