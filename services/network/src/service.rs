//! The service as the controller holds it: the store, and its place under the endpoint.

use std::sync::Arc;

use cairn_gateway::mount::BODY_MAX;
use cairn_gateway::{ErrorStyle, Mount};
use cairn_state::LocalStore;

use crate::api;

/// The network service of a controller.
pub struct Service {
    /// The store.
    pub store: LocalStore,
}

impl Service {
    /// The service on this store.
    pub fn new(store: LocalStore) -> Arc<Service> {
        Arc::new(Service { store })
    }
}

/// Its place under the endpoint: `/network`.
pub fn mount(svc: &Arc<Service>) -> Mount {
    Mount {
        prefix: "/network",
        style: ErrorStyle::Neutron,
        router: api::router().with_state(svc.clone()),
        body_max: BODY_MAX,
    }
}
