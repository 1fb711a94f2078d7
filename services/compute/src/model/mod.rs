//! The records of compute and their keys. Only types and pure helpers: no I/O, no policy.
//!
//! Each record names its one writer. What the controller wants of a node is in [`Server`]; what the node sees is
//! in [`InstanceStatus`] and [`HostStatus`], written by that node's agent alone.

mod catalogue;
mod migration;
mod server;
mod status;

pub use catalogue::{
    Aggregate, Flavor, HostPolicy, Keypair, Quota, ServerGroup, Usage, flavor_seed, hypervisor_uuid,
};
pub use migration::{
    Counter, INDEX_ENDED, INDEX_SERVER, Migration, MigrationKind, MigrationStatus, MovePhase, MoveStatus,
    Moving, Progress, Stage, move_status_id,
};
pub use server::{
    Boot, BootKind, Fault, Firmware, FlavorSnapshot, INDEX_WORK, ImageSnapshot, KeySnapshot, Lock, Power,
    Server, ServerPort, ServerVolume, WORK_OPEN,
};
pub use status::{ActionEntry, ActionLog, HostStatus, InstanceStatus, PowerState};
