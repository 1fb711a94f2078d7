//! Volumes on several disks, of several nodes if there are: one writer, synchronous replicas, and who may be read.
//!
//! - [`set`]: the record that says which replicas there are and which are in sync; [`placement`]: where they are;
//!   [`place`]: how that is written; [`fill`]: which move, so that disks fill evenly.
//! - [`writer`]: what the one writer of a volume does next, as a pure state machine; [`op`]: what it asks of replicas.
//! - [`regions`]: the units of comparing and copying; [`blocks`]: what of one differs; [`absence`]: what those in sync keep of what others miss.
//! - [`replica`]: a replica on a disk here; [`link`] a writer's connection to one, [`remote`] to one elsewhere, which
//!   [`service`] answers.
//! - [`group`]: the writer at work, with its threads and connections; [`pace`]: how fast it rebuilds; [`records`]: the
//!   record in the store.
//!
//! What must always hold: a write is acknowledged when every replica that the store calls in sync has it, a flush when
//! every one of them has flushed; a replica that missed a write is called out of sync in the store before that write
//! is acknowledged; a replica that has served a writer never again serves one of an older epoch.

pub mod absence;
pub mod blocks;
pub mod fill;
pub mod group;
pub mod link;
pub mod op;
pub mod pace;
pub mod place;
pub mod placement;
pub mod records;
pub mod regions;
pub mod remote;
pub mod replica;
pub mod service;
pub mod set;
pub mod writer;
