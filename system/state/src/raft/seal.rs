//! What a witness is given to keep: commands that only members of the group can read or make.
//!
//! Sealed where entries leave for a witness, opened where they come from one; a member's own log never has them. Each
//! entry is encrypted (ChaCha20-Poly1305, RFC 8439) for its place in the log, under a key of its term and leader: in
//! one term one leader puts one entry at one place, so no nonce is ever used for two. Members of the group stand in
//! the clear, since the witness must count their votes.

use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use ring::{aead, hmac};

use super::saved;
use super::types::{LogEntry, LogId, Payload};
use crate::engine::Command;
use crate::kv::StoreError;

/// What the keys of terms are derived for.
const PURPOSE: &[u8] = b"cairn: entries for a witness";

/// The members' key, once it is known here.
#[derive(Default)]
pub(crate) struct Seal(RwLock<Option<hmac::Key>>);

/// Whether a witness may hand this on: it says nothing to the state, or nobody but a member can have made it.
pub(super) fn is_opaque(entry: &LogEntry) -> bool {
    !matches!(&entry.payload, Payload::Normal(command) if !matches!(command, Command::Sealed(_)))
}

impl Seal {
    pub(crate) fn set(&self, key: &[u8; 32]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) =
            Some(hmac::Key::new(hmac::HMAC_SHA256, key));
    }

    /// Seals commands for a witness.
    pub(super) fn close_for(&self, entries: &mut [LogEntry]) -> Result<(), StoreError> {
        for entry in entries {
            let at = entry.log_id;
            if let Payload::Normal(command) = &mut entry.payload {
                let mut bytes = saved::encode(&*command)?;
                let sealed = self.key(&at)?.seal_in_place_append_tag(nonce(&at), place(&at)?, &mut bytes);
                sealed.map_err(|_| unusable("a command cannot be sealed"))?;
                *command = Command::Sealed(Bytes::from(bytes));
            }
        }
        Ok(())
    }

    /// Opens what a witness has kept; a witness itself takes it as it is.
    pub(super) fn open_for(&self, witness: bool, entries: &mut [LogEntry]) -> Result<(), StoreError> {
        for entry in entries.iter_mut().filter(|_| !witness) {
            let at = entry.log_id;
            if let Payload::Normal(command) = &mut entry.payload
                && let Command::Sealed(bytes) = command
            {
                let mut bytes = bytes.to_vec();
                let opened = self.key(&at)?.open_in_place(nonce(&at), place(&at)?, &mut bytes);
                let opened =
                    opened.map_err(|_| unusable("what a witness has kept was not sealed by a member"))?;
                *command = saved::decode(opened)?;
            }
        }
        Ok(())
    }

    /// The key of entries of this one's term and leader.
    fn key(&self, at: &LogId) -> Result<aead::LessSafeKey, StoreError> {
        let key = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let key =
            key.as_ref().ok_or_else(|| unusable("the members' key for witnesses is not known here yet"))?;
        let mut context = hmac::Context::with_key(key);
        context.update(PURPOSE);
        context.update(&at.leader_id.term.to_le_bytes());
        context.update(&at.leader_id.node_id.to_le_bytes());
        let derived = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, context.sign().as_ref());
        derived.map(aead::LessSafeKey::new).map_err(|_| unusable("no key can be derived"))
    }
}

fn nonce(at: &LogId) -> aead::Nonce {
    let mut nonce = [0; aead::NONCE_LEN];
    nonce[..8].copy_from_slice(&at.index.to_le_bytes());
    aead::Nonce::assume_unique_for_key(nonce)
}

fn place(at: &LogId) -> Result<aead::Aad<Vec<u8>>, StoreError> {
    saved::encode(at).map(aead::Aad::from)
}

fn unusable(why: &str) -> StoreError {
    StoreError::Unavailable(why.into())
}

#[cfg(test)]
mod tests {
    use super::super::types::LeaderId;
    use super::*;

    fn entry(term: u64, index: u64, payload: Payload) -> LogEntry {
        LogEntry { log_id: LogId { leader_id: LeaderId { term, node_id: 7 }, index }, payload }
    }

    fn grant(term: u64, index: u64) -> LogEntry {
        entry(term, index, Payload::Normal(Command::Grant { ttl_ms: 77 }))
    }

    #[test]
    fn members_read_back_what_a_witness_keeps_and_only_where_it_was() {
        let (seal, other) = (Seal::default(), Seal::default());
        assert!(seal.close_for(&mut [grant(1, 1)]).is_err(), "nothing leaves in the clear");
        seal.set(&[1; 32]);
        other.set(&[2; 32]);
        let mut kept = [grant(1, 1), entry(1, 2, Payload::Blank), grant(1, 3)];
        assert!(!is_opaque(&kept[0]) && is_opaque(&kept[1]));
        seal.close_for(&mut kept).unwrap();
        assert!(kept.iter().all(is_opaque));
        assert_ne!(kept[0].payload, kept[2].payload);
        let as_sealed = kept.clone();
        seal.open_for(true, &mut kept).unwrap();
        assert_eq!(kept, as_sealed, "a witness leaves it as it is");
        assert!(other.open_for(false, &mut kept.clone()).is_err());
        let mut moved = [entry(1, 4, kept[0].payload.clone())];
        assert!(seal.open_for(false, &mut moved).is_err(), "at another place it is worth nothing");
        let mut later = [entry(2, 1, kept[0].payload.clone())];
        assert!(seal.open_for(false, &mut later).is_err(), "nor in another term");
        seal.open_for(false, &mut kept).unwrap();
        assert_eq!(kept, [grant(1, 1), entry(1, 2, Payload::Blank), grant(1, 3)]);
    }
}
