//! The records of membership, and what a node keeps of them for when the store is not there.

use std::net::SocketAddr;

use cairn_state::Record;
use cairn_wire::remote::{PeerId, TrustSet};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::certificates::NodeCertificate;
use crate::der::Der;
use crate::words::Words;

/// The one id of records that a cloud has one of.
const ONLY: &str = "this";

/// The cloud itself. Its writer is the controller: once when it is founded, once more if it is given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cloud {
    /// Its id.
    pub id: String,
    /// When it was founded, by the founder's clock.
    pub founded: Timestamp,
    /// Whether it still is one.
    pub state: CloudState,
}

/// Whether a cloud goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloudState {
    /// It does.
    Active,
    /// It held nothing of a user's and gave way to this one; nothing is written to it any more.
    Yielded {
        /// The cloud it gave way to.
        to: String,
    },
}

impl Cloud {
    /// The id of the record.
    pub const ID: &'static str = ONLY;
}

impl Record for Cloud {
    const KIND: &'static str = "cluster/cloud";

    fn id(&self) -> String {
        ONLY.into()
    }
}

/// A node of the cloud, by its key. Its writer is the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its identity, and what its key is held to.
    pub id: PeerId,
    /// Its name, which follows from the key.
    pub name: String,
    /// Its public key, SubjectPublicKeyInfo.
    pub public_key: Der,
    /// Where it can be tried, the likeliest first. Only hints: they may change at any time.
    pub addresses: Vec<SocketAddr>,
    /// How far it belongs.
    pub state: MemberState,
    /// Whether it votes on the store's log. What is wanted; the store's engine follows.
    pub voter: bool,
    /// The number of its replica of the store, once it has one. A new one when its disk was lost.
    #[serde(default)]
    pub replica: Option<u64>,
    /// When it was let in.
    pub joined: Timestamp,
}

/// How far a node belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Let in, and not heard of since.
    Joining,
    /// Belongs.
    Member,
    /// Is being emptied, then removed.
    Leaving,
    /// Does not belong, and is refused.
    Removed,
}

impl Member {
    /// Whether its key is trusted.
    pub fn is_trusted(&self) -> bool {
        self.state != MemberState::Removed
    }

    /// What others need to know it by.
    pub fn pin(&self) -> Pin {
        Pin { id: self.id, name: self.name.clone(), addresses: self.addresses.clone() }
    }
}

impl Record for Member {
    const KIND: &'static str = "cluster/member";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// Who is let in. Its writer is the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinPolicy {
    /// Until then, whoever asks.
    pub open_until: Option<Timestamp>,
    /// Else. (A good token lets in at any time.)
    pub otherwise: Otherwise,
}

/// What happens to a node that asks when joining is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// A person decides, who compares words.
    Ask,
    /// It is refused, unless it has a token.
    Token,
}

impl JoinPolicy {
    /// The id of the record.
    pub const ID: &'static str = ONLY;
}

impl Default for JoinPolicy {
    fn default() -> JoinPolicy {
        JoinPolicy { open_until: None, otherwise: Otherwise::Ask }
    }
}

impl Record for JoinPolicy {
    const KIND: &'static str = "cluster/policy";

    fn id(&self) -> String {
        ONLY.into()
    }
}

/// A node that waits to be let in. Its writer is the controller: the one it asked, then any that a person answers at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its identity.
    pub id: PeerId,
    /// Its name, which follows from the key.
    pub name: String,
    /// Its public key, SubjectPublicKeyInfo.
    pub public_key: Der,
    /// Where it can be tried.
    pub addresses: Vec<SocketAddr>,
    /// The release it runs.
    pub release: String,
    /// What its screen shows if nobody is in the middle.
    pub words: Words,
    /// When it asked.
    pub asked: Timestamp,
    /// What became of it. One that is accepted is a member, and a request no more.
    pub state: RequestState,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// Nothing yet.
    Waiting,
    /// A person said no.
    Refused {
        /// Who, as far as the caller says.
        by: String,
    },
}

impl Record for Request {
    const KIND: &'static str = "cluster/request";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// A member as others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its identity.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Where it can be tried.
    pub addresses: Vec<SocketAddr>,
}

/// All that makes a node a member: what it is given when it joins, and keeps on its own disk (as JSON, readable by
/// the controller alone) for when it starts and no store is there yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belonging {
    /// The cloud's id.
    pub cloud: String,
    /// The node's certificate.
    pub certificate: NodeCertificate,
    /// The certificate of the authority.
    pub authority: Der,
    /// Everyone who belongs, itself included.
    pub members: Vec<Pin>,
    /// The keys that were removed.
    pub removed: Vec<PeerId>,
    /// The machine that votes and is no node, if there is one.
    #[serde(default)]
    pub witness: Option<Pin>,
}

impl Belonging {
    /// Whom to trust, as far as this node knows.
    pub fn trust(&self) -> TrustSet {
        TrustSet {
            members: self.members.iter().map(|pin| pin.id).collect(),
            witnesses: self.witness.iter().map(|pin| pin.id).collect(),
            removed: self.removed.iter().copied().collect(),
            authorities: vec![CertificateDer::from(self.authority.0.clone())],
        }
    }
}
