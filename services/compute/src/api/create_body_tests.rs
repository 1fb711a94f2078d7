//! The rules of [`super::parse`].

use super::*;
use crate::order::DiskSource;
use serde_json::json;

const IMAGE: &str = "11111111-2222-4333-8444-555555555555";
const VOLUME: &str = "66666666-2222-4333-8444-555555555555";

fn read(server: Value, mv: u32) -> ApiResult<Creation> {
    parse(&json!({"server": server}), Minor(mv))
}

fn plain() -> Value {
    json!({"name": "n", "imageRef": IMAGE, "flavorRef": "1"})
}

fn with(key: &str, value: Value) -> Value {
    let mut server = plain();
    server[key] = value;
    server
}

fn refused(server: Value, mv: u32) {
    let status = read(server.clone(), mv).map_err(|e| e.status.as_u16());
    assert_eq!(status, Err(400), "{server} in 2.{mv}");
}

#[test]
fn the_least_there_is() {
    let order = read(plain(), 1).unwrap().order;
    assert_eq!((order.min_count, order.max_count), (1, 1));
    assert_eq!(order.nics, NicOrder::Auto);
    assert_eq!(order.disks.len(), 1);
    assert_eq!(order.disks[0].source, DiskSource::Local { image: IMAGE.into() });
}

#[test]
fn each_key_has_its_microversions() {
    refused(with("description", json!("d")), 18);
    assert!(read(with("description", json!("d")), 19).is_ok());
    refused(with("tags", json!(["t"])), 51);
    refused(with("hostname", json!("ab")), 89);
    refused(with("nonsense", json!(1)), 1);
    refused(with("personality", json!([])), 57);
    refused(plain(), 37);
    assert!(read(with("networks", json!("auto")), 37).is_ok());
    refused(with("networks", json!("auto")), 36);
}

#[test]
fn what_is_malformed_is_refused() {
    for (key, value) in [
        ("name", json!("")),
        ("name", json!(12345)),
        ("name", json!("x".repeat(256))),
        ("imageRef", json!(-1)),
        ("imageRef", json!("not-a-uuid")),
        ("flavorRef", json!("")),
        ("networks", json!([{"uuid": "a-b-c-d-e-f-g-h-i-j"}])),
        ("networks", json!([{"fixed_ip": "1.2.3.4"}])),
        ("metadata", json!({"a".repeat(260): "b"})),
        ("metadata", json!({"a": 1})),
        ("accessIPv4", json!("1.1.1.1.1.1")),
        ("accessIPv6", json!("notvalid")),
        ("min_count", json!(0)),
        ("min_count", json!("invalid")),
        ("max_count", json!(-1)),
        ("user_data", json!("not base64!")),
        ("OS-DCF:diskConfig", json!("SOMETIMES")),
    ] {
        refused(with(key, value), 1);
    }
    let mut backwards = with("min_count", json!(3));
    backwards["max_count"] = json!(2);
    refused(backwards, 1);
}

#[test]
fn addresses_are_shown_in_their_shortest_form() {
    let order =
        read(with("accessIPv6", json!("0000:0000:0000:0000:0000:babe:220.12.22.2")), 1).unwrap().order;
    assert_eq!(order.access_ipv6, "::babe:dc0c:1602");
}

#[test]
fn image_and_mapping_may_name_the_same_root() {
    let mapping = json!([{
        "boot_index": 0, "source_type": "image", "destination_type": "local", "delete_on_termination": true, "uuid": IMAGE,
    }]);
    let order = read(with("block_device_mapping_v2", mapping), 1).unwrap().order;
    assert_eq!(order.disks.len(), 1);
}

#[test]
fn a_server_boots_from_a_volume() {
    let mapping =
        json!([{"boot_index": "0", "source_type": "volume", "destination_type": "volume", "uuid": VOLUME}]);
    let server = json!({"name": "n", "imageRef": "", "flavorRef": "1", "block_device_mapping_v2": mapping});
    let order = read(server, 1).unwrap().order;
    assert_eq!(order.image, None);
    assert_eq!(order.disks[0].source, DiskSource::Volume { id: VOLUME.into() });
    refused(json!({"name": "n", "flavorRef": "1"}), 1);
    let unbootable =
        json!([{"boot_index": 0, "source_type": "image", "destination_type": "volume", "uuid": IMAGE}]);
    refused(json!({"name": "n", "flavorRef": "1", "block_device_mapping_v2": unbootable}), 1);
}

#[test]
fn a_zone_may_carry_a_host() {
    let order = read(with("availability_zone", json!("nova:node1")), 1).unwrap().order;
    assert_eq!((order.zone.as_deref(), order.host.as_deref()), (Some("nova"), Some("node1")));
}

#[test]
fn files_are_not_injected() {
    let file = json!({"path": "/etc/x", "contents": "eA=="});
    refused(with("personality", json!([file])), 1);
    refused(with("personality", json!([{"path": "/etc/x", "contents": "?"}])), 1);
    let many = read(with("personality", json!(vec![file; 6])), 1).unwrap_err();
    assert_eq!(many.status.as_u16(), 403);
}
