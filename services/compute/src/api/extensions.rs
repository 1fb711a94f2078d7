//! The list of extensions, which has been the same for everybody since the API has microversions.

use axum::extract::Path;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult};
use http::StatusCode;
use serde_json::{Value, json};

use super::Routes;
use super::ask::Ask;

/// The extensions that are answered here: alias and name.
const EXTENSIONS: [(&str, &str); 26] = [
    ("OS-DCF", "DiskConfig"),
    ("OS-EXT-AZ", "ExtendedAvailabilityZone"),
    ("OS-EXT-IPS", "ExtendedIps"),
    ("OS-EXT-IPS-MAC", "ExtendedIpsMac"),
    ("OS-EXT-SRV-ATTR", "ExtendedServerAttributes"),
    ("OS-EXT-STS", "ExtendedStatus"),
    ("OS-FLV-DISABLED", "FlavorDisabled"),
    ("OS-FLV-EXT-DATA", "FlavorExtraData"),
    ("OS-SCH-HNT", "SchedulerHints"),
    ("OS-SRV-USG", "ServerUsage"),
    ("os-admin-actions", "AdminActions"),
    ("os-aggregates", "Aggregates"),
    ("os-attach-interfaces", "AttachInterfaces"),
    ("os-availability-zone", "AvailabilityZone"),
    ("os-block-device-mapping-v2-boot", "BlockDeviceMappingV2Boot"),
    ("os-console-output", "ConsoleOutput"),
    ("os-extended-volumes", "ExtendedVolumes"),
    ("os-flavor-access", "FlavorAccess"),
    ("os-hypervisors", "Hypervisors"),
    ("os-instance-actions", "InstanceActions"),
    ("os-keypairs", "Keypairs"),
    ("os-quota-sets", "Quotas"),
    ("os-security-groups", "SecurityGroups"),
    ("os-server-groups", "ServerGroups"),
    ("os-services", "Services"),
    ("os-volumes", "Volumes"),
];

/// The routes.
pub fn routes() -> Routes {
    Router::new().route("/extensions", routing::get(list)).route("/extensions/{alias}", routing::get(show))
}

fn body((alias, name): &(&str, &str)) -> Value {
    json!({
        "alias": alias, "name": name, "description": name, "links": [], "updated": "2014-12-03T00:00:00Z",
        "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
    })
}

async fn list(_: Ask) -> Json<Value> {
    Json(json!({"extensions": EXTENSIONS.iter().map(body).collect::<Vec<_>>()}))
}

async fn show(_: Ask, Path(alias): Path<String>) -> ApiResult<Json<Value>> {
    match EXTENSIONS.iter().find(|(a, _)| *a == alias) {
        Some(found) => Ok(Json(json!({"extension": body(found)}))),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, format!("No extension is known as {alias}."))),
    }
}
