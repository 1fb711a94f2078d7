//! Identity: who may do what where, in Keystone's v3 API; tokens; the catalog.
//!
//! What lives here: users, groups, domains, projects, roles and their assignments ([`model`]), how they make up what
//! somebody may do ([`effective`]), tokens ([`token`], [`issue`], [`validate`]) and the catalog ([`catalog`]). `api` is
//! the wire. [`Service`] is what the gateway checks tokens with; [`bootstrap`](bootstrap()) fills an empty store.
//!
//! It touches the store and nothing else. It must never log a token, password or secret, never store a password but
//! as an argon2id hash, never say whether it was the user or the password that was wrong, and never hash a password
//! or scan a kind to validate a token.

pub mod access_rules;
pub mod api;
pub mod bootstrap;
pub mod cascade;
pub mod catalog;
pub mod clock;
pub mod crypt;
pub mod effective;
pub mod issue;
pub mod keyring;
pub mod marks;
pub mod model;
pub mod password;
pub mod policy;
pub mod service;
pub mod throttle;
pub mod token;
pub mod validate;

pub use api::mount;
pub use bootstrap::bootstrap;
pub use service::{Options, Service, conductor};
