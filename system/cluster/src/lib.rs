//! How nodes become one cloud: how they find each other, how one joins, who belongs, and by what they trust.
//!
//! What lives here: a node's key and name ([`key`]), announcing and finding nodes on every link ([`discovery`]), the
//! decision to found, wait, join or give way ([`founder`]), the joining handshake with its four words ([`join`],
//! [`handshake`], [`words`], [`token`]), the members and who of them votes ([`membership`]), and certificates
//! ([`certificates`]). What is decided is pure; what is remembered is in the store; what is said goes over
//! `cairn-wire`.
//!
//! A cloud of two nodes may have a [`witness`]: a third machine that votes and is no node.
//!
//! Beside them: the lease by which a node is known to be in touch ([`alive`]), what a node's roles go by when they talk
//! to other nodes ([`handover`]), and the authority behind the API's certificates ([`api_authority`]).
//!
//! It knows no service, and keeps no file but the word that a lease was renewed. It must never let a node in, nor
//! trust one, by its address, by its name, or by an announcement: those are hints for whom to ask.

pub mod alive;
pub mod api_authority;
pub mod certificates;
mod der;
pub mod discovery;
pub mod founder;
pub mod handover;
pub mod handshake;
pub mod join;
pub mod key;
pub mod membership;
pub mod token;
pub mod witness;
pub mod words;

pub use alive::Alive;
pub use api_authority::ApiAuthority;
pub use certificates::{Authority, NodeCertificate};
pub use der::Der;
pub use key::NodeKey;
pub use membership::Belonging;
pub use token::Token;
pub use words::Words;
