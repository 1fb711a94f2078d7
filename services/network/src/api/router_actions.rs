//! What is done to routers beside the usual: interfaces added and removed, routes added and removed one by one.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::put;
use axum::{Json, Router as Routes};
use cairn_gateway::{ApiError, ApiResult, Body, Caller};
use cairn_state::Tx;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::resource::{self, Ctx, Resource};
use super::routers::routes_of;
use crate::logic::{interfaces, routers};
use crate::model::{Port, Router, Subnet, owner};
use crate::service::Service;

/// The routes of the actions.
pub fn routes() -> Routes<Arc<Service>> {
    Routes::new()
        .route("/v2.0/routers/{id}/add_router_interface", put(add_interface))
        .route("/v2.0/routers/{id}/remove_router_interface", put(remove_interface))
        .route("/v2.0/routers/{id}/add_extraroutes", put(add_routes))
        .route("/v2.0/routers/{id}/remove_extraroutes", put(remove_routes))
}

/// What names an interface.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interface {
    subnet_id: Option<String>,
    port_id: Option<String>,
}

/// The router's revision goes with its interfaces.
fn touch(tx: &mut Tx, router: &mut Router, now: Timestamp) -> ApiResult<()> {
    router.stamp.touch(now);
    Ok(tx.put(router)?)
}

async fn add_interface(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Interface>,
) -> ApiResult<Json<Value>> {
    let ctx = Ctx { caller: &caller, now: Timestamp::now() };
    let answer = svc
        .store
        .transact(|tx| {
            let mut router = resource::find_own::<Router>(tx, &caller, &id)?;
            let port = match (&body.subnet_id, &body.port_id) {
                (Some(subnet), None) => {
                    let subnet = usable_subnet(tx, &caller, subnet)?;
                    interfaces::add_subnet(tx, &router, &subnet, ctx.now)?
                }
                (None, Some(port)) => {
                    let port = resource::find_own::<Port>(tx, &caller, port)?;
                    interfaces::add_port(tx, &router, port, ctx.now)?
                }
                (Some(_), Some(_)) => return Err(bad("Cannot specify both subnet-id and port-id.")),
                (None, None) => return Err(bad("Either subnet_id or port_id must be specified.")),
            };
            touch(tx, &mut router, ctx.now)?;
            Ok(interface_view(&router, &port))
        })
        .await?;
    Ok(Json(answer))
}

/// Only who owns a network may have routers take its gateway's address.
fn usable_subnet(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Subnet> {
    let subnet = resource::find::<Subnet>(tx, caller, id)?;
    if caller.sees(subnet.project()) {
        return Ok(subnet);
    }
    Err(ApiError::forbidden(format!("Subnet {id} belongs to another project.")))
}

fn bad(why: &str) -> ApiError {
    ApiError::bad_request(format!("Bad router request: {why}")).with_code("BadRequest")
}

async fn remove_interface(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Interface>,
) -> ApiResult<Json<Value>> {
    let now = Timestamp::now();
    let answer = svc
        .store
        .transact(|tx| {
            let mut router = resource::find_own::<Router>(tx, &caller, &id)?;
            let port = named_interface(tx, &router, &body)?;
            let view = interface_view(&router, &port);
            interfaces::remove(tx, &router, port, now)?;
            touch(tx, &mut router, now)?;
            ApiResult::Ok(view)
        })
        .await?;
    Ok(Json(answer))
}

fn named_interface(tx: &mut Tx, router: &Router, wanted: &Interface) -> ApiResult<Port> {
    let on = |p: &Port, subnet: &String| p.fixed_ips.iter().any(|f| f.subnet_id == *subnet);
    let mine = interfaces::of(tx, &router.id)?;
    match (&wanted.port_id, &wanted.subnet_id) {
        (None, None) => Err(bad("Either subnet_id or port_id must be specified.")),
        (Some(port_id), subnet) => {
            let found = mine.into_iter().find(|p| p.id == *port_id).ok_or_else(|| {
                let what = format!("Router {} does not have an interface with id {port_id}", router.id);
                ApiError::new(http::StatusCode::NOT_FOUND, what).with_code("RouterInterfaceNotFound")
            })?;
            if subnet.as_ref().is_some_and(|s| !on(&found, s)) {
                let message = format!("Subnet on port {port_id} does not match the requested subnet.");
                return Err(ApiError::conflict(message).with_code("SubnetMismatchForPort"));
            }
            Ok(found)
        }
        (None, Some(subnet)) => mine.into_iter().find(|p| on(p, subnet)).ok_or_else(|| {
            let what = format!("Router {} has no interface on subnet {subnet}", router.id);
            ApiError::new(http::StatusCode::NOT_FOUND, what).with_code("RouterInterfaceNotFoundForSubnet")
        }),
    }
}

fn interface_view(router: &Router, port: &Port) -> Value {
    debug_assert_eq!(port.device_owner, owner::ROUTER_INTERFACE);
    let subnets: Vec<&str> = port.fixed_ips.iter().map(|f| f.subnet_id.as_str()).collect();
    json!({
        "id": router.id, "project_id": router.project_id, "tenant_id": router.project_id, "port_id": port.id,
        "network_id": port.network_id, "subnet_id": subnets.first(), "subnet_ids": subnets, "tags": port.tags,
    })
}

async fn change_routes(
    svc: &Service,
    caller: &Caller,
    id: &str,
    change: impl Fn(Vec<Value>) -> ApiResult<Vec<Value>>,
) -> ApiResult<Json<Value>> {
    let now = Timestamp::now();
    let view = svc
        .store
        .transact(|tx| {
            let mut router = resource::find_own::<Router>(tx, caller, id)?;
            let had = router.routes.iter().map(|r| json!(r)).collect();
            router.routes = routers::check_routes(tx, &router, &change(had)?)?;
            touch(tx, &mut router, now)?;
            router.view(tx, caller)
        })
        .await?;
    Ok(Json(json!({"router": view})))
}

async fn add_routes(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let new = routes_of(body)?;
    change_routes(&svc, &caller, &id, |mut routes| {
        for route in &new {
            if !routes.contains(route) {
                routes.push(route.clone());
            }
        }
        Ok(routes)
    })
    .await
}

async fn remove_routes(
    State(svc): State<Arc<Service>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    let old = routes_of(body)?;
    change_routes(&svc, &caller, &id, |mut routes| {
        routes.retain(|r| !old.contains(r));
        Ok(routes)
    })
    .await
}
