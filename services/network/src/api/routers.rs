//! Routers as the API shows them.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use serde_json::{Map, Value, json};

use super::attrs::{self, Attrs};
use super::resource::{self, Ctx, Resource, View, with};
use crate::logic::gateways::{self, WantedGateway};
use crate::logic::{fixed_ips, quotas, residence, routers};
use crate::model::{Network, Phase, Port, Router, RouterStatus, status};

impl Resource for Router {
    const NAME: &'static str = "router";
    const PLURAL: &'static str = "routers";
    const PATH: &'static str = "routers";
    const TITLE: &'static str = "Router";
    const MISSING: &'static str = "RouterNotFound";
    const READ_ONLY: &'static [&'static str] = &["status", "tags"];

    resource::fields!(tags, deleted);

    fn view(&self, tx: &mut Tx, _: &Caller) -> ApiResult<View> {
        let base = resource::view_of(&self.id, &self.project_id, &self.description, &self.stamp);
        Ok(with(
            base,
            json!({
                "name": self.name, "admin_state_up": self.admin_state_up, "status": status_of(tx, self)?,
                "external_gateway_info": gateway_view(tx, self)?, "routes": self.routes, "tags": self.tags,
            }),
        ))
    }

    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Router> {
        let common = resource::common(ctx, attrs)?;
        let mut router = Router {
            host: residence::settle(tx, &common.id, ctx.now)?,
            id: common.id,
            project_id: common.project_id,
            name: common.name,
            description: common.description,
            admin_state_up: attrs.flag("admin_state_up")?.unwrap_or(true),
            gateway: None,
            routes: Vec::new(),
            deleted: false,
            tags: common.tags,
            stamp: common.stamp,
        };
        if let Some(wanted) = take_gateway(tx, ctx, attrs)? {
            gateways::set(tx, &mut router, wanted.as_ref(), ctx.now)?;
        }
        quotas::take(tx, &router.project_id, "router")?;
        tx.put(&router)?;
        Ok(router)
    }

    fn update(mut self, tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Router> {
        resource::rename(attrs, &mut self.name, &mut self.description)?;
        self.admin_state_up = attrs.flag("admin_state_up")?.unwrap_or(self.admin_state_up);
        if let Some(wanted) = take_gateway(tx, ctx, attrs)? {
            gateways::set(tx, &mut self, wanted.as_ref(), ctx.now)?;
        }
        if let Some(items) = attrs.list("routes")? {
            self.routes = routers::check_routes(tx, &self, &items)?;
        }
        tx.put(&self)?;
        Ok(self)
    }

    fn remove(self, tx: &mut Tx, ctx: Ctx<'_>) -> ApiResult<()> {
        routers::delete(tx, self, ctx.now)
    }
}

/// Takes `external_gateway_info`; `Some(None)` (null or `{}`) asks for none. Translation and addresses are up to
/// administrators, as in Neutron's own policy.
fn take_gateway(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Option<Option<WantedGateway>>> {
    let key = "external_gateway_info";
    let value = match attrs.take(key) {
        None => return Ok(None),
        Some(Value::Null) => return Ok(Some(None)),
        Some(value) => value,
    };
    let info =
        attrs::object(&value, key, &["network_id", "enable_snat", "external_fixed_ips", "qos_policy_id"])?;
    if info.is_empty() {
        return Ok(Some(None));
    }
    if info.get("qos_policy_id").is_some_and(|q| !q.is_null()) {
        return Err(attrs::invalid(key, "there are no QoS policies"));
    }
    let id = info.get("network_id").and_then(Value::as_str);
    let id = id.ok_or_else(|| attrs::invalid(key, "it lacks network_id"))?;
    let network = resource::find::<Network>(tx, ctx.caller, id)?;
    Ok(Some(Some(WantedGateway {
        network,
        enable_snat: take_snat(ctx, info)?,
        fixed_ips: take_outer(ctx, info)?,
    })))
}

fn take_snat(ctx: Ctx<'_>, info: &Map<String, Value>) -> ApiResult<Option<bool>> {
    let Some(value) = info.get("enable_snat").filter(|v| !v.is_null()) else { return Ok(None) };
    ctx.caller.require_admin()?;
    let flag = attrs::as_flag(value);
    flag.map(Some)
        .ok_or_else(|| attrs::invalid("enable_snat", &format!("'{value}' cannot be converted to boolean")))
}

fn take_outer(ctx: Ctx<'_>, info: &Map<String, Value>) -> ApiResult<Option<Vec<fixed_ips::Wanted>>> {
    match info.get("external_fixed_ips") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => {
            ctx.caller.require_admin()?;
            fixed_ips::parse(items).map(Some)
        }
        Some(other) => Err(attrs::invalid("external_fixed_ips", &format!("'{other}' is not a list"))),
    }
}

fn gateway_view(tx: &mut Tx, router: &Router) -> ApiResult<Value> {
    let Some(gateway) = &router.gateway else { return Ok(Value::Null) };
    let port = tx.get::<Port>(&gateway.port_id)?;
    let outer: Vec<Value> = port
        .iter()
        .flat_map(|p| &p.fixed_ips)
        .map(|f| json!({"subnet_id": f.subnet_id, "ip_address": f.ip}))
        .collect();
    Ok(json!({
        "network_id": gateway.network_id, "enable_snat": gateway.enable_snat, "external_fixed_ips": outer,
    }))
}

/// What a router's node says of it. Without a node it can't work; one that is down by wish is as it should be.
pub fn status_of(tx: &mut Tx, router: &Router) -> ApiResult<&'static str> {
    let Some(host) = &router.host else { return Ok("DOWN") };
    let seen = tx.get::<RouterStatus>(&status::on_host(&router.id, host))?;
    Ok(match seen.map(|s| s.phase) {
        Some(Phase::Ready) => "ACTIVE",
        Some(Phase::Failed) => "ERROR",
        Some(Phase::Gone) => "DOWN",
        Some(Phase::Pending) | None => "BUILD",
    })
}

/// Reads `{"router": {"routes": [...]}}` of the atomic route actions.
pub fn routes_of(mut body: Value) -> ApiResult<Vec<Value>> {
    match body.pointer_mut("/router/routes").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Err(ApiError::bad_request("Unable to find 'router' with 'routes' in request body")),
    }
}
