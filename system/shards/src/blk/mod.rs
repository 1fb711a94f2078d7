//! Volumes served to guests: a vhost-user-blk device per exported volume (virtio 1.2, section 5.2).
//!
//! [`config`] says what the device is (features, configuration space), [`request`] does one request, [`device`]
//! takes requests off the rings and completes them, [`ring`] is a ring whose worker survives a stray kick,
//! [`server`] is the socket and its connections.
//!
//! Three rules make a killed process harmless. Requests of a ring complete strictly in order, because QEMU
//! resumes after a reconnect from the used index. A flush completes only after `fdatasync`. A request that
//! cannot be done for want of room stays on the ring, untouched, until there is room.
//!
//! All that comes from a guest is hostile: addresses are checked against its memory, ranges against the volume.
//! Nothing is copied on the way: data moves between the guest's memory and the page cache.

mod config;
mod device;
mod request;
mod ring;
mod server;

pub use server::{Export, ServeOptions};

/// The bits by which a guest's memory is tracked while it migrates.
type Bitmap = vhost_user_backend::bitmap::BitmapMmapRegion;
/// A guest's memory as mapped here.
type GuestMap = vm_memory::GuestMemoryMmap<Bitmap>;
/// The same, replaceable while in use.
type GuestMemory = vm_memory::GuestMemoryAtomic<GuestMap>;
