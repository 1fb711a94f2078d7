//! Placement: how much each node has, and who holds how much of it.
//!
//! The book of resource providers (one per node) and of the allocations that consumers (servers) hold on them.
//! Other services claim and release through [`claims`], inside their own transaction; administrators read the
//! same book at `/placement`, OpenStack's Placement API.
//!
//! It may touch only its own records in the store. It must never let the allocations of a provider exceed its
//! capacity, whoever races: the used totals stand in the provider's record, which every claim reads and writes.

pub mod api;
pub mod claims;
pub mod model;

use std::sync::Arc;

use cairn_gateway::{ErrorStyle, Mount, mount::BODY_MAX};

pub use cairn_gateway::Service;

/// The service's place under the endpoint.
pub fn mount(svc: &Arc<Service>) -> Mount {
    Mount {
        prefix: "/placement",
        style: ErrorStyle::Placement,
        router: api::router(svc.clone()),
        body_max: BODY_MAX,
    }
}
