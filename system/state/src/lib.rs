//! The store: all desired and observed state of the cloud, as revisioned key-value records.
//!
//! What lives here: the key-value model ([`kv`]), its state machine on redb (`engine`), replication ([`raft`]),
//! both put together as [`LocalStore`], typed records with
//! migrations and indexes ([`record`]), optimistic transactions on a snapshot ([`tx`]), and what an agent
//! needs to follow the store and to report ([`mirror`], [`reconcile`], [`report`]), and the loop of the controller's
//! own tasks ([`conduct`](mod@conduct)).
//!
//! It knows no service: a key is a string, a value is bytes. It opens no socket (that is `cairn-wire`).
//! It must never acknowledge a transaction that is not on stable media.

#[cfg(test)]
extern crate self as cairn_state;

pub mod agent;
pub mod conduct;
mod engine;
pub mod kv;
mod media;
pub mod mirror;
pub mod raft;
pub mod reconcile;
pub mod record;
pub mod report;
mod store;
pub mod tx;
mod wal;

pub use agent::AgentArgs;
pub use conduct::conduct;
pub use engine::{Command, Limits, Reply, Snapshot};
pub use kv::{
    Compare, Entry, Event, LeaseId, Op, Range, Revision, SharedStore, Store, StoreError, Txn, TxnOutcome,
    WatchStream,
};
pub use media::Media;
pub use mirror::Mirror;
pub use raft::{Member, Network, NodeId, NotReached, Status, Timing, is_witness};
pub use reconcile::{Fault, Reconciler, ReconcilerStatus};
pub use record::{Index, Record, StoreExt};
pub use report::{Reporter, RoleStatus};
pub use store::{Endpoint, LocalStore, Options};
pub use tx::{Abort, Tx};
