//! The gateway: the one TLS endpoint of the cloud, and the kit every API is built from.
//!
//! Kit, used by every service crate: [`Caller`] (who asks), [`ApiError`] (what went wrong, rendered in the form
//! that API's clients expect by [`Mount`]), [`Body`] and [`Query`] (bounded, checked X
//! [`versions`] (what discovery reads).
//! Server, used by the controller alone: [`server`] (TLS, redirect, limits, request ids, token check, routing).
//!
//! It knows no service: services hand it a [`Mount`]. It must never show an internal error's text to a client,
//! and never log a token, password or body.

pub mod caller;
pub mod error;
pub mod input;
pub mod microversion;
pub mod mount;
pub mod paging;
pub mod server;
pub mod versions;

pub use caller::{Authenticate, BaseUrl, Caller, RequestId};
pub use error::{ApiError, ErrorStyle};
pub use input::{Body, Query};
pub use microversion::{Microversions, Minor};
pub use mount::{Mount, Service};
pub use paging::Page;
pub use versions::Version;

/// What every handler returns.
pub type ApiResult<T> = Result<T, ApiError>;
