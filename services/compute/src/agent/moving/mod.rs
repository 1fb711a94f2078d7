//! Live migration on a node: the target says when a guest may come and when it is here; the source sends it.
//!
//! `decide` decides from what is seen and was said; `tunnel` carries libvirt's and QEMU's streams between nodes. What
//! is remembered here may be lost at any time: a migration that its agent loses fails in libvirt, and its guest goes
//! on at the source.

pub mod decide;
mod mover;
pub mod tunnel;

pub use mover::{Mover, Parts, Way};
pub use tunnel::{Book, Sockets, Transport};
