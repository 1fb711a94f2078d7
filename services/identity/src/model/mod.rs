//! The records of identity in the store, their keys and indexes. Their one writer is the controller.
//!
//! A domain is a project with `is_domain`, as in Keystone: both share one id space and one record.

mod actors;
mod catalog;
mod delegation;
mod roles;
mod secrets;

pub(crate) use actors::scoped;
pub use actors::{Group, Membership, Project, User};
pub use catalog::{Endpoint, Region, Service};
pub use delegation::{AccessRule, ApplicationCredential, Trust};
pub use roles::{Actor, Assignment, Implication, Role, Target};
pub use secrets::{Credential, KeySecret, Keys, Mark, Policy, Revocation};

/// Attributes a client sent that have no field of their own; they are given back as they came.
pub type Extra = serde_json::Map<String, serde_json::Value>;

/// A new id, as Keystone makes them: 32 hex digits.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
