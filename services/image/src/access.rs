//! Who may see, change and use an image.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::{Abort, Tx};

use crate::model::{Image, Member, Status, Visibility};

/// Whether the caller may see this image. Reads the memberships only where they matter.
pub fn sees(tx: &mut Tx, caller: &Caller, image: &Image) -> Result<bool, Abort> {
    if caller.sees(&image.owner) {
        return Ok(true);
    }
    Ok(match image.visibility {
        Visibility::Public | Visibility::Community => true,
        Visibility::Private => false,
        Visibility::Shared => tx.get::<Member>(&Member::key(&image.id, &caller.project_id))?.is_some(),
    })
}

/// The error for an image that is not there, or not for this caller to see.
pub fn not_found(id: &str) -> ApiError {
    ApiError::new(http::StatusCode::NOT_FOUND, format!("No image found with ID {id}"))
}

/// The image with this id, if the caller may see it; 404 otherwise.
pub fn visible(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Image> {
    match tx.get::<Image>(id)? {
        Some(image) if sees(tx, caller, &image)? => Ok(image),
        _ => Err(not_found(id)),
    }
}

/// The image with this id, if the caller may change it; 404 if it may not see it, 403 if it may only see it.
pub fn writable(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Image> {
    let image = visible(tx, caller, id)?;
    caller.require_writer()?;
    if caller.sees(&image.owner) {
        return Ok(image);
    }
    Err(ApiError::forbidden("You are not authorized to change this image."))
}

/// The image with this id, if the caller may make a disk from it: 404 if it may not see it, 400 if it has no
/// usable content.
pub fn usable(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Image> {
    let image = match tx.get::<Image>(id)? {
        Some(image) if sees(tx, caller, &image)? => image,
        _ => return Err(ApiError::not_found("Image", id)),
    };
    if image.status == Status::Active {
        return Ok(image);
    }
    Err(ApiError::bad_request(format!("Image {id} is not active: its status is {}.", image.status.name())))
}
