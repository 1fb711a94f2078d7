//! A service's place under the endpoint: prefix, error form, limits. Built by services, served by the gateway.

use axum::Router;

use crate::error::ErrorStyle;

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
