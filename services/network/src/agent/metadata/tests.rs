//! What the metadata server answers to whom.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use super::{Tenant, find};
use crate::model::ServerMetadata;

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10));

fn data() -> ServerMetadata {
    ServerMetadata {
        server_id: "5e6f".into(),
        project_id: "p".into(),
        ports: vec![],
        meta_data: json!({"uuid": "5e6f", "hostname": "web.example", "launch_index": 2,
            "availability_zone": "nova", "public_keys": {"mine": "ssh-ed25519 AAAA me"}}),
        network_data: json!({"links": []}),
        vendor_data: json!({}),
        user_data: Some("I2Nsb3VkLWNvbmZpZwo=".into()),
        instance_type: "m1.tiny".into(),
        image_id: Some("img".into()),
    }
}

fn get(path: &str) -> Option<String> {
    let tenant = Tenant { server: "5e6f".into(), public: Some(Ipv4Addr::new(203, 0, 113, 5)) };
    find(path, &data(), &tenant, FROM).map(|f| String::from_utf8(f.body).unwrap())
}

#[test]
fn openstacks_form() {
    assert!(get("/openstack").unwrap().ends_with("latest"));
    assert_eq!(
        get("/openstack/latest/").unwrap(),
        "meta_data.json\nnetwork_data.json\nvendor_data.json\nuser_data"
    );
    let meta: serde_json::Value =
        serde_json::from_str(&get("/openstack/2018-08-27/meta_data.json").unwrap()).unwrap();
    assert_eq!(meta["uuid"], "5e6f");
    assert_eq!(get("/openstack/latest/user_data").unwrap(), "#cloud-config\n");
    assert_eq!(get("/openstack/1999-01-01/meta_data.json"), None);
    assert_eq!(get("/openstack/latest/password"), None);
}

#[test]
fn ec2s_form() {
    assert!(get("/").unwrap().contains("2009-04-04"));
    assert_eq!(get("/latest").unwrap(), "meta-data/\nuser-data");
    for (name, value) in [
        ("ami-id", "img"),
        ("ami-launch-index", "2"),
        ("hostname", "web.example"),
        ("instance-id", "5e6f"),
        ("instance-type", "m1.tiny"),
        ("local-ipv4", "10.0.0.10"),
        ("public-ipv4", "203.0.113.5"),
        ("placement/availability-zone", "nova"),
        ("public-keys/", "0=mine"),
        ("public-keys/0", "openssh-key"),
        ("public-keys/0/openssh-key", "ssh-ed25519 AAAA me"),
    ] {
        assert_eq!(get(&format!("/2009-04-04/meta-data/{name}")).as_deref(), Some(value), "{name}");
    }
    assert_eq!(get("/latest/meta-data/public-keys/1/openssh-key"), None);
    assert_eq!(get("/latest/meta-data/nothing"), None);
}

#[test]
fn every_listed_leaf_can_be_read() {
    for name in get("/latest/meta-data/").unwrap().lines() {
        assert!(get(&format!("/latest/meta-data/{name}")).is_some(), "{name}");
    }
}
