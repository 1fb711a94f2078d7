//! Routers: their routes, and what must be gone before they go. Where they live is up to [`residence`].

use std::net::IpAddr;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::Value;

use super::{gateways, interfaces, quotas, residence};
use crate::api::attrs;
use crate::model::{Route, Router, Subnet};

/// The most extra routes of a router.
const ROUTES_MAX: usize = 30;

/// Reads a list of routes.
pub fn parse_routes(key: &str, items: &[Value], max: usize) -> ApiResult<Vec<Route>> {
    if items.len() > max {
        return Err(ApiError::bad_request(format!(
            "Unable to complete operation: the number of {key} exceeds {max}."
        )));
    }
    let mut routes = Vec::with_capacity(items.len());
    for item in items {
        let object = attrs::object(item, key, &["destination", "nexthop"])?;
        let destination = attrs::prefix_in(object, "destination", key)?;
        let nexthop: IpAddr = attrs::address_in(object, "nexthop", key)?;
        let route = Route { destination, nexthop };
        if destination.addr().is_ipv4() != nexthop.is_ipv4() {
            return Err(attrs::invalid(key, "destination and nexthop are of different IP versions"));
        }
        if routes.contains(&route) {
            return Err(attrs::invalid(key, "Duplicate items in the list"));
        }
        routes.push(route);
    }
    Ok(routes)
}

/// Reads a router's extra routes, and refuses those whose next hop it cannot reach or is itself.
pub fn check_routes(tx: &mut Tx, router: &Router, items: &[Value]) -> ApiResult<Vec<Route>> {
    let routes = parse_routes("routes", items, ROUTES_MAX)?;
    let ports = interfaces::ports_of(tx, &router.id)?;
    let refuse = |route: &Route, why: &str| {
        let message =
            format!("Invalid format for routes: {} via {}, {why}", route.destination, route.nexthop);
        Err(ApiError::bad_request(message).with_code("InvalidRoutes"))
    };
    let mut cidrs = Vec::new();
    for fixed in ports.iter().flat_map(|p| &p.fixed_ips) {
        cidrs.extend(tx.get::<Subnet>(&fixed.subnet_id)?.map(|s| s.cidr));
    }
    for route in &routes {
        if !cidrs.iter().any(|c| c.contains(&route.nexthop)) {
            return refuse(route, "the nexthop is not connected with router");
        }
        if ports.iter().any(|p| p.fixed_ips.iter().any(|f| f.ip == route.nexthop)) {
            return refuse(route, "the nexthop is used by router");
        }
    }
    Ok(routes)
}

/// Removes a router and its gateway; 409 while it has interfaces. A tombstone stays until its node has let go.
pub fn delete(tx: &mut Tx, mut router: Router, now: Timestamp) -> ApiResult<()> {
    if !interfaces::of(tx, &router.id)?.is_empty() {
        let message = format!("Router {} still has ports", router.id);
        return Err(ApiError::conflict(message).with_code("RouterInUse"));
    }
    gateways::clear(tx, &mut router, now)?;
    quotas::give(tx, &router.project_id, "router")?;
    residence::leave(tx, router, now)
}
