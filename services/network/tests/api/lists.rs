//! What lists can do, what the API says of itself, tags, and revisions.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{Cloud, text};

#[tokio::test]
async fn pages_fields_and_order() {
    let cloud = Cloud::new();
    for name in ["c", "a", "b"] {
        cloud.post("networks", "member:p", json!({"network": {"name": name}})).await.expect(201);
    }
    let page =
        cloud.get("networks?limit=2&sort_key=name&fields=id&fields=name", "member:p").await.expect(200);
    let names: Vec<&Value> = page["networks"].as_array().unwrap().iter().map(|n| &n["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(page["networks"][0].as_object().unwrap().len(), 2);
    let next = text(&page["networks_links"][0]["href"]);
    assert!(next.starts_with("https://cloud.test/network/v2.0/networks?"), "{next}");
    let path = next.split("/v2.0/").nth(1).unwrap();
    let last = cloud.get(path, "member:p").await.expect(200);
    assert_eq!(last["networks"][0]["name"], "c");
    assert!(last.get("networks_links").is_none());
    cloud.get("networks?marker=none", "member:p").await.expect(400);
    cloud.get("networks?sort_key=colour", "member:p").await.expect(400);
    assert_eq!(cloud.ids("networks?name=a&name=b", "member:p").await.len(), 2);
    cloud.get("networks/a", "member:p").await.refused(404, "NetworkNotFound");
}

#[tokio::test]
async fn ports_are_found_by_address() {
    let cloud = Cloud::new();
    let (network, subnet) = cloud.wired("member:p").await;
    let port = cloud.port("member:p", &network, json!({"fixed_ips": [{"ip_address": "10.0.0.42"}]})).await;
    for query in [
        "fixed_ips=ip_address%3D10.0.0.42".to_owned(),
        format!("fixed_ips=subnet_id={subnet}&fixed_ips=ip_address=10.0.0.42"),
        "fixed_ips=ip_address_substr=0.42".to_owned(),
        format!("mac_address={}", text(&port["mac_address"])),
    ] {
        assert_eq!(cloud.ids(&format!("ports?{query}"), "member:p").await, [text(&port["id"])], "{query}");
    }
    assert!(cloud.ids("ports?fixed_ips=ip_address=10.0.0.43", "member:p").await.is_empty());
}

#[tokio::test]
async fn the_api_says_what_it_is() {
    let cloud = Cloud::new();
    let root = Request::get("/network/").header("host", "cloud.test").body(Body::empty()).unwrap();
    let root = cloud.send(root).await.expect(200);
    assert_eq!(root["versions"][0]["id"], "v2.0");
    assert_eq!(root["versions"][0]["links"][0]["href"], "https://cloud.test/network/v2.0/");
    let version = Request::get("/network/v2.0/").header("host", "cloud.test").body(Body::empty()).unwrap();
    let names = cloud.send(version).await.expect(200)["resources"].to_string();
    assert!(["network", "subnet", "port"].iter().all(|n| names.contains(&format!("\"{n}\""))));
    let list = cloud.get("extensions", "reader:p").await.expect(200);
    for extension in list["extensions"].as_array().unwrap() {
        let alias = text(&extension["alias"]);
        let shown = cloud.get(&format!("extensions/{alias}"), "reader:p").await.expect(200);
        assert_eq!(shown["extension"], *extension);
    }
    cloud.get("extensions/external-gateway-multihoming", "reader:p").await.refused(404, "ExtensionNotFound");
    cloud.get("rbac-policies", "member:p").await.expect(404);
}

#[tokio::test]
async fn agents_are_for_administrators() {
    let cloud = Cloud::with_node().await;
    assert!(cloud.ids("agents", "member:p").await.is_empty());
    let dhcp = cloud.ids("agents?agent_type=DHCP%20agent", "admin:a").await;
    let shown = cloud.get(&format!("agents/{}", dhcp[0]), "admin:a").await.expect(200);
    assert_eq!(shown["agent"]["alive"], true);
    cloud.get("agents/none", "admin:a").await.refused(404, "AgentNotFound");
}

#[tokio::test]
async fn tags() {
    let cloud = Cloud::new();
    let id = cloud.network("member:p").await;
    let path = format!("networks/{id}/tags");
    cloud.put(&format!("{path}/red"), "member:p", json!("{}")).await.expect(201);
    cloud.get(&format!("{path}/red"), "reader:p").await.expect(204);
    cloud.get(&format!("{path}/blue"), "member:p").await.refused(404, "TagNotFound");
    let all = cloud.put(&path, "member:p", json!({"tags": ["a", "b"]})).await.expect(200);
    assert_eq!(all["tags"], json!(["a", "b"]));
    assert_eq!(cloud.ids("networks?tags=a,b", "member:p").await, std::slice::from_ref(&id));
    assert!(cloud.ids("networks?not-tags-any=a", "member:p").await.is_empty());
    cloud.delete(&format!("{path}/a"), "member:p").await.expect(204);
    cloud.put(&format!("{path}/x"), "reader:p", json!({})).await.expect(403);
    cloud.delete(&path, "member:p").await.expect(204);
    assert_eq!(cloud.get(&path, "member:p").await.expect(200), json!({"tags": []}));
}

#[tokio::test]
async fn what_was_changed_since_it_was_read_is_not_changed() {
    let cloud = Cloud::new();
    let id = cloud.network("member:p").await;
    let put = |revision: u64| {
        Request::put(format!("/network/v2.0/networks/{id}"))
            .header("host", "cloud.test")
            .header("x-auth-token", "member:p")
            .header("content-type", "application/json")
            .header("if-match", format!("revision_number={revision}"))
            .body(Body::from(json!({"network": {"name": "n"}}).to_string()))
            .unwrap()
    };
    cloud.send(put(1)).await.expect(200);
    cloud.send(put(1)).await.refused(412, "RevisionNumberConstraintFailed");
}
