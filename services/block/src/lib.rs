//! Block storage: volumes and their snapshots. OpenStack's Block Storage API (Cinder v3) at `/volume`.
//!
//! A volume here is a record with a project, a name and a status; its content is a volume of the storage engine
//! with the same id. Snapshots and clones are the engine's clones. Servers' root disks are volumes too, kept out
//! of every list; compute makes and ends them through [`servers`], inside its own transaction.
//!
//! It may touch its own records, and the specs of the engine's volumes that carry their ids. It must never give
//! a volume to two servers, never promise more room than policy allows ([`capacity`]), and never drop a record
//! before the storage agent has destroyed what it stands for.

pub mod api;
pub mod backups;
pub mod capacity;
mod conductor;
pub mod create;
pub mod elsewhere;
pub mod groups;
mod keys;
mod lifecycle;
pub mod messages;
pub mod model;
pub mod qos;
pub mod quota;
mod retype;
mod revert;
pub mod servers;
pub mod transfers;
pub mod types;
pub mod unmanaged;

use std::sync::Arc;

use cairn_gateway::{ErrorStyle, Mount, mount::BODY_MAX};

pub use cairn_gateway::Service;

pub use conductor::conductor;

/// The one availability zone, until nodes are grouped.
pub const ZONE: &str = "nova";

/// The service's place under the endpoint.
pub fn mount(svc: &Arc<Service>) -> Mount {
    Mount { prefix: "/volume", style: ErrorStyle::Nova, router: api::router(svc.clone()), body_max: BODY_MAX }
}
