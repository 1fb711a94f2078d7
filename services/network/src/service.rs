//! The service's place under the endpoint.

use std::sync::Arc;

use cairn_gateway::mount::BODY_MAX;
use cairn_gateway::{ErrorStyle, Mount};

pub use cairn_gateway::Service;

use crate::api;

/// Its place under the endpoint: `/network`.
pub fn mount(svc: &Arc<Service>) -> Mount {
    Mount {
        prefix: "/network",
        style: ErrorStyle::Neutron,
        router: api::router().with_state(svc.clone()),
        body_max: BODY_MAX,
    }
}
