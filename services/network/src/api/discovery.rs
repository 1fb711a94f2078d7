//! What the API says of itself: versions, resources, extensions. Extensions are listed only if they work.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use cairn_gateway::{ApiError, ApiResult, BaseUrl, Caller, Version, versions};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::logic::hosts;
use crate::service::Service;

const V2: Version = Version {
    id: "v2.0",
    status: "CURRENT",
    updated: "2016-08-11T00:00:00Z",
    path: "/network/v2.0/",
    microversions: None,
    media_type: None,
};

/// The resources: (name, collection).
const RESOURCES: [(&str, &str); 10] = [
    ("network", "networks"),
    ("subnet", "subnets"),
    ("port", "ports"),
    ("router", "routers"),
    ("floatingip", "floatingips"),
    ("security_group", "security-groups"),
    ("security_group_rule", "security-group-rules"),
    ("subnetpool", "subnetpools"),
    ("address_scope", "address-scopes"),
    ("quota", "quotas"),
];

/// An extension: (alias, name, what it adds).
type Extension = (&'static str, &'static str, &'static str);

/// What works, by the aliases that clients look for.
const EXTENSIONS: [Extension; 33] = [
    ("address-scope", "Address scope", "Address scopes of subnet pools."),
    ("agent", "agent", "The network agents of the nodes."),
    ("allowed-address-pairs", "Allowed Address Pairs", "Further sources that anti-spoofing lets pass."),
    ("availability_zone", "Availability Zone", "The zones of the nodes."),
    ("binding", "Port Binding", "The node a port is plugged on."),
    ("default-subnetpools", "Default Subnetpools", "A pool that is taken when none is named."),
    ("ext-gw-mode", "Neutron L3 Configurable external gateway mode", "Routers without address translation."),
    ("external-net", "Neutron external network", "Networks that routers have their gateway on."),
    ("extra_dhcp_opt", "Neutron Extra DHCP options", "Further options of DHCP for IPv4, per port."),
    ("extraroute", "Neutron Extra Route", "Static routes of routers."),
    ("extraroute-atomic", "Atomically add/remove extra routes", "Routes added and removed one by one."),
    ("ip-substring-filtering", "IP address substring filtering", "Ports found by a part of an address."),
    ("net-mtu", "Network MTU", "The MTU of networks."),
    ("net-mtu-writable", "Network MTU (writable)", "The MTU of networks, chosen."),
    ("pagination", "Pagination support", "Lists in pages."),
    ("port-security", "Port Security", "Ports without filters."),
    ("project-id", "project_id field enabled", "project_id beside tenant_id."),
    ("provider", "Provider Network", "Networks on the LAN."),
    ("quota_details", "Quota details management support", "What of a quota is used."),
    ("quotas", "Quota management support", "Limits of projects."),
    ("revision-if-match", "If-Match constraints based on revision_number", "Changes only of what was read."),
    ("router", "Neutron L3 Router", "Routers and floating IPs."),
    ("security-group", "security-group", "Security groups."),
    (
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "The prefix as it is used.",
    ),
    ("service-type", "Neutron Service Type Management", "What provides the services there are."),
    ("sorting", "Sorting support", "Lists in any order."),
    ("standard-attr-description", "standard-attr-description", "Descriptions of resources."),
    ("standard-attr-revisions", "Resource revision numbers", "How often a resource was changed."),
    ("standard-attr-tag", "Tag support for resources with standard attribute", "Words on resources."),
    ("standard-attr-timestamp", "Resource timestamps", "When a resource was made and changed."),
    ("subnet-service-types", "Subnet service types", "Subnets for some kinds of port."),
    ("subnet_allocation", "Subnet Allocation", "Subnets cut from pools."),
    ("tag", "Tag support", "Words on networks."),
];

/// The routes of discovery.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/", get(root))
        .route("/v2.0", get(resources))
        .route("/v2.0/", get(resources))
        .route("/v2.0/extensions", get(extensions))
        .route("/v2.0/extensions/{alias}", get(extension))
        .route("/v2.0/service-providers", get(providers))
        .route("/v2.0/availability_zones", get(zones))
}

async fn root(base: BaseUrl) -> Json<Value> {
    Json(versions::list(&[V2], &base))
}

async fn resources(base: BaseUrl) -> Json<Value> {
    let resource = |(name, collection): &(&str, &str)| {
        let href = format!("{}/network/v2.0/{collection}", base.0);
        json!({"name": name, "collection": collection, "links": [{"rel": "self", "href": href}]})
    };
    Json(json!({"resources": RESOURCES.iter().map(resource).collect::<Vec<_>>()}))
}

fn view((alias, name, description): &Extension) -> Value {
    json!({
        "alias": alias, "name": name, "description": description, "updated": V2.updated, "links": [],
    })
}

async fn extensions(_: Caller) -> Json<Value> {
    Json(json!({"extensions": EXTENSIONS.iter().map(view).collect::<Vec<_>>()}))
}

async fn extension(_: Caller, Path(alias): Path<String>) -> ApiResult<Json<Value>> {
    let found = EXTENSIONS.iter().find(|e| e.0 == alias);
    let found = found
        .ok_or_else(|| ApiError::not_found("Extension with alias", &alias).with_code("ExtensionNotFound"))?;
    Ok(Json(json!({"extension": view(found)})))
}

/// Who provides what: the kernel's routing, driven by us.
async fn providers(_: Caller) -> Json<Value> {
    Json(json!({"service_providers": [{"service_type": "L3_ROUTER_NAT", "name": "cairn", "default": true}]}))
}

/// All nodes are one zone; it is there when any of them is.
async fn zones(State(svc): State<Arc<Service>>, _: Caller) -> ApiResult<Json<Value>> {
    let alive = svc.store.read(|tx| hosts::alive(tx, Timestamp::now()))?;
    let state = if alive.is_empty() { "unavailable" } else { "available" };
    let zone = |resource: &str| json!({"name": "nova", "resource": resource, "state": state});
    Ok(Json(json!({"availability_zones": [zone("network"), zone("router")]})))
}
