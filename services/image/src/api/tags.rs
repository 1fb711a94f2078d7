//! `/v2/images/{id}/tags/{tag}`

use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Caller};
use jiff::Timestamp;

use super::{Svc, attributes};
use crate::access;
use crate::model::Image;

/// `PUT`: the image has the tag.
pub async fn add(
    State(svc): Svc,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    change(&State(svc), &caller, &id, |image| attributes::add_tag(&mut image.tags, &tag)).await
}

/// `DELETE`: it no longer has it; 404 if it had it not.
pub async fn remove(
    State(svc): Svc,
    caller: Caller,
    Path((id, tag)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    change(&State(svc), &caller, &id, |image| match image.tags.remove(&tag) {
        true => Ok(()),
        false => Err(ApiError::new(StatusCode::NOT_FOUND, "The tag could not be found.")),
    })
    .await
}

async fn change(
    svc: &Svc,
    caller: &Caller,
    id: &str,
    how: impl Fn(&mut Image) -> ApiResult<()>,
) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            let mut image = access::writable(tx, caller, id)?;
            how(&mut image)?;
            image.updated_at = Timestamp::now();
            tx.put(&image)?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}
