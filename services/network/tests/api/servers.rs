//! What compute asks in its own transaction.

use cairn_gateway::{ApiError, ApiResult};
use cairn_network::model::{Port, ServerMetadata};
use cairn_network::servers::{self, PortRequest};
use cairn_state::Tx;
use serde_json::{Value, json};

use crate::support::{Cloud, NODE, caller, ips, text};

async fn with<T>(cloud: &Cloud, mut body: impl FnMut(&mut Tx) -> ApiResult<T>) -> ApiResult<T> {
    cloud.svc.store.transact(|tx| body(tx)).await
}

async fn allocate(cloud: &Cloud, request: PortRequest, groups: &[String]) -> Result<Port, ApiError> {
    let caller = caller("member:p").unwrap();
    with(cloud, |tx| servers::allocate(tx, &caller, request.clone(), "s1", NODE, groups)).await
}

#[tokio::test]
async fn a_server_gets_a_port_and_gives_it_back() {
    let cloud = Cloud::with_node().await;
    let (network, _) = cloud.wired("member:p").await;
    let request = PortRequest { network_id: Some(network.clone()), ..PortRequest::default() };
    let port = allocate(&cloud, request, &[]).await.unwrap();
    assert_eq!(port.host.as_deref(), Some(NODE));
    assert_eq!(port.device_owner, "compute:nova");
    assert_eq!(port.security_groups.len(), 1);
    let own = with(&cloud, |tx| servers::ports_of(tx, "s1")).await.unwrap();
    assert_eq!(own, std::slice::from_ref(&port));
    with(&cloud, |tx| servers::release(tx, "s1")).await.unwrap();
    assert!(cloud.record::<Port>(&port.id).unwrap().deleted, "until the node has unplugged it");
    assert!(with(&cloud, |tx| servers::ports_of(tx, "s1")).await.unwrap().is_empty());
    cloud.settle().await;
    assert!(cloud.record::<Port>(&port.id).is_none());
}

#[tokio::test]
async fn the_users_port_is_lent() {
    let cloud = Cloud::with_node().await;
    let (network, _) = cloud.wired("member:p").await;
    let own = text(&cloud.port("member:p", &network, json!({})).await["id"]);
    let request = PortRequest { port_id: Some(own.clone()), ..PortRequest::default() };
    allocate(&cloud, request.clone(), &[]).await.unwrap();
    let caller = caller("member:p").unwrap();
    let other = with(&cloud, |tx| servers::allocate(tx, &caller, request.clone(), "s2", NODE, &[])).await;
    assert_eq!(other.unwrap_err().status.as_u16(), 409);
    with(&cloud, |tx| servers::release_port(tx, "s1", &own)).await.unwrap();
    let shown = cloud.get(&format!("ports/{own}"), "member:p").await.expect(200)["port"].take();
    assert_eq!((&shown["device_id"], &shown["device_owner"]), (&json!(""), &json!("")));
    let none = with(&cloud, |tx| servers::release_port(tx, "s1", &own)).await;
    assert_eq!(none.unwrap_err().status.as_u16(), 404);
}

#[tokio::test]
async fn the_only_network_is_taken_when_none_is_named() {
    let cloud = Cloud::with_node().await;
    cloud.external().await;
    assert_eq!(allocate(&cloud, PortRequest::default(), &[]).await.unwrap_err().status.as_u16(), 400);
    let (network, _) = cloud.wired("member:p").await;
    assert_eq!(allocate(&cloud, PortRequest::default(), &[]).await.unwrap().network_id, network);
    cloud.wired("member:p").await;
    assert_eq!(allocate(&cloud, PortRequest::default(), &[]).await.unwrap_err().status.as_u16(), 409);
}

#[tokio::test]
async fn what_a_server_cannot_have() {
    let cloud = Cloud::with_node().await;
    let external = cloud.external().await;
    let bare = cloud.network("member:p").await;
    let on = |network: &str| PortRequest { network_id: Some(network.into()), ..PortRequest::default() };
    assert_eq!(allocate(&cloud, on(&external), &[]).await.unwrap_err().status.as_u16(), 403);
    assert_eq!(allocate(&cloud, on(&bare), &[]).await.unwrap_err().status.as_u16(), 400);
    assert_eq!(allocate(&cloud, on("none"), &[]).await.unwrap_err().status.as_u16(), 400);
    let (network, _) = cloud.wired("member:p").await;
    assert_eq!(allocate(&cloud, on(&network), &["nope".into()]).await.unwrap_err().status.as_u16(), 400);
    let fixed = PortRequest { fixed_ip: Some("10.0.0.77".parse().unwrap()), ..on(&network) };
    assert_eq!(allocate(&cloud, fixed.clone(), &["default".into()]).await.unwrap().fixed_ips.len(), 1);
    assert_eq!(allocate(&cloud, fixed, &[]).await.unwrap_err().status.as_u16(), 409);
}

#[tokio::test]
async fn addresses_with_floating_ones() {
    let cloud = Cloud::with_node().await;
    let external = cloud.external().await;
    let (network, subnet) = cloud.wired("member:p").await;
    let router = cloud.router("member:p", Some(&external)).await;
    cloud.join("member:p", &router, &subnet).await;
    let port = allocate(&cloud, PortRequest { network_id: Some(network), ..PortRequest::default() }, &[])
        .await
        .unwrap();
    let body = json!({"floatingip": {"floating_network_id": external, "port_id": port.id}});
    let fip = cloud.post("floatingips", "member:p", body).await.made("floatingip");
    let networks = with(&cloud, |tx| {
        let ports = servers::ports_of(tx, "s1")?;
        servers::addresses(tx, &ports)
    })
    .await
    .unwrap();
    assert_eq!(networks.len(), 1);
    assert_eq!(networks[0].label, "n");
    let shown: Vec<(String, bool)> =
        networks[0].addresses.iter().map(|a| (a.addr.to_string(), a.floating)).collect();
    assert_eq!(shown, [(port.fixed_ips[0].ip.to_string(), false), (text(&fip["floating_ip_address"]), true)]);
    let on_api = cloud.get(&format!("ports/{}", port.id), "member:p").await.expect(200);
    assert_eq!(ips(&on_api["port"]).len(), 1);
}

#[tokio::test]
async fn metadata_is_published_and_retracted() {
    let cloud = Cloud::new();
    let metadata = ServerMetadata {
        server_id: "s1".into(),
        project_id: "p".into(),
        ports: vec![],
        meta_data: json!({"name": "x"}),
        network_data: Value::Null,
        vendor_data: Value::Null,
        user_data: Some("c2VjcmV0".into()),
        instance_type: "m1.tiny".into(),
        image_id: None,
    };
    with(&cloud, |tx| servers::publish_metadata(tx, &metadata)).await.unwrap();
    assert_eq!(cloud.record::<ServerMetadata>("s1").as_ref(), Some(&metadata));
    assert!(!format!("{metadata:?}").contains("c2VjcmV0"), "never in a log");
    with(&cloud, |tx| servers::retract_metadata(tx, "s1")).await.unwrap();
    assert!(cloud.record::<ServerMetadata>("s1").is_none());
}
