//! The handlers that resources share: list, show, create, update, delete. A resource's own file says what is
//! particular to it: who may see and change it, what is read from a body, what follows from a change.
//!
//! A change is one transaction, so a request that is refused on the way leaves nothing behind. Nothing here may know a
//! resource by name.

use std::sync::Arc;

use axum::Json;
use axum::routing::{MethodRouter, get};
use cairn_gateway::{ApiResult, Body};
use cairn_state::Tx;
use http::StatusCode;
use serde_json::Value;

use super::ask::Ask;
use super::attrs::Attrs;
use super::wire::{self, Resource};
use crate::service::Service;

/// What is answered with 200 and a body.
pub type Shown = ApiResult<Json<Value>>;
/// What is answered with 201 and a body.
pub type Made = ApiResult<(StatusCode, Json<Value>)>;

/// A resource that clients list and look at.
pub trait Managed: Resource {
    /// Those that this request asks for. Refuses who may not list.
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Self>>;

    /// The one that the path names; 404 if it is not there. Refuses who may not see it.
    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Self>;

    /// Refuses who may not change any, before the store is asked.
    fn require_writer(ask: &Ask) -> ApiResult<()> {
        ask.caller.require_admin()
    }
}

/// A resource that a body alone makes.
pub trait Create: Managed {
    /// Reads the attributes of a new one, checks and puts it.
    fn create(tx: &mut Tx, ask: &Ask, attrs: Attrs) -> ApiResult<Self>;
}

/// A resource that a body alone changes.
pub trait Update: Managed {
    /// Takes over the attributes that are given, checks and puts it.
    fn update(self, tx: &mut Tx, ask: &Ask, attrs: Attrs) -> ApiResult<Self>;
}

/// A resource that can be removed.
pub trait Delete: Managed {
    /// Removes it, with all that would be left without meaning.
    fn delete(self, tx: &mut Tx, ask: &Ask) -> ApiResult<()>;
}

/// The methods of a collection.
pub fn many<R: Create>() -> MethodRouter<Arc<Service>> {
    get(list::<R>).post(create::<R>)
}

/// The methods of one in a collection.
pub fn each<R: Update + Delete>() -> MethodRouter<Arc<Service>> {
    get(show::<R>).patch(update::<R>).delete(delete::<R>)
}

/// `GET` of a collection.
pub async fn list<R: Managed>(ask: Ask) -> Shown {
    let found = ask.read(|tx| R::all(tx, &ask))?;
    wire::list(&found, &ask.query, &ask.here)
}

/// `GET` of one.
pub async fn show<R: Managed>(ask: Ask) -> Shown {
    Ok(ask.read(|tx| R::one(tx, &ask))?.body(&ask.here))
}

/// `POST` to a collection.
pub async fn create<R: Create>(ask: Ask, Body(body): Body<Value>) -> Made {
    R::require_writer(&ask)?;
    let attrs = Attrs::of(body, R::ONE)?;
    made(&ask, |tx| R::create(tx, &ask, attrs.clone())).await
}

/// `PATCH` of one. That it is there is checked before the body.
pub async fn update<R: Update>(ask: Ask, Body(body): Body<Value>) -> Shown {
    R::require_writer(&ask)?;
    let update = |tx: &mut Tx| R::one(tx, &ask)?.update(tx, &ask, Attrs::of(body.clone(), R::ONE)?);
    changed(&ask, update).await
}

/// `DELETE` of one.
pub async fn delete<R: Delete>(ask: Ask) -> ApiResult<StatusCode> {
    R::require_writer(&ask)?;
    ask.done(|tx| R::one(tx, &ask)?.delete(tx, &ask)).await
}

/// Makes a resource and shows it.
pub async fn made<R: Resource>(ask: &Ask, make: impl FnMut(&mut Tx) -> ApiResult<R>) -> Made {
    Ok((StatusCode::CREATED, changed(ask, make).await?))
}

/// Changes a resource and shows it.
pub async fn changed<R: Resource>(ask: &Ask, change: impl FnMut(&mut Tx) -> ApiResult<R>) -> Shown {
    Ok(ask.change(change).await?.body(&ask.here))
}
