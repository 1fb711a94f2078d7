//! `/volumes/{id}/metadata` and `/snapshots/{id}/metadata`: the user's own notes, whole or by key.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use cairn_state::{Record, Tx};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Svc;
use super::{input, snapshots};
use crate::model::{Metadata, Snapshot, Volume};
use crate::servers::visible;

/// A record with metadata.
trait Noted: Record {
    fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Self>;
    fn notes(&mut self) -> &mut Metadata;
    fn touch(&mut self);
}

impl Noted for Volume {
    fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Self> {
        visible(tx, caller, id)
    }

    fn notes(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn touch(&mut self) {
        self.updated_at = Some(Timestamp::now());
    }
}

impl Noted for Snapshot {
    fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Self> {
        snapshots::find(tx, caller, id)
    }

    fn notes(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn touch(&mut self) {
        self.updated_at = Some(Timestamp::now());
    }
}

fn read<R: Noted>(svc: &Svc, caller: &Caller, id: &str) -> ApiResult<Metadata> {
    svc.store.read(|tx| Ok(R::find(tx, caller, id)?.notes().clone()))
}

async fn change<R: Noted>(
    svc: &Svc,
    caller: &Caller,
    id: &str,
    edit: impl Fn(&mut Metadata) -> ApiResult<()>,
) -> ApiResult<Metadata> {
    svc.store
        .transact(|tx| {
            let mut record = R::find(tx, caller, id)?;
            caller.require_writer()?;
            edit(record.notes())?;
            record.touch();
            tx.put(&record)?;
            Ok(record.notes().clone())
        })
        .await
}

async fn show<R: Noted>(svc: Svc, caller: Caller, id: String) -> ApiResult<Json<Value>> {
    Ok(Json(json!({"metadata": read::<R>(&svc, &caller, &id)?})))
}

async fn store<R: Noted>(
    svc: Svc,
    caller: Caller,
    id: String,
    body: Value,
    merge: bool,
) -> ApiResult<Json<Value>> {
    let fields = body.as_object().cloned().unwrap_or_default();
    let new =
        input::metadata(&fields, "metadata")?.ok_or_else(|| input::invalid("metadata", "it is required"))?;
    let now = change::<R>(&svc, &caller, &id, |notes| {
        if !merge {
            notes.clear();
        }
        notes.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!({"metadata": now})))
}

async fn show_item<R: Noted>(svc: Svc, caller: Caller, id: String, key: String) -> ApiResult<Json<Value>> {
    let notes = read::<R>(&svc, &caller, &id)?;
    let value = notes.get(&key).ok_or_else(|| no_item(&key))?;
    Ok(Json(json!({"meta": {key: value}})))
}

async fn put_item<R: Noted>(
    svc: Svc,
    caller: Caller,
    id: String,
    key: String,
    body: Value,
) -> ApiResult<Json<Value>> {
    let fields = body.as_object().cloned().unwrap_or_default();
    let new = input::metadata(&fields, "meta")?.ok_or_else(|| input::invalid("meta", "it is required"))?;
    if new.len() != 1 || !new.contains_key(&key) {
        return Err(ApiError::bad_request("The request body must hold just the key that the path names."));
    }
    change::<R>(&svc, &caller, &id, |notes| {
        notes.extend(new.clone());
        Ok(())
    })
    .await?;
    Ok(Json(json!({"meta": new})))
}

async fn delete_item<R: Noted>(svc: Svc, caller: Caller, id: String, key: String) -> ApiResult<StatusCode> {
    change::<R>(&svc, &caller, &id, |notes| notes.remove(&key).map(drop).ok_or_else(|| no_item(&key)))
        .await?;
    Ok(StatusCode::OK)
}

fn no_item(key: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Metadata item {key} was not found."))
}

macro_rules! handlers {
    ($record:ty, $show:ident, $merge:ident, $replace:ident, $item:ident, $put:ident, $delete:ident) => {
        /// `GET .../metadata`
        pub async fn $show(svc: Svc, caller: Caller, Path(id): Path<String>) -> ApiResult<Json<Value>> {
            show::<$record>(svc, caller, id).await
        }

        /// `POST .../metadata`: adds to it.
        pub async fn $merge(
            svc: Svc,
            caller: Caller,
            Path(id): Path<String>,
            Body(body): Body<Value>,
        ) -> ApiResult<Json<Value>> {
            store::<$record>(svc, caller, id, body, true).await
        }

        /// `PUT .../metadata`: this is all of it.
        pub async fn $replace(
            svc: Svc,
            caller: Caller,
            Path(id): Path<String>,
            Body(body): Body<Value>,
        ) -> ApiResult<Json<Value>> {
            store::<$record>(svc, caller, id, body, false).await
        }

        /// `GET .../metadata/{key}`
        pub async fn $item(
            svc: Svc,
            caller: Caller,
            Path((id, key)): Path<(String, String)>,
        ) -> ApiResult<Json<Value>> {
            show_item::<$record>(svc, caller, id, key).await
        }

        /// `PUT .../metadata/{key}`
        pub async fn $put(
            svc: Svc,
            caller: Caller,
            Path((id, key)): Path<(String, String)>,
            Body(body): Body<Value>,
        ) -> ApiResult<Json<Value>> {
            put_item::<$record>(svc, caller, id, key, body).await
        }

        /// `DELETE .../metadata/{key}`
        pub async fn $delete(
            State(svc): Svc,
            caller: Caller,
            Path((id, key)): Path<(String, String)>,
        ) -> ApiResult<StatusCode> {
            delete_item::<$record>(State(svc), caller, id, key).await
        }
    };
}

handlers!(
    Volume,
    show_volume,
    merge_volume,
    replace_volume,
    show_volume_item,
    put_volume_item,
    delete_volume_item
);
handlers!(
    Snapshot,
    show_snapshot,
    merge_snapshot,
    replace_snapshot,
    show_snapshot_item,
    put_snapshot_item,
    delete_snapshot_item
);
