//! A request as handlers take it: who asks, where it came in, what its path names; and its two ways to the store.
//!
//! It decides nothing: who may do what is asked of [`crate::policy`]. It must never hold or show a token.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::response::{IntoResponse, Response};
use cairn_gateway::{ApiError, ApiResult, BaseUrl, Caller, Query};
use cairn_state::Tx;
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;

use super::attrs::Attrs;
use super::wire::Here;
use crate::service::Service;
use crate::validate::Validated;

/// A request of somebody with a valid token.
pub struct Ask {
    /// Identity.
    pub svc: Arc<Service>,
    /// Who asks.
    pub caller: Caller,
    /// Where it came in.
    pub here: Here,
    /// What it asks for beside the path.
    pub query: Query,
    /// The id in the path (`{id}`); empty for a collection.
    pub id: String,
    /// The id of the part of it that the path goes on to (`{part}`); empty if it does not.
    pub part: String,
}

#[derive(Deserialize)]
struct Ids {
    #[serde(default)]
    id: String,
    #[serde(default)]
    part: String,
}

impl FromRequestParts<Arc<Service>> for Ask {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, svc: &Arc<Service>) -> Result<Self, Response> {
        let known = async {
            let caller = Caller::from_request_parts(parts, svc).await?;
            let base = BaseUrl::from_request_parts(parts, svc).await?;
            let query = Query::from_request_parts(parts, svc).await?;
            ApiResult::Ok((caller, Here::of(base, parts), query))
        };
        let (caller, here, query) = known.await.map_err(IntoResponse::into_response)?;
        let ids = Path::<Ids>::from_request_parts(parts, svc).await;
        let Path(Ids { id, part }) = ids.map_err(IntoResponse::into_response)?;
        Ok(Ask { svc: svc.clone(), caller, here, query, id, part })
    }
}

impl Ask {
    /// Reads one state of the store.
    pub fn read<T>(&self, read: impl FnOnce(&mut Tx) -> ApiResult<T>) -> ApiResult<T> {
        self.svc.store.read(read)
    }

    /// Changes the store in one transaction; `change` runs again if somebody else was faster.
    pub async fn change<T>(&self, change: impl FnMut(&mut Tx) -> ApiResult<T>) -> ApiResult<T> {
        self.svc.store.transact(change).await
    }

    /// The same for a change that is answered with nothing but 204.
    pub async fn done(&self, change: impl FnMut(&mut Tx) -> ApiResult<()>) -> ApiResult<StatusCode> {
        self.change(change).await?;
        Ok(StatusCode::NO_CONTENT)
    }

    /// Takes the domain that a new record belongs to: without one in the body the token's, as Keystone does.
    pub fn domain_for(&self, attrs: &mut Attrs) -> ApiResult<String> {
        Ok(attrs.text("domain_id")?.unwrap_or_else(|| self.own_domain().to_owned()))
    }

    /// The domain that the token is for, or that its project is in.
    pub fn own_domain(&self) -> &str {
        self.caller.domain_id.as_deref().unwrap_or(&self.caller.project_domain_id)
    }
}

/// The whole of the caller's token, for handlers that must know how it was come by.
pub struct Holder(pub Arc<Validated>);

impl FromRequestParts<Arc<Service>> for Holder {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, svc: &Arc<Service>) -> Result<Self, ApiError> {
        // The gateway has let the caller in; an access rule may yet have refused the token for this request.
        parts.extensions.get::<Arc<Caller>>().ok_or_else(ApiError::unauthorized)?;
        let token = parts.headers.get("x-auth-token").and_then(|t| t.to_str().ok());
        let validated = svc.validate(token.unwrap_or(""))?;
        validated.map(Holder).ok_or_else(ApiError::unauthorized)
    }
}
