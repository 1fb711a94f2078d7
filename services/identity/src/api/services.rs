//! `/services`.

use std::sync::Arc;

use axum::Router;
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::ask::Ask;
use super::attrs::{Attrs, NAME_MAX};
use super::resource::{self, Create, Delete, Managed, Update};
use super::wire::{Resource, fits, over};
use crate::cascade;
use crate::model::{Service, new_id};
use crate::service;

pub fn routes() -> Router<Arc<service::Service>> {
    Router::new()
        .route("/services", resource::many::<Service>())
        .route("/services/{id}", resource::each::<Service>())
}

impl Resource for Service {
    const ONE: &'static str = "service";
    const MANY: &'static str = "services";

    fn path(&self) -> String {
        format!("services/{}", self.id)
    }

    fn view(&self) -> Value {
        let mut view = over(&self.extra, json!({"id": self.id, "type": self.kind, "enabled": self.enabled}));
        for (key, value) in [("name", &self.name), ("description", &self.description)] {
            if let Some(value) = value {
                view[key] = value.as_str().into();
            }
        }
        view
    }
}

impl Managed for Service {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Service>> {
        ask.caller.require_admin()?;
        let mut all = tx.list_unfenced::<Service>()?;
        let name = |s: &Service| s.name.clone().unwrap_or_default();
        all.retain(|s| fits(&ask.query, "type", &s.kind) && fits(&ask.query, "name", &name(s)));
        Ok(all)
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Service> {
        ask.caller.require_admin()?;
        Service::find(tx, &ask.id)
    }
}

impl Create for Service {
    fn create(tx: &mut Tx, ask: &Ask, attrs: Attrs) -> ApiResult<Service> {
        Service { id: new_id(), enabled: true, ..Service::default() }.update(tx, ask, attrs)
    }
}

impl Update for Service {
    fn update(mut self, tx: &mut Tx, _: &Ask, mut attrs: Attrs) -> ApiResult<Service> {
        if let Some(kind) = attrs.text("type")? {
            self.kind = kind;
        }
        if self.kind.is_empty() || self.kind.len() > NAME_MAX {
            return Err(ApiError::bad_request(format!("'type' must have 1 to {NAME_MAX} characters.")));
        }
        attrs.set_optional("name", &mut self.name)?;
        attrs.set_optional("description", &mut self.description)?;
        attrs.set_flag("enabled", &mut self.enabled)?;
        attrs.set_extra(&mut self.extra)?;
        tx.put(&self)?;
        Ok(self)
    }
}

impl Delete for Service {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        cascade::delete_service(tx, &self)
    }
}
