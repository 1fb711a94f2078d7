//! `/types/{id}/encryption`: how volumes of a type shall be encrypted, for administrators. `/volumes/{id}/encryption`: how one
//! is, for who sees it. What is shown of a key is what it is called.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Svc;
use super::input::{self, Fields};
use super::view::time;
use crate::model::{BY_TYPE, Encryption, Volume, VolumeType};
use crate::servers::visible;
use crate::{keys, types};

/// Who may encrypt.
const LOCATIONS: [&str; 2] = ["front-end", "back-end"];

fn detail(t: &VolumeType, e: &Encryption) -> Value {
    json!({
        "volume_type_id": t.id,
        "encryption_id": e.id,
        "provider": e.provider,
        "cipher": e.cipher,
        "key_size": e.key_size,
        "control_location": e.control_location,
        "deleted": false,
        "created_at": time(e.created_at),
        "updated_at": e.updated_at.map(time),
        "deleted_at": null,
    })
}

/// `GET /types/{id}/encryption`: an empty object if there is none.
pub async fn show(State(svc): Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let found = svc.store.read(|tx| types::by_id(tx, &caller, &id))?;
    Ok(Json(found.encryption.as_ref().map_or(json!({}), |e| detail(&found, e))))
}

/// `GET /types/{id}/encryption/{key}`
pub async fn item(
    State(svc): Svc,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    let found = svc.store.read(|tx| types::by_id(tx, &caller, &id))?;
    let shown = found.encryption.as_ref().map(|e| detail(&found, e));
    let value = shown.as_ref().and_then(|s| s.get(&key)).filter(|v| !v.is_null());
    let value = value.ok_or_else(|| ApiError::not_found("Volume type encryption", &key))?;
    Ok(Json(json!({key: value})))
}

/// What of an encryption a body names.
struct Given {
    provider: Option<String>,
    cipher: Option<String>,
    key_size: Option<u64>,
    control_location: Option<String>,
}

fn read(fields: &Fields) -> ApiResult<Given> {
    let key_size = match fields.get("key_size") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let bits = value.as_u64().or_else(|| value.as_str()?.parse().ok()).filter(|n| *n <= 1 << 16);
            Some(bits.ok_or_else(|| input::invalid("key_size", "it must be a whole number of bits"))?)
        }
    };
    let control_location = input::reference(fields, "control_location")?;
    if control_location.as_deref().is_some_and(|l| !LOCATIONS.contains(&l)) {
        return Err(input::invalid("control_location", "it must be front-end or back-end"));
    }
    let (provider, cipher) = (input::reference(fields, "provider")?, input::reference(fields, "cipher")?);
    Ok(Given { provider, cipher, key_size, control_location })
}

/// Changes the encryption of a type that no volume has yet.
async fn change(
    svc: &Svc,
    caller: &Caller,
    id: &str,
    edit: impl Fn(&mut Tx, &mut VolumeType) -> ApiResult<()>,
) -> ApiResult<VolumeType> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            let mut found = types::by_id(tx, caller, id)?;
            if !tx.by_index::<Volume>(BY_TYPE, &found.id)?.is_empty() {
                return Err(ApiError::bad_request(
                    "Cannot change the encryption of a type that volumes have.",
                ));
            }
            edit(tx, &mut found)?;
            tx.put(&found)?;
            Ok(found)
        })
        .await
}

/// `POST /types/{id}/encryption`
pub async fn create(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    svc.store.read(|tx| types::by_id(tx, &caller, &id))?;
    let given = read(&input::inner(body, "encryption")?)?;
    let new = Encryption {
        id: uuid::Uuid::new_v4().to_string(),
        provider: given.provider.ok_or_else(|| input::invalid("provider", "it is required"))?,
        cipher: given.cipher,
        key_size: given.key_size,
        control_location: given.control_location.unwrap_or_else(|| LOCATIONS[0].into()),
        created_at: Timestamp::now(),
        updated_at: None,
    };
    let changed = change(&State(svc), &caller, &id, |_, t| {
        if t.encryption.is_some() {
            let text = format!("Volume type encryption for type {id} already exists.");
            return Err(ApiError::bad_request(text));
        }
        t.encryption = Some(new.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!({"encryption": {
        "volume_type_id": changed.id,
        "encryption_id": new.id,
        "provider": new.provider,
        "cipher": new.cipher,
        "key_size": new.key_size,
        "control_location": new.control_location,
    }})))
}

fn of<'a>(t: &'a mut VolumeType, id: &str) -> ApiResult<&'a mut Encryption> {
    let found = t.encryption.as_mut().filter(|e| e.id == id);
    found.ok_or_else(|| ApiError::not_found("Volume type encryption", id))
}

/// `PUT /types/{id}/encryption/{encryption}`
pub async fn update(
    State(svc): Svc,
    caller: Caller,
    Path((id, encryption)): Path<(String, String)>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let fields = input::inner(body, "encryption")?;
    let given = read(&fields)?;
    change(&State(svc), &caller, &id, |_, t| {
        let now = of(t, &encryption)?;
        now.provider = given.provider.clone().unwrap_or_else(|| now.provider.clone());
        now.cipher = given.cipher.clone().or(now.cipher.take());
        now.key_size = given.key_size.or(now.key_size);
        now.control_location = given.control_location.clone().unwrap_or_else(|| now.control_location.clone());
        now.updated_at = Some(Timestamp::now());
        Ok(())
    })
    .await?;
    Ok(Json(json!({"encryption": fields})))
}

/// `DELETE /types/{id}/encryption/{encryption}`
pub async fn delete(
    State(svc): Svc,
    caller: Caller,
    Path((id, encryption)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    change(&State(svc), &caller, &id, |_, t| {
        of(t, &encryption)?;
        t.encryption = None;
        Ok(())
    })
    .await?;
    Ok(StatusCode::ACCEPTED)
}

fn of_volume(svc: &Svc, caller: &Caller, id: &str) -> ApiResult<Map<String, Value>> {
    svc.store.read(|tx| {
        let volume = visible(tx, caller, id)?;
        let mut shown = Map::from_iter([(
            "encryption_key_id".to_owned(),
            json!(volume.key.as_ref().map(|key| key.id.as_str())),
        )]);
        let of_type = types::stored(tx, &volume.type_id)?.and_then(|t| t.encryption);
        if let Some(e) = of_type.filter(|_| volume.key.is_some()) {
            let bits = e.key_size.unwrap_or(keys::KEY_BITS);
            shown.insert("provider".into(), json!(e.provider));
            shown.insert("control_location".into(), json!(e.control_location));
            shown.insert("cipher".into(), json!(e.cipher.as_deref().unwrap_or(keys::CIPHER)));
            shown.insert("key_size".into(), json!(bits));
        }
        Ok(shown)
    })
}

/// `GET /volumes/{id}/encryption`
pub async fn show_of_volume(
    State(svc): Svc,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    of_volume(&State(svc), &caller, &id).map(|shown| Json(Value::Object(shown)))
}

/// `GET /volumes/{id}/encryption/{key}`
pub async fn item_of_volume(
    State(svc): Svc,
    caller: Caller,
    Path((id, key)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let shown = of_volume(&State(svc), &caller, &id)?;
    let value = shown.get(&key).ok_or_else(|| ApiError::not_found("Volume encryption", &key))?;
    Ok(Json(json!({key: value})))
}
