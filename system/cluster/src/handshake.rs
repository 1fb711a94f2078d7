//! The short authentication string of a joining handshake, by commitment before nonces (as in ZRTP, RFC 6189, 4.4.1).
//!
//! The applicant commits to a nonce, the acceptor answers with a nonce of its own, the applicant reveals; the words
//! come from a hash over all of it and the keys that both saw at the other end of TLS. Somebody in the middle, who
//! shows each side a key of its own, must choose all it will ever choose before it learns what makes the words: so
//! it has one chance in 2^44, and no way to try more than once without both sides seeing an attempt.
//!
//! Pure: nonces are given, messages are values. A token's proof is bound to the same hash, so it cannot be passed on
//! by somebody in the middle, and the token itself never crosses.

use cairn_wire::remote::PeerId;
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};

use crate::words::Words;

/// A nonce, a commitment or a proof.
pub type Bytes32 = [u8; 32];

/// What both sides must see alike, beside nonces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// The version of the protocol they speak.
    pub version: u16,
    /// The key of the node that wants to join, as its TLS showed it.
    pub applicant: PeerId,
    /// The key of the node that it asks, likewise.
    pub acceptor: PeerId,
    /// The hash of all that the applicant says about itself.
    pub application: Bytes32,
    /// The hash of all that the acceptor says about its cloud: id and authority.
    pub offer: Bytes32,
}

/// What an applicant is bound to before it hears anything of the acceptor.
pub fn commitment(nonce: &Bytes32, applicant: &PeerId, application: &Bytes32) -> Bytes32 {
    hash("cairn join: commitment", &[nonce, applicant.as_bytes(), application])
}

/// The revealed nonce is not the one that was committed to: somebody tampers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the handshake was tampered with: what was revealed is not what was committed to")]
pub struct Tampered;

/// What both sides have in common once all is revealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    transcript: Bytes32,
}

/// Who proves that it has the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The node that wants to join.
    Applicant,
    /// The node that is asked.
    Acceptor,
}

impl Agreement {
    /// The applicant's end of it: it knows its own nonce.
    pub fn of_applicant(scene: &Scene, nonce: &Bytes32, answer: &Bytes32) -> Agreement {
        let committed = commitment(nonce, &scene.applicant, &scene.application);
        let version = scene.version.to_le_bytes();
        let parts: [&[u8]; 8] = [
            &version,
            scene.applicant.as_bytes(),
            scene.acceptor.as_bytes(),
            &scene.application,
            &scene.offer,
            &committed,
            answer,
            nonce,
        ];
        Agreement { transcript: hash("cairn join: transcript", &parts) }
    }

    /// The acceptor's: it knows its own answer, and holds the applicant to its commitment.
    pub fn of_acceptor(
        scene: &Scene,
        committed: &Bytes32,
        answer: &Bytes32,
        revealed: &Bytes32,
    ) -> Result<Agreement, Tampered> {
        if commitment(revealed, &scene.applicant, &scene.application) != *committed {
            return Err(Tampered);
        }
        Ok(Agreement::of_applicant(scene, revealed, answer))
    }

    /// The words to compare.
    pub fn words(&self) -> Words {
        let hash = hash("cairn join: words", &[&self.transcript]);
        Words::of(hash.first_chunk().copied().unwrap_or_default())
    }

    /// A proof that this side has the token with this key.
    pub fn proof(&self, token: &Bytes32, side: Side) -> Bytes32 {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, token), &self.proven(side));
        let mut proof = [0; 32];
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Whether the proof is right; takes as long whatever is wrong with it.
    pub fn proves(&self, token: &Bytes32, side: Side, proof: &Bytes32) -> bool {
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, token), &self.proven(side), proof).is_ok()
    }

    fn proven(&self, side: Side) -> Vec<u8> {
        let side: &[u8] = match side {
            Side::Applicant => b"cairn join: applicant",
            Side::Acceptor => b"cairn join: acceptor",
        };
        [side, &self.transcript].concat()
    }
}

/// A hash of these parts, each with its length, for one purpose only.
pub(crate) fn hash(purpose: &str, parts: &[&[u8]]) -> Bytes32 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [purpose.as_bytes()].iter().chain(parts) {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A token's proof, and which token it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenProof {
    /// The token's id, which is no secret.
    pub token: String,
    /// The proof of having the rest of it.
    pub proof: Bytes32,
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
