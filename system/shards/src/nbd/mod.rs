//! The same volumes by the NBD protocol, for emulators that run guests without KVM.
//!
//! Why: QEMU's own emulation (TCG) keeps translations of a guest's code, and drops them when it sees the code's memory
//! change. It does not see what a vhost-user back-end writes there, and goes on running what was there before: a
//! guest's boot sector, then the next. What comes by NBD, QEMU writes itself. With KVM there are no translations, and
//! vhost-user-blk serves.
//!
//! [`protocol`] is what goes over the wire, [`server`] the socket and its one connection. A killed process is
//! harmless: QEMU connects again and sends anew whatever was not answered. [`client`] is the other end of the wire, for
//! volumes that another program serves to us.

mod client;
mod protocol;
mod server;

pub use client::NbdVolume;
pub use server::NbdExport;

#[cfg(test)]
mod prepared_tests;
