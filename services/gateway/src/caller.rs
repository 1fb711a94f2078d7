//! Who asks: the caller a valid token stands for, and what else the gateway knows of a request.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use http::Method;
use http::request::Parts;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// The user, scope and roles of a valid token. The default is nobody, and may do nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user's id.
    pub user_id: String,
    /// The user's name.
    pub user_name: String,
    /// The id of the user's domain.
    pub user_domain_id: String,
    /// The project the token is scoped to; empty for an unscoped or domain-scoped token.
    pub project_id: String,
    /// That project's name.
    pub project_name: String,
    /// The id of that project's domain.
    pub project_domain_id: String,
    /// The domain the token is scoped to, if it is scoped to one.
    pub domain_id: Option<String>,
    /// The names of the roles held in that scope, implied ones included.
    pub roles: BTreeSet<String>,
    /// The token's audit id, which may be logged (the token itself never).
    pub audit_id: String,
}

impl Caller {
    /// Whether the caller may act for the whole cloud.
    pub fn is_admin(&self) -> bool {
        self.roles.contains("admin")
    }

    /// Refuses who isn't admin.
    pub fn require_admin(&self) -> Result<(), ApiError> {
        if self.is_admin() {
            return Ok(());
        }
        Err(ApiError::forbidden("this needs the role admin"))
    }

    /// Refuses a token without a project.
    pub fn require_project(&self) -> Result<&str, ApiError> {
        if self.project_id.is_empty() {
            return Err(ApiError::forbidden("this needs a token scoped to a project"));
        }
        Ok(&self.project_id)
    }

    /// Refuses who may only read (the role `reader` with no other).
    pub fn require_writer(&self) -> Result<&str, ApiError> {
        if ["admin", "manager", "member"].iter().any(|r| self.roles.contains(*r)) {
            return self.require_project();
        }
        Err(ApiError::forbidden("this needs the role member"))
    }

    /// Whether the caller may see what belongs to this project.
    pub fn sees(&self, project_id: &str) -> bool {
        self.is_admin() || (self.project_id == project_id && !project_id.is_empty())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Arc<Caller>>().map(|c| Caller::clone(c)).ok_or_else(ApiError::unauthorized)
    }
}

/// Checks tokens; identity implements it.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// The caller this `X-Auth-Token` stands for, or `None` if it is not valid (any more).
    async fn authenticate(&self, token: &str) -> Result<Option<Arc<Caller>>, ApiError>;

    /// The same, for the use of the token in one request (`path` with the service's prefix): some tokens are good
    /// for some requests only. The gateway asks this one.
    async fn authenticate_for(
        &self,
        token: &str,
        _method: &Method,
        _path: &str,
    ) -> Result<Option<Arc<Caller>>, ApiError> {
        self.authenticate(token).await
    }
}

/// The id of a request, `req-UUID`, in every log line and answer. A request extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

/// The scheme and authority the client used (`https://10.0.0.5`), with no slash at the end: what links are built
/// from, so that they work behind any name or address. A request extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(pub String);

impl<S: Send + Sync> FromRequestParts<S> for BaseUrl {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get()
            .cloned()
            .ok_or_else(|| ApiError::bad_request("the request has no valid Host header"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get().cloned().unwrap_or(RequestId("req-unknown".into())))
    }
}
