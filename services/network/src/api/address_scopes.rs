//! Address scopes as the API shows them.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use serde_json::json;

use super::attrs::{self, Attrs};
use super::resource::{self, Ctx, Resource, View, with};
use crate::model::{AddressScope, SubnetPool};

impl Resource for AddressScope {
    const NAME: &'static str = "address_scope";
    const PLURAL: &'static str = "address_scopes";
    const PATH: &'static str = "address-scopes";
    const TITLE: &'static str = "Address scope";
    const MISSING: &'static str = "AddressScopeNotFound";
    const PUBLIC: &'static [&'static str] = &["shared"];
    const READ_ONLY: &'static [&'static str] = &["ip_version"];

    resource::fields!();

    fn visible(&self, _: &mut Tx, caller: &Caller) -> ApiResult<bool> {
        Ok(self.shared || caller.sees(&self.project_id))
    }

    fn view(&self, _: &mut Tx, _: &Caller) -> ApiResult<View> {
        Ok(with(
            View::new(),
            json!({
                "id": self.id, "name": self.name, "project_id": self.project_id, "tenant_id": self.project_id,
                "ip_version": self.ip_version, "shared": self.shared,
            }),
        ))
    }

    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<AddressScope> {
        let common = resource::common(ctx, attrs)?;
        let ip_version = match attrs.number("ip_version", 4, 6)?.flatten() {
            None | Some(4) => 4,
            Some(6) => 6,
            Some(other) => return Err(attrs::invalid("ip_version", &format!("'{other}' is not 4 or 6"))),
        };
        let scope = AddressScope {
            id: common.id,
            project_id: common.project_id,
            name: common.name,
            ip_version,
            shared: resource::admin_flag(ctx, attrs, "shared")?.unwrap_or(false),
            stamp: common.stamp,
        };
        tx.put(&scope)?;
        Ok(scope)
    }

    fn update(mut self, tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<AddressScope> {
        self.name = attrs.text("name")?.unwrap_or(self.name);
        let shared = resource::admin_flag(ctx, attrs, "shared")?.unwrap_or(self.shared);
        if self.shared && !shared {
            return Err(ApiError::bad_request("Unable to update address scope: it cannot be unshared.")
                .with_code("AddressScopeUpdateError"));
        }
        self.shared = shared;
        tx.put(&self)?;
        Ok(self)
    }

    fn remove(self, tx: &mut Tx, _: Ctx<'_>) -> ApiResult<()> {
        if !tx.by_index::<SubnetPool>("scope", &self.id)?.is_empty() {
            let message = format!(
                "Unable to complete operation on address scope {}. There are subnet pools in it.",
                self.id
            );
            return Err(ApiError::conflict(message).with_code("AddressScopeInUse"));
        }
        Ok(tx.delete::<AddressScope>(&self.id).map(drop)?)
    }
}
