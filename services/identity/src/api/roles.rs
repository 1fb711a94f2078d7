//! `/roles`.

use std::sync::Arc;

use axum::Router;
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::ask::Ask;
use super::attrs::{Attrs, NAME_MAX, require_name};
use super::resource::{self, Create, Delete, Managed, Update};
use super::wire::{Resource, fits, over};
use crate::cascade;
use crate::marks::MarkId;
use crate::model::{Role, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/roles", resource::many::<Role>()).route("/roles/{id}", resource::each::<Role>())
}

impl Resource for Role {
    const ONE: &'static str = "role";
    const MANY: &'static str = "roles";

    fn path(&self) -> String {
        format!("roles/{}", self.id)
    }

    fn view(&self) -> Value {
        over(
            &self.extra,
            json!({
                "id": self.id, "name": self.name, "domain_id": self.domain_id, "description": self.description,
                "options": self.options,
            }),
        )
    }
}

fn apply(role: &mut Role, mut attrs: Attrs) -> ApiResult<()> {
    attrs.set_name(&mut role.name, NAME_MAX)?;
    attrs.set_optional("description", &mut role.description)?;
    attrs.set_options(&mut role.options)?;
    attrs.set_extra(&mut role.extra)
}

impl Managed for Role {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Role>> {
        policy::listing_domain(&ask.caller)?;
        let domain = ask.query.get("domain_id");
        let mut all = tx.list_unfenced::<Role>()?;
        all.retain(|r| fits(&ask.query, "name", &r.name) && r.domain_id.as_deref() == domain);
        Ok(all)
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Role> {
        policy::listing_domain(&ask.caller)?;
        Role::find(tx, &ask.id)
    }
}

impl Create for Role {
    fn create(tx: &mut Tx, _: &Ask, mut attrs: Attrs) -> ApiResult<Role> {
        let mut role = Role { id: new_id(), domain_id: attrs.text("domain_id")?, ..Role::default() };
        apply(&mut role, attrs)?;
        require_name(&role.name)?;
        if let Some(domain) = &role.domain_id {
            super::domains::find(tx, domain)?;
        }
        tx.put(&role)?;
        Ok(role)
    }
}

impl Update for Role {
    fn update(mut self, tx: &mut Tx, _: &Ask, mut attrs: Attrs) -> ApiResult<Role> {
        if attrs.optional("domain_id")?.is_some_and(|d| d != self.domain_id) {
            return Err(ApiError::bad_request("A role's domain cannot be changed."));
        }
        apply(&mut self, attrs)?;
        tx.put(&self)?;
        MarkId::all().touch(tx)?;
        Ok(self)
    }
}

impl Delete for Role {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        cascade::delete_role(tx, &self)
    }
}
