//! How Cairn's processes talk: on one node by Unix sockets, between nodes by one transport with mutual TLS.
//!
//! What lives here: the store served to the agents ([`store_server`]) and their client, a
//! [`cairn_state::Store`] like any other ([`store_client`]); HTTP/1.1 between the roles, for what is too large
//! or too immediate for the store ([`local_http`]); and the sockets both stand on ([`local_socket`]). Between
//! nodes: calls to named services, and the replicas of the store among them ([`remote`]).
//!
//! A peer is known by what the kernel says about it, or by the key it proves to hold, never by what it says
//! itself. Nothing here knows what a key or a request means.

pub mod local_http;
pub mod local_socket;
mod protocol;
pub mod remote;
pub mod store_client;
pub mod store_server;

pub use local_socket::Peer;
pub use store_client::RemoteStore;
pub use store_server::Role;
