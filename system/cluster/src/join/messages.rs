//! What is said to join: `join/begin` takes a [`Begin`] and answers with an [`Offer`]; `join/reveal` takes a [`Reveal`]
//! and answers with an [`Answer`], as does `join/status` (which takes nothing) as often as it is asked.
//!
//! What each side says about itself travels as bytes, and those bytes are what is hashed: a newer release may say
//! more at the end.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::der::Der;
use crate::handshake::{Bytes32, TokenProof};
use crate::membership::Belonging;

/// A node says who it is and commits to a nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// An [`Application`], encoded.
    pub application: Vec<u8>,
    /// What the nonce will be held to.
    pub commitment: Bytes32,
}

/// What a node says about itself. Its key and name are not among it: TLS shows the one, and the other follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// The release it runs.
    pub release: String,
    /// Where it can be reached by other nodes.
    pub addresses: Vec<SocketAddr>,
}

/// The node that is asked says what it is of, with a nonce of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// A [`Cloud`], encoded.
    pub cloud: Vec<u8>,
    /// Its nonce.
    pub nonce: Bytes32,
}

/// What a node says about its cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloud {
    /// Its id.
    pub id: String,
    /// The certificate of its authority.
    pub authority: Der,
}

/// The node reveals its nonce, and proves to have a token if it was given one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reveal {
    /// What it had committed to.
    pub nonce: Bytes32,
    /// Its proof.
    pub token: Option<TokenProof>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It belongs.
    Admitted {
        /// All that makes it a member.
        belonging: Box<Belonging>,
        /// If it came with a token: the proof that the cloud has it too.
        proof: Option<Bytes32>,
    },
    /// A person is to decide.
    Waiting,
    /// It may not; why.
    Refused(String),
}
