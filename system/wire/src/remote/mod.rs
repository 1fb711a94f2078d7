//! How nodes talk: one versioned transport with mutual TLS, on one port.
//!
//! A connection is TCP, TLS 1.3 with a certificate from both ends (`tls`), a hello that agrees on a version
//! (`hello`), then HTTP/2: each call is a request to `/service/method` whose body, like that of its answer, is one
//! or many messages (`message`). [`serve`] takes calls in, [`Peers`] sends them.
//!
//! Identity is the key ([`PeerId`]); whether it is trusted is decided by [`trust`] alone, from members' keys first
//! and certificates second. It must never rest on an address, a name, or, for a member, the time.

mod client;
mod credentials;
mod door;
mod error;
mod hello;
mod message;
mod peer;
mod peers;
mod replicas;
mod server;
mod service;
mod tls;
pub mod trust;

pub use client::Connection;
pub use credentials::{BadCredentials, Credentials};
pub use error::{Code, Error, Refusal};
pub use hello::Versions;
pub use message::{Messages, Outgoing};
pub use peer::{NotAPeerId, Peer, PeerId, Standing};
pub use peers::Peers;
pub use replicas::{REPLICAS, ReplicaNetwork, ReplicaService, WhoIs};
pub use server::serve;
pub use service::{Access, Call, Limits, Service, Services};
pub use tls::Expect;
pub use trust::{Trust, TrustSet};

/// The port that nodes listen on for each other.
pub const PORT: u16 = 4600;
/// How many calls and streams one connection carries at a time.
const STREAMS_MAX: u32 = 1024;
/// How much of one stream may be on its way unread; a connection carries four times that.
const WINDOW_BYTES: u32 = 1 << 20;

/// This node's end of every connection: its key, whom it trusts, and what it speaks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// What it proves itself by.
    pub credentials: Credentials,
    /// Whom it trusts.
    pub trust: Trust,
    /// The versions it speaks: [`Versions::OURS`] but in tests.
    pub versions: Versions,
}
