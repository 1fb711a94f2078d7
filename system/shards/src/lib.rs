//! The storage engine: volumes on data disks, served to guests by vhost-user-blk.
//!
//! Two sides, which meet only in the store and on one socket:
//!
//! - The controller's: [`model`] (the records), [`volumes`] (what services call inside their own transactions),
//!   [`conductor`] (replicas where they are wanted), [`removal`] (nodes that leave), [`disks`] (what is wanted of disks),
//!   [`ailing`] (disks that say they fail), [`balance`] (disks that fill evenly), [`adoption`] (disks that were put into
//!   other nodes),
//!   [`data::Client`] (images in and out).
//! - The node's, in the storage process: [`agent`] (compares and acts), over [`pool`] (the disks and what lies
//!   on them), [`disk`], [`ownership`] (whose a disk is), [`volume`] (I/O on one volume), [`scrub`] (the search for damage),
//!   [`blk`] (guests), [`data`] (images). [`replication`] makes one volume of its replicas on several nodes, [`crypt`] keeps
//!   their content secret on disks, [`backup`] copies volumes and back, [`external`] has those that another system keeps.
//!   [`mod@format`] names every byte on a disk; `FORMAT.md` explains it.
//!
//! What it may touch: directories with a marker of this cloud, its sockets, its ledger, and the records of which
//! it is the one writer. What it must never do: acknowledge a flush whose data is not on stable media; make a volume
//! anew that once held data; destroy a volume without its tombstone; guess the format of an image; hand out what is not
//! what was written; change a file that volumes share; let a guest or an upload reach beyond its own bytes.

pub mod adoption;
pub mod agent;
pub mod ailing;
pub mod backup;
pub mod balance;
pub mod blk;
pub mod conductor;
pub mod crypt;
pub mod data;
pub mod disk;
pub mod disks;
pub mod external;
pub mod format;
mod fsio;
pub mod health;
pub mod media;
pub mod model;
pub mod nbd;
pub mod ownership;
pub mod pool;
pub mod redundancy;
pub mod removal;
pub mod replication;
pub mod scrub;
mod seal;
mod sys;
pub mod throttle;
pub mod volume;
pub mod volumes;
