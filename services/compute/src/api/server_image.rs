//! createImage: a server's root disk, as it is at this moment, becomes an image.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use cairn_gateway::{ApiError, ApiResult};
use cairn_image::capture::{self, Capture};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::ask::{Ask, own_server, shown};
use super::form::{self, invalid};
use crate::create::check_metadata_count;
use crate::{Service, actions, state};

/// Properties of the server's image that do not belong to an image made from the server.
const NOT_INHERITED: [&str; 3] = ["cache_in_nova", "bittorrent", "img_signature"];

/// The action `createImage`.
pub async fn create(svc: &Service, ask: &Ask, id: &str, argument: &Value) -> ApiResult<Response> {
    let name = argument.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| invalid("name", argument, "is not of type 'string'"))?;
    let name = form::name("name", name)?;
    let metadata = match argument.get("metadata") {
        None => BTreeMap::new(),
        Some(value) => form::metadata(value)?,
    };
    let actor = ask.actor();
    let image_id = svc
        .store
        .transact(|tx| {
            let mut found = own_server(tx, &ask.caller, id)?;
            state::require_unlocked(&found, ask.caller.is_admin())?;
            state::require(&found, shown(tx, &found)?, "create_image", &["active", "stopped", "paused"])?;
            check_metadata_count(tx, &found.project_id, metadata.len())?;
            let Some(root) = found.root() else {
                return Err(ApiError::bad_request(format!("Instance {id} has no root disk.")));
            };
            let mut properties = found.image.properties.clone();
            properties.retain(|k, _| !NOT_INHERITED.contains(&k.as_str()));
            properties.extend(described(&found.id, &found.image.id, &ask.caller.user_id));
            properties.extend(metadata.clone());
            let wanted = Capture {
                name: name.clone(),
                volume: root.volume_id.clone(),
                properties,
                min_disk: found.flavor.disk_gb,
                protected: false,
                visibility: None,
            };
            let image = capture::begin(tx, &ask.caller, wanted)?;
            actions::begin(tx, &mut found, &actor, "createImage")?;
            tx.put(&found)?;
            Ok(image.id)
        })
        .await?;
    let location = format!("{}/image/v2/images/{image_id}", ask.base.0);
    let headers = [(header::LOCATION, location)];
    Ok(match ask.mv.since(45) {
        true => (StatusCode::ACCEPTED, Json(json!({"image_id": image_id}))).into_response(),
        false => (StatusCode::ACCEPTED, headers).into_response(),
    })
}

fn described(server: &str, base: &str, user: &str) -> [(String, String); 4] {
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    [
        pair("image_type", "snapshot"),
        pair("instance_uuid", server),
        pair("base_image_ref", base),
        pair("user_id", user),
    ]
}
