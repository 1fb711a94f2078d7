//! Bounded, checked input: JSON bodies and query strings, refused with an [`ApiError`] that names the fault.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// How long a client may take to send a JSON body.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// The most bytes of a body that is read whole. The gateway puts it into each request, from the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyMax(pub usize);

/// A JSON body. The mount's body limit bounds its bytes; nesting is bounded at 128 by the parser.
#[derive(Debug, Clone)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        refuse_announced(&request)?;
        let read = tokio::time::timeout(BODY_TIME_MAX, Bytes::from_request(request, state));
        let bytes = read
            .await
            .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "The request body took too long."))?
            .map_err(|e| ApiError::new(e.status(), "The request body is too large or was cut off."))?;
        serde_json::from_slice(&bytes)
            .map(Body)
            .map_err(|e| ApiError::bad_request(format!("The request body is not valid: {e}")))
    }
}

/// Refuses a body that says itself that it is too large, before any of it is read.
fn refuse_announced(request: &Request) -> Result<(), ApiError> {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    match (announced, request.extensions().get::<BodyMax>()) {
        (Some(bytes), Some(max)) if bytes > max.0 as u64 => {
            Err(ApiError::too_large(format!("The request body exceeds {} bytes.", max.0)))
        }
        _ => Ok(()),
    }
}

/// The query string: keys in order, each possibly several times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Every value of a key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A value of some type; 400 if it is given and does not parse.
    pub fn parse<T: FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        match self.get(key) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("Invalid value '{text}' for the query parameter {key}."))
            }),
        }
    }

    /// A boolean in any of the forms clients send; the text `None` means "not given".
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.get(key).map(str::to_ascii_lowercase).as_deref() {
            None | Some("none") => Ok(None),
            Some("true" | "1" | "yes" | "on" | "t" | "y") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off" | "f" | "n") => Ok(Some(false)),
            Some(other) => {
                Err(ApiError::bad_request(format!("Invalid value '{other}' for the query parameter {key}.")))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::bad_request(format!("The query string is not valid: {e}")))?;
        Ok(Query(pairs.0))
    }
}
