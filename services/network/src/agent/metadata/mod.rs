//! The metadata service: what a guest learns about itself at http://169.254.169.254, in OpenStack's and in EC2's
//! form.
//!
//! [`answer`] decides and is pure; [`server`] is the socket in a network's (or router's) namespace. Who asks is
//! known by the address the request comes from, which anti-spoofing vouches for; nothing in the request is
//! trusted. It must never give one guest another's data, and never log any.

mod answer;
mod ec2;
pub mod server;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

pub use answer::{Found, find};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The server.
    pub server: String,
    /// Its floating address for the one it asks from.
    pub public: Option<Ipv4Addr>,
}

/// Who asks from which address.
pub type Tenants = BTreeMap<IpAddr, Tenant>;

#[cfg(test)]
mod tests;
