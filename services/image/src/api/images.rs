//! `/v2/images` and `/v2/images/{id}`: making, showing, deleting, deactivating images.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use cairn_shards::model::VolumeSpec;
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Svc, attributes, view};
use crate::model::{Image, Member, Status, Visibility};
use crate::{access, upload};

/// `POST /v2/images`: an image without content.
pub async fn create(
    State(svc): Svc,
    caller: Caller,
    Body(wanted): Body<Map<String, Value>>,
) -> ApiResult<Response> {
    caller.require_writer()?;
    let image = build(&caller, &wanted)?;
    svc.store
        .transact(|tx| {
            let taken = tx.get::<Image>(&image.id)?.is_some() || tx.get::<VolumeSpec>(&image.id)?.is_some();
            if taken {
                return Err(ApiError::conflict(format!("Image ID {} already exists!", image.id)));
            }
            Ok(tx.put(&image)?)
        })
        .await?;
    let location = [("location", format!("/image/v2/images/{}", image.id))];
    Ok((StatusCode::CREATED, location, Json(view::image(&image))).into_response())
}

fn build(caller: &Caller, wanted: &Map<String, Value>) -> ApiResult<Image> {
    let now = Timestamp::now();
    let mut image = Image {
        id: new_id(wanted.get("id"))?,
        name: None,
        status: Status::Queued,
        visibility: Visibility::Shared,
        owner: caller.require_project()?.to_owned(),
        disk_format: None,
        container_format: None,
        size: None,
        virtual_size: None,
        checksum: None,
        os_hash_value: None,
        min_disk: 0,
        min_ram: 0,
        protected: false,
        os_hidden: false,
        tags: BTreeSet::new(),
        properties: BTreeMap::new(),
        created_at: now,
        updated_at: now,
        incoming: None,
    };
    for (key, value) in wanted.iter().filter(|(key, _)| *key != "id") {
        attributes::set(&mut image, caller, key, value)?;
    }
    Ok(image)
}

fn new_id(wanted: Option<&Value>) -> ApiResult<String> {
    let Some(value) = wanted else { return Ok(uuid::Uuid::new_v4().to_string()) };
    // Only the canonical form: the id names a directory, and must be one image's alone.
    value
        .as_str()
        .filter(|id| uuid::Uuid::parse_str(id).is_ok_and(|u| u.to_string() == **id))
        .map(str::to_owned)
        .ok_or_else(|| ApiError::bad_request("Invalid image id format: it must be a UUID in lower case."))
}

/// `GET /v2/images/{id}`
pub async fn show(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let image = svc.store.read(|tx| access::visible(tx, &caller, &id))?;
    Ok(Json(view::image(&image)))
}

/// `DELETE /v2/images/{id}`. Disks made from it go on: they are clones.
pub async fn delete(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            let image = access::writable(tx, &caller, &id)?;
            if image.protected {
                return Err(ApiError::forbidden(format!("Image {id} is protected and cannot be deleted.")));
            }
            remove(tx, &image)?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

fn remove(tx: &mut Tx, image: &Image) -> ApiResult<()> {
    for member in tx.by_index::<Member>("image", &image.id)? {
        tx.delete::<Member>(&Member::key(&member.image_id, &member.member_id))?;
    }
    upload::doom(tx, &image.id, None)?;
    tx.delete::<Image>(&image.id)?;
    Ok(())
}

/// `POST /v2/images/{id}/actions/deactivate`: nobody but administrators may read its content any more.
pub async fn deactivate(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    switch(&State(svc), &caller, &id, Status::Deactivated).await
}

/// `POST /v2/images/{id}/actions/reactivate`
pub async fn reactivate(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<StatusCode> {
    switch(&State(svc), &caller, &id, Status::Active).await
}

async fn switch(svc: &Svc, caller: &Caller, id: &str, to: Status) -> ApiResult<StatusCode> {
    svc.store
        .transact(|tx| {
            let mut image = access::writable(tx, caller, id)?;
            if !image.status.has_data() {
                return Err(ApiError::forbidden(format!(
                    "Not allowed to change the status of image {id} from {} to {}.",
                    image.status.name(),
                    to.name()
                )));
            }
            if image.status != to {
                image.status = to;
                image.updated_at = Timestamp::now();
                tx.put(&image)?;
            }
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}
