//! How nodes find each other: each announces itself by mDNS (RFC 6762) and DNS-SD (RFC 6763) on every link it is
//! given, and listens for the others. A link-local IPv6 address is enough.
//!
//! Anybody on a link can announce anything. What is seen is a hint for whom to ask; it is bounded, and trusted
//! for nothing.

mod announcement;
mod daemon;

pub use announcement::{Announcement, NotAnAnnouncement, Phase};
pub use daemon::{Discovery, Error, Links, Sighting};
