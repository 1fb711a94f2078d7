//! The guests that come with the build, as disk images to upload to the cloud:
//! a tiny one for tests, and a Debian with cloud-init for people.

pub mod debian;
mod disk;
pub mod tiny;
