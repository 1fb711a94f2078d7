//! A service and its place under the endpoint: prefix, error form, limits. Built by services, served by the gateway.

use std::sync::Arc;

use axum::Router;
use cairn_state::LocalStore;

use crate::error::ErrorStyle;

/// A service that has all it needs in the store.
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

/// A service as the gateway mounts it.
pub struct Mount {
    /// The path prefix, as `/compute`.
    pub prefix: &'static str,
    /// The form of its error bodies.
    pub style: ErrorStyle,
    /// Its routes, below the prefix. A route that needs no token simply does not extract [`crate::Caller`].
    pub router: Router,
    /// The most bytes of a JSON body. Routes that stream (image upload) read the body themselves and are
    /// not bound by it.
    pub body_max: usize,
}

/// The body limit of most services, in bytes.
pub const BODY_MAX: usize = 1 << 20;
