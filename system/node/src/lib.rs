//! What makes a machine a node: its key and name, its disks, its links, its console screen.
//!
//! Order of a boot: [`disks`] finds or makes the state partition and adopts empty disks (before anything else of
//! Cairn runs), then [`bringup`] sees to the identity ([`identity`]), the first administrator's secret ([`secret`]),
//! what the other roles are handed ([`handover`]), the LAN bridge ([`links`]) and the [`screen`], and goes on watching
//! them. Once the controller has told of which cloud the node is ([`told`]), the disks become that cloud's ([`cloud`]).
//!
//! It runs as root, so it stays small: it opens no listening socket and parses nothing a guest, an API client or another
//! node sends. It must never write to a disk that holds anything it did not put there.

pub mod bringup;
pub mod cloud;
pub mod disks;
pub mod handover;
pub mod identity;
pub mod links;
pub mod memory;
pub mod paths;
pub mod program;
pub mod screen;
pub mod secret;
pub mod told;

pub use identity::Identity;
pub use paths::Paths;
