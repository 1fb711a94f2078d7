//! The network service: networks, subnets, ports, routers, floating IPs and security groups (Neutron v2.0), and
//! the agent that makes a node's kernel match them.
//!
//! Rooms: [`model`] (records, and the names of what they become on a node), [`api`] (a file per resource), [`logic`]
//! (what is decided: addresses, ports, routers, groups), [`servers`] (what compute asks in its own transaction),
//! [`conductor`](mod@conductor) (removes what the nodes report gone), [`agent`] (the node side).
//!
//! It may touch: its own records in the store (`network/...`); on a node, what the agent made itself. It must
//! never call another service over HTTP, never give one address or MAC to two ports, never take a node's own
//! links or routes away, and never log a guest's metadata.

pub mod agent;
pub mod api;
pub mod conductor;
pub mod logic;
pub mod model;
pub mod servers;
pub mod service;

pub use conductor::{conductor, conductor_with};
pub use service::{Service, mount};
