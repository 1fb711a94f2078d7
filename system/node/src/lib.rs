//! What makes a machine a node: its key and name, its disks, its links, its certificates, its console screen.
//!
//! Order of a boot: [`disks`] finds or makes the state partition and adopts empty disks (before anything else of
//! Cairn runs), then [`bringup`] sees to the identity ([`identity`]), the certificates ([`pki`]), the first
//! administrator's secret ([`secret`]), the LAN bridge ([`links`]) and the [`screen`], and goes on watching them.
//!
//! It runs as root, so it stays small: it opens no listening socket and parses nothing a guest or an API client
//! sends. It must never write to a disk that holds anything it did not put there.

pub mod bringup;
pub mod disks;
pub mod identity;
pub mod links;
pub mod memory;
pub mod paths;
pub mod pki;
pub mod program;
pub mod screen;
pub mod secret;

pub use identity::Identity;
pub use paths::Paths;
