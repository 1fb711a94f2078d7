//! What is kept: users, projects, domains, roles, the catalog, secrets, and who may touch them.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests by the lint

mod common;

use common::Cloud;
use serde_json::{Value, json};

fn ids(answer: &common::Answer, many: &str) -> Vec<String> {
    let all = answer.body[many].as_array().unwrap_or_else(|| panic!("{}", answer.body));
    all.iter().map(|v| v["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn groups_and_inheritance_give_roles() {
    let cloud = Cloud::new().await;
    let (ann, home) = (cloud.user("ann").await, cloud.project("home").await);
    let child =
        cloud.admin("POST", "/projects", json!({"project": {"name": "room", "parent_id": home}})).await;
    let child = child.id("project");
    let group = cloud.admin("POST", "/groups", json!({"group": {"name": "crew"}})).await.id("group");
    let member = cloud.role("member").await;
    assert_eq!(cloud.login("ann", "pw", Some("home")).await.status, 401);
    cloud.grant("PUT", &format!("projects/{home}/groups/{group}"), &member).await;
    cloud.admin("PUT", &format!("/groups/{group}/users/{ann}"), Value::Null).await;
    let token = cloud.login("ann", "pw", Some("home")).await.token();
    assert_eq!(cloud.login("ann", "pw", Some("room")).await.status, 401, "not inherited");
    let inherit = format!("/OS-INHERIT/projects/{home}/groups/{group}/roles/{member}/inherited_to_projects");
    assert_eq!(cloud.admin("PUT", &inherit, Value::Null).await.status, 204);
    let below = cloud.login("ann", "pw", Some("room")).await;
    assert_eq!(below.status, 201);
    assert_eq!(ids(&cloud.ask("GET", "/auth/projects", &token, Value::Null).await, "projects").len(), 2);
    let query = format!("/role_assignments?effective&user.id={ann}&scope.project.id={child}&include_names");
    let listed = cloud.admin("GET", &query, Value::Null).await;
    let names: Vec<&str> = listed.body["role_assignments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["role"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "member, and reader that it implies: {names:?}");
    cloud.admin("DELETE", &format!("/groups/{group}/users/{ann}"), Value::Null).await;
    assert!(!cloud.is_valid(&token).await && !cloud.is_valid(&below.token()).await);
}

#[tokio::test]
async fn a_domain_is_disabled_before_it_goes_with_all_it_owns() {
    let cloud = Cloud::new().await;
    let domain = cloud.admin("POST", "/domains", json!({"domain": {"name": "acme"}})).await.id("domain");
    let user = json!({"user": {"name": "eve", "domain_id": domain, "password": "pw"}});
    let user = cloud.admin("POST", "/users", user).await.id("user");
    let project = json!({"project": {"name": "x", "domain_id": domain}});
    let project = cloud.admin("POST", "/projects", project).await.id("project");
    let member = cloud.role("member").await;
    cloud.grant("PUT", &format!("projects/{project}/users/{user}"), &member).await;
    let login = || {
        let user = json!({"id": user, "password": "pw"});
        let scope = json!({"project": {"id": project}});
        cloud.auth(json!({"methods": ["password"], "password": {"user": user}}), scope)
    };
    let token = login().await.token();
    let path = format!("/domains/{domain}");
    assert_eq!(cloud.admin("DELETE", &path, Value::Null).await.status, 403);
    assert_eq!(cloud.admin("PATCH", &path, json!({"domain": {"enabled": false}})).await.status, 200);
    assert!(!cloud.is_valid(&token).await);
    assert_eq!(login().await.status, 401);
    assert_eq!(cloud.admin("DELETE", &path, Value::Null).await.status, 204);
    for gone in [path, format!("/users/{user}"), format!("/projects/{project}")] {
        assert_eq!(cloud.admin("GET", &gone, Value::Null).await.status, 404, "{gone}");
    }
    let left = cloud.admin("GET", &format!("/role_assignments?role.id={member}"), Value::Null).await;
    assert_eq!(left.body["role_assignments"], json!([]));
    assert_eq!(cloud.admin("DELETE", "/domains/default", Value::Null).await.status, 403);
}

#[tokio::test]
async fn names_are_unique_and_bad_input_changes_nothing() {
    let cloud = Cloud::new().await;
    cloud.project("home").await;
    let before = cloud.svc.store.snapshot().unwrap().revision();
    let long = "x".repeat(65);
    for (path, body, status) in [
        ("/projects", json!({"project": {"name": "Home"}}), 409),
        ("/projects", json!({"project": {"name": ""}}), 400),
        ("/projects", json!({"project": {"name": long}}), 400),
        ("/projects", json!({"project": {}}), 400),
        ("/projects", json!({"nothing": {}}), 400),
        ("/projects", json!({"project": {"name": "y", "parent_id": "nowhere"}}), 404),
        ("/users", json!({"user": {"name": "z", "domain_id": "nowhere"}}), 404),
        ("/users", json!({"user": {"name": "z", "enabled": "yes"}}), 400),
        ("/roles", json!({"role": {"name": "admin"}}), 409),
        (
            "/endpoints",
            json!({"endpoint": {"service_id": "none", "interface": "public", "url": "http://a"}}),
            400,
        ),
    ] {
        let answer = cloud.admin("POST", path, body.clone()).await;
        assert_eq!(answer.status, status, "{path} {body}");
        assert!(answer.body["error"]["message"].is_string());
    }
    assert_eq!(cloud.svc.store.snapshot().unwrap().revision(), before);
}

#[tokio::test]
async fn members_have_their_own_and_nothing_else() {
    let cloud = Cloud::new().await;
    let (ann, home) = cloud.member("ann", "home").await;
    let other = cloud.user("bob").await;
    let token = cloud.login("ann", "pw", Some("home")).await.token();
    for (method, path, status) in [
        ("GET", format!("/users/{ann}"), 200),
        ("GET", format!("/users/{ann}/projects"), 200),
        ("GET", format!("/projects/{home}"), 200),
        ("GET", "/domains/default".into(), 200),
        ("GET", "/regions".into(), 200),
        ("GET", "/auth/catalog".into(), 200),
        ("GET", format!("/users/{other}"), 403),
        ("GET", "/users/no-such-user".into(), 403),
        ("GET", "/users".into(), 403),
        ("GET", "/projects".into(), 403),
        ("GET", "/role_assignments".into(), 403),
        ("GET", "/services".into(), 403),
        ("DELETE", format!("/projects/{home}"), 403),
        ("DELETE", format!("/users/{ann}"), 403),
        ("PATCH", "/nothing".into(), 404),
        ("POST", "/regions/x".into(), 405),
    ] {
        let answer = cloud.ask(method, &path, &token, Value::Null).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    }
    assert_eq!(cloud.ask("GET", "/users", "", Value::Null).await.status, 401);
}

#[tokio::test]
async fn a_projects_relatives_are_shown_when_asked_for() {
    let cloud = Cloud::new().await;
    let home = cloud.project("home").await;
    let room =
        cloud.admin("POST", "/projects", json!({"project": {"name": "room", "parent_id": home}})).await;
    let room = room.id("project");
    let shown = cloud.admin("GET", &format!("/projects/{room}?parents_as_ids"), Value::Null).await;
    assert_eq!(shown.body["project"]["parents"], json!({home.as_str(): {"default": null}}));
    let shown = cloud.admin("GET", &format!("/projects/{home}?subtree_as_ids"), Value::Null).await;
    assert_eq!(shown.body["project"]["subtree"], json!({room.as_str(): null}));
    let shown = cloud.admin("GET", &format!("/projects/{home}?subtree_as_list"), Value::Null).await;
    assert_eq!(shown.body["project"]["subtree"][0]["project"]["id"], json!(room));
    assert_eq!(cloud.admin("DELETE", &format!("/projects/{home}"), Value::Null).await.status, 403);
}

#[tokio::test]
async fn an_endpoint_makes_its_region_and_is_shown_as_given() {
    let cloud = Cloud::new().await;
    let service = cloud.admin("POST", "/services", json!({"service": {"type": "dns", "name": "d"}})).await;
    let endpoint = json!({"endpoint": {"service_id": service.id("service"), "interface": "public",
        "region": "elsewhere", "url": "http://dns.test/%(project_id)s"}});
    let made = cloud.admin("POST", "/endpoints", endpoint).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(cloud.admin("GET", "/regions/elsewhere", Value::Null).await.status, 200);
    assert_eq!(cloud.admin("DELETE", "/regions/elsewhere", Value::Null).await.status, 409);
    let catalog = cloud.admin("GET", "/auth/catalog", Value::Null).await.body.to_string();
    assert!(catalog.contains("http://dns.test/") && !catalog.contains("%(project_id)s"));
    // An endpoint of our own that comes back as it was shown stays a path.
    let own = cloud.admin("GET", "/endpoints?interface=public", Value::Null).await;
    let own = own.body["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["url"] == "https://cloud.test/image")
        .unwrap()
        .clone();
    let path = format!("/endpoints/{}", own["id"].as_str().unwrap());
    cloud.admin("PATCH", &path, json!({"endpoint": {"url": own["url"]}})).await;
    let stored =
        cloud.svc.store.read(|tx| tx.get::<cairn_identity::model::Endpoint>(own["id"].as_str().unwrap()));
    assert_eq!(stored.unwrap().unwrap().url, "/image");
    let path = format!("/services/{}", service.id("service"));
    assert_eq!(cloud.admin("DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(cloud.admin("DELETE", "/regions/elsewhere", Value::Null).await.status, 204);
}

#[tokio::test]
async fn secrets_are_sealed_in_the_store() {
    let cloud = Cloud::new().await;
    let (ann, home) = cloud.member("ann", "home").await;
    let token = cloud.login("ann", "pw", Some("home")).await.token();
    let path = format!("/users/{ann}/credentials/OS-EC2");
    let made = cloud.ask("POST", &path, &token, json!({"tenant_id": home})).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let secret = made.body["credential"]["secret"].as_str().unwrap();
    let everything = cloud.svc.store.snapshot().unwrap().range("identity/", None, usize::MAX).unwrap();
    for entry in &everything.entries {
        let text = String::from_utf8_lossy(&entry.value);
        assert!(!text.contains(secret) && !text.contains("first light"), "{}", entry.key);
    }
    let listed = cloud.ask("GET", "/credentials", &token, Value::Null).await;
    assert!(listed.body["credentials"][0]["blob"].as_str().unwrap().contains(secret));
    let other = cloud.member("bob", "yard").await.0;
    assert_eq!(
        cloud.ask("GET", &format!("/users/{other}/credentials/OS-EC2"), &token, Value::Null).await.status,
        403
    );
}

#[tokio::test]
async fn lists_are_cut_into_pages_and_filtered() {
    let cloud = Cloud::new().await;
    for name in ["p1", "p2", "p3"] {
        cloud.project(name).await;
    }
    let all = ids(&cloud.admin("GET", "/projects", Value::Null).await, "projects");
    assert_eq!(all.len(), 5, "with admin and service");
    let page = cloud.admin("GET", "/projects?limit=2", Value::Null).await;
    assert_eq!(ids(&page, "projects"), all[..2]);
    let next =
        page.body["links"]["next"].as_str().unwrap().strip_prefix("https://cloud.test/identity/v3").unwrap();
    assert_eq!(ids(&cloud.admin("GET", next, Value::Null).await, "projects"), all[2..4]);
    let some = cloud.admin("GET", "/projects?name__startswith=p&enabled=True", Value::Null).await;
    assert_eq!(ids(&some, "projects").len(), 3);
}
