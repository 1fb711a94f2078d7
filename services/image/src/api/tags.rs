//! `/v2/images/{id}/tags/{tag}`

use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Caller};
use jiff::Timestamp;

use super::{Svc, attributes};
use crate::access;

/// `PUT`: the image has the tag.
pub async fn add(
    State(svc): Svc,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            let mut image = access::writable(tx, &caller, &id)?;
            attributes::add_tag(&mut image.tags, &tag)?;
            image.updated_at = Timestamp::now();
            tx.put(&image)?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// `DELETE`: it no longer has it; 404 if it had it not.
pub async fn remove(
    State(svc): Svc,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            let mut image = access::writable(tx, &caller, &id)?;
            if !image.tags.remove(&tag) {
                return Err(ApiError::new(StatusCode::NOT_FOUND, "The tag could not be found."));
            }
            image.updated_at = Timestamp::now();
            tx.put(&image)?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}
