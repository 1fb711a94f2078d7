//! How a node joins a cloud: what is said ([`messages`]), what each side decides ([`applicant`], [`desk`], [`policy`]),
//! and the thin ends that talk ([`client`], [`service`]).
//!
//! The two nodes meet over TLS with certificates that vouch for nothing: each sees the other's key, and no more.
//! They agree on four words by commitment ([`crate::handshake`]); then the cloud's policy lets the node in, asks a
//! person, or wants a token. What waits for a person is a record of the store, so it outlives the connection and the
//! node that was asked.

pub mod applicant;
pub mod client;
pub mod desk;
pub mod messages;
pub mod policy;
pub mod service;

/// The name of the service on the wire.
pub const SERVICE: &str = "join";
