//! `/policies`: documents that remote services keep here. Identity itself does not read them.

use std::sync::Arc;

use axum::Router;
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::ask::Ask;
use super::attrs::{Attrs, NAME_MAX};
use super::resource::{self, Create, Delete, Managed, Update};
use super::wire::{Resource, fits, over};
use crate::model::{Policy, new_id};
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/policies", resource::many::<Policy>())
        .route("/policies/{id}", resource::each::<Policy>())
}

impl Resource for Policy {
    const ONE: &'static str = "policy";
    const MANY: &'static str = "policies";

    fn path(&self) -> String {
        format!("policies/{}", self.id)
    }

    fn view(&self) -> Value {
        over(&self.extra, json!({"id": self.id, "type": self.kind, "blob": self.blob}))
    }
}

impl Managed for Policy {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Policy>> {
        ask.caller.require_admin()?;
        let mut all = tx.list_unfenced::<Policy>()?;
        all.retain(|p| fits(&ask.query, "type", &p.kind));
        Ok(all)
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Policy> {
        ask.caller.require_admin()?;
        Policy::find(tx, &ask.id)
    }
}

impl Create for Policy {
    fn create(tx: &mut Tx, ask: &Ask, attrs: Attrs) -> ApiResult<Policy> {
        Policy { id: new_id(), ..Policy::default() }.update(tx, ask, attrs)
    }
}

impl Update for Policy {
    fn update(mut self, tx: &mut Tx, _: &Ask, mut attrs: Attrs) -> ApiResult<Policy> {
        attrs.set_text("type", &mut self.kind)?;
        attrs.set_text("blob", &mut self.blob)?;
        if self.kind.is_empty() || self.kind.len() > NAME_MAX || self.blob.is_empty() {
            return Err(ApiError::bad_request("A policy needs a 'type' and a 'blob'."));
        }
        attrs.set_extra(&mut self.extra)?;
        tx.put(&self)?;
        Ok(self)
    }
}

impl Delete for Policy {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        Ok(tx.delete::<Policy>(&self.id).map(drop)?)
    }
}
