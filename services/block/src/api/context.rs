//! What every handler needs to know of its request, gathered once.

use axum::extract::{FromRequestParts, OriginalUri};
use cairn_gateway::{ApiError, BaseUrl, Caller, Minor, RequestId};
use http::request::Parts;
use serde_json::{Value, json};

/// Who asks, in which microversion, and where links lead.
pub struct Context {
    /// Who asks.
    pub caller: Caller,
    /// The minor number of the microversion.
    pub minor: u32,
    /// The request's id.
    pub request_id: String,
    /// The scheme and authority of links.
    base: String,
    /// The path that was asked for, as the client wrote it.
    path: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let Minor(minor) = Minor::from_request_parts(parts, state).await?;
        let BaseUrl(base) = BaseUrl::from_request_parts(parts, state).await?;
        let RequestId(request_id) = RequestId::from_request_parts(parts, state).await?;
        let whole = parts.extensions.get::<OriginalUri>().map(|o| o.0.path().to_owned());
        let path = whole.unwrap_or_else(|| parts.uri.path().to_owned());
        Ok(Context { caller, minor, request_id, base, path })
    }
}

impl Context {
    /// The links of a resource (`volumes`, `snapshots`).
    pub fn links(&self, resource: &str, id: &str) -> Value {
        let project = &self.caller.project_id;
        json!([
            {"rel": "self", "href": format!("{}/volume/v3/{project}/{resource}/{id}", self.base)},
            {"rel": "bookmark", "href": format!("{}/volume/{project}/{resource}/{id}", self.base)},
        ])
    }

    /// The link to the next page of the list that was asked for.
    pub fn next_link(&self, pairs: &[(String, String)], marker: &str) -> Value {
        let kept = pairs.iter().filter(|(k, _)| k != "marker" && k != "offset");
        let text = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(kept)
            .append_pair("marker", marker)
            .finish();
        json!([{"rel": "next", "href": format!("{}{}?{text}", self.base, self.path)}])
    }
}
