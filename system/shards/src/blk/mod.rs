//! Volumes served to guests: a vhost-user-blk device per exported volume (virtio 1.2, section 5.2; the vhost-user
//! protocol as QEMU documents it).
//!
//! [`server`] is the socket and its connections, [`handler`] what a front-end says on one, [`device`] what it then
//! talks to: the volume and its rings. [`worker`] is the thread of a ring, which takes requests, does those at once
//! that wait for nothing, has the kernel do [`reads`], and gives the others to a [`pool`]. [`ring`] is a virtqueue, [`request`] one request,
//! [`memory`] the guest's memory, [`inflight`] what outlives a killed process, [`config`] what the device is,
//! [`backchannel`] how the front-end is told that this has changed.
//!
//! Three rules make a killed process harmless. What was taken and not completed is noted where the front-end keeps it,
//! and is done again; a front-end that cannot keep it gets completions in the order of its requests, because it resumes
//! from the used index. A flush completes only after `fdatasync`. A request that cannot be done for want of room is
//! held until there is room, and is on the ring again when the ring is stopped.
//!
//! All that comes from a guest is hostile: addresses are checked against its memory, ranges against the volume.

mod backchannel;
mod config;
mod device;
mod handler;
#[cfg(test)]
mod hostile;
mod inflight;
mod memory;
mod pool;
mod reads;
mod request;
mod ring;
mod server;
mod worker;

pub use server::{Export, ServeOptions};

/// A guest's memory as mapped here.
type GuestMap = vm_memory::GuestMemoryMmap<()>;
/// A chain of descriptors in it.
type Chain = virtio_queue::DescriptorChain<std::sync::Arc<GuestMap>>;
