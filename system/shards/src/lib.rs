//! The storage engine: volumes on data disks, served to guests by vhost-user-blk.
//!
//! Two sides. The controller's side is [`model`] (the records) and [`volumes`] (what services call inside their
//! own transactions). The node's side runs in the storage process.

pub mod agent;
pub mod blk;
pub mod data;
pub mod disk;
pub mod format;
mod fsio;
pub mod model;
pub mod pool;
mod sys;
pub mod volume;
pub mod volumes;
