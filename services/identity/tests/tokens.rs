//! Tokens: who gets one, what it says, and what ends it.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests by the lint

mod common;

use axum::body::Body;
use cairn_identity::keyring::Keyring;
use cairn_identity::model::Keys;
use cairn_identity::{Service, bootstrap};
use common::{Cloud, SECRET};
use http::{Method, Request};
use serde_json::{Value, json};

#[tokio::test]
async fn discovery_answers_as_clients_read_it() {
    let cloud = Cloud::new().await;
    let ask = |path: &'static str| {
        cloud.send(Request::get(path).header("host", "cloud.test").body(Body::empty()).unwrap())
    };
    let list = ask("/identity").await;
    assert_eq!(list.status, 300);
    let entry = &list.body["versions"]["values"][0];
    assert_eq!(entry["links"][0]["href"], "https://cloud.test/identity/v3/");
    assert_eq!(entry["media-types"][0]["type"], "application/vnd.openstack.identity-v3+json");
    for path in ["/identity/v3", "/identity/v3/"] {
        let one = ask(path).await;
        assert_eq!((one.status, &one.body["version"]), (200, entry), "{path}");
    }
}

#[tokio::test]
async fn a_scoped_token_shows_roles_and_a_catalog_of_whole_urls() {
    let cloud = Cloud::new().await;
    let answer = cloud.login("admin", SECRET, Some("admin")).await;
    assert_eq!(answer.status, 201);
    let token = &answer.body["token"];
    let roles: Vec<&str> =
        token["roles"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(roles.len(), 4, "admin implies manager, member and reader: {roles:?}");
    let types: Vec<&str> =
        token["catalog"].as_array().unwrap().iter().map(|s| s["type"].as_str().unwrap()).collect();
    for kind in ["identity", "image", "compute", "placement", "network", "block-storage", "volumev3"] {
        assert!(types.contains(&kind), "{kind}");
    }
    assert!(token.to_string().contains("https://cloud.test/compute/v2.1"));
    let bare = cloud
        .ask(
            "POST",
            "/auth/tokens?nocatalog",
            "",
            json!({"auth": {"identity": {
        "methods": ["token"], "token": {"id": answer.token()}}}}),
        )
        .await;
    assert_eq!((bare.status, bare.body["token"].get("catalog")), (201, None));
}

#[tokio::test]
async fn every_refusal_looks_the_same() {
    let cloud = Cloud::new().await;
    cloud.user("ann").await;
    let wrong = [
        cloud.login("ann", "wrong", None).await,
        cloud.login("nobody", "pw", None).await,
        cloud.login("ann", "pw", Some("admin")).await,
        cloud.login("ann", "pw", Some("nowhere")).await,
    ];
    for answer in &wrong {
        assert_eq!((answer.status, &answer.body), (401, &wrong[0].body));
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    assert_eq!(cloud.login("ann", "pw", None).await.status, 201, "unscoped is for everybody");
    let forged = json!({"methods": ["token"], "token": {"id": "AQHPeJWv"}});
    assert_eq!(cloud.auth(forged, Value::Null).await.status, 404);
}

#[tokio::test]
async fn guessing_is_stopped() {
    let cloud = Cloud::new().await;
    cloud.user("ann").await;
    for _ in 0..10 {
        assert_eq!(cloud.login("ann", "guess", None).await.status, 401);
    }
    assert_eq!(cloud.login("ann", "pw", None).await.status, 401, "locked, even with the right password");
    assert_eq!(cloud.login("admin", SECRET, None).await.status, 201, "others are not");
}

#[tokio::test]
async fn a_token_made_from_a_token_keeps_its_end_and_ends_alone() {
    let cloud = Cloud::new().await;
    cloud.member("ann", "home").await;
    let unscoped = cloud.login("ann", "pw", None).await;
    let scope = json!({"project": {"name": "home", "domain": {"id": "default"}}});
    let scoped = cloud.auth(json!({"methods": ["token"], "token": {"id": unscoped.token()}}), scope).await;
    assert_eq!(scoped.body["token"]["expires_at"], unscoped.body["token"]["expires_at"]);
    assert_eq!(scoped.body["token"]["methods"], json!(["password", "token"]));
    assert_eq!(scoped.body["token"]["audit_ids"][1], unscoped.body["token"]["audit_ids"][0]);
    let revoke = Request::delete("/identity/v3/auth/tokens").header("host", "cloud.test");
    let revoke = revoke.header("x-auth-token", scoped.token()).header("x-subject-token", scoped.token());
    assert!(cloud.is_valid(&scoped.token()).await);
    assert_eq!(cloud.send(revoke.body(Body::empty()).unwrap()).await.status, 204);
    assert!(!cloud.is_valid(&scoped.token()).await);
    assert!(cloud.is_valid(&unscoped.token()).await);
}

#[tokio::test]
async fn what_a_token_rests_on_ends_it_when_it_goes() {
    let cloud = Cloud::new().await;
    let (user, project) = cloud.member("ann", "home").await;
    let place = format!("projects/{project}/users/{user}");
    let member = cloud.role("member").await;
    let off = json!({"user": {"enabled": false}});
    let on = json!({"user": {"enabled": true}});
    let changes: Vec<(&str, String, Value, &str, Value)> = vec![
        ("PATCH", format!("/users/{user}"), off, "PATCH", on),
        (
            "PATCH",
            format!("/projects/{project}"),
            json!({"project": {"enabled": false}}),
            "PATCH",
            json!({"project": {"enabled": true}}),
        ),
        ("DELETE", format!("/{place}/roles/{member}"), Value::Null, "PUT", Value::Null),
    ];
    for (change, path, body, undo, undo_body) in changes {
        let token = cloud.login("ann", "pw", Some("home")).await.token();
        assert!(cloud.is_valid(&token).await, "{path}");
        cloud.admin(change, &path, body).await;
        assert!(!cloud.is_valid(&token).await, "{change} {path}");
        cloud.admin(undo, &path, undo_body).await;
    }
    let token = cloud.login("ann", "pw", Some("home")).await.token();
    let change = json!({"user": {"password": "new", "original_password": "pw"}});
    let answer = cloud.ask("POST", &format!("/users/{user}/password"), &token, change).await;
    assert_eq!(answer.status, 204);
    assert!(!cloud.is_valid(&token).await, "a new password");
    let token = cloud.login("ann", "new", Some("home")).await.token();
    assert_eq!(cloud.admin("DELETE", &format!("/projects/{project}"), Value::Null).await.status, 204);
    assert!(!cloud.is_valid(&token).await, "no project");
    let token = cloud.login("ann", "new", None).await.token();
    assert_eq!(cloud.admin("DELETE", &format!("/users/{user}"), Value::Null).await.status, 204);
    assert!(!cloud.is_valid(&token).await, "no user");
}

#[tokio::test]
async fn a_trust_lends_some_roles_until_it_is_taken_back() {
    let cloud = Cloud::new().await;
    let (ann, home) = cloud.member("ann", "home").await;
    let extra = cloud.role("extra").await;
    cloud.grant("PUT", &format!("projects/{home}/users/{ann}"), &extra).await;
    let bob = cloud.user("bob").await;
    let token = cloud.login("ann", "pw", Some("home")).await.token();
    let trust = json!({"trust": {"trustor_user_id": ann, "trustee_user_id": bob, "impersonation": true,
        "project_id": home, "roles": [{"name": "extra"}], "remaining_uses": 1}});
    let made = cloud.ask("POST", "/OS-TRUST/trusts", &token, trust).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let user = json!({"id": bob, "password": "pw"});
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let scope = json!({"OS-TRUST:trust": {"id": made.id("trust")}});
    let lent = cloud.auth(identity.clone(), scope.clone()).await;
    assert_eq!(lent.status, 201, "{}", lent.body);
    assert_eq!(lent.body["token"]["user"]["id"], json!(ann));
    assert_eq!(lent.body["token"]["roles"].as_array().unwrap().len(), 1);
    assert_eq!(cloud.auth(identity, scope).await.status, 401, "it was good for one token");
    let again = cloud.auth(json!({"methods": ["token"], "token": {"id": lent.token()}}), Value::Null).await;
    assert_eq!(again.status, 403, "a lent token cannot be rescoped");
    let path = format!("/OS-TRUST/trusts/{}", made.id("trust"));
    assert_eq!(cloud.ask("DELETE", &path, &token, Value::Null).await.status, 204);
    assert!(!cloud.is_valid(&lent.token()).await);
}

#[tokio::test]
async fn an_application_credential_is_bound_to_its_roles_and_rules() {
    let cloud = Cloud::new().await;
    let (ann, _) = cloud.member("ann", "home").await;
    let token = cloud.login("ann", "pw", Some("home")).await.token();
    let path = format!("/users/{ann}/application_credentials");
    let wanted = json!({"application_credential": {"name": "ci", "access_rules": [
        {"service": "compute", "method": "GET", "path": "/v2.1/servers/*"}]}});
    let made = cloud.ask("POST", &path, &token, wanted).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let secret = &made.body["application_credential"]["secret"];
    let identity = |secret: &Value| {
        json!({"methods": ["application_credential"],
            "application_credential": {"id": made.id("application_credential"), "secret": secret}})
    };
    assert_eq!(cloud.auth(identity(&json!("wrong")), Value::Null).await.status, 401);
    let bound = cloud.auth(identity(secret), Value::Null).await;
    assert_eq!(bound.status, 201, "{}", bound.body);
    let allowed = |method: Method, path: &'static str| {
        let (svc, token) = (cloud.svc.clone(), bound.token());
        async move {
            cairn_gateway::Authenticate::authenticate_for(&*svc, &token, &method, path)
                .await
                .unwrap()
                .is_some()
        }
    };
    assert!(allowed(Method::GET, "/compute/v2.1/servers/7").await);
    assert!(!allowed(Method::DELETE, "/compute/v2.1/servers/7").await);
    assert!(!allowed(Method::GET, "/volume/v2.1/servers/7").await);
    assert!(!allowed(Method::GET, "/identity/v3/auth/projects").await);
    let one = format!("{path}/{}", made.id("application_credential"));
    assert_eq!(cloud.ask("DELETE", &one, &token, Value::Null).await.status, 204);
    assert!(!cloud.is_valid(&bound.token()).await);
}

#[tokio::test]
async fn a_token_ends_with_its_application_credential() {
    let cloud = Cloud::new().await;
    let (ann, _) = cloud.member("ann", "home").await;
    let token = cloud.login("ann", "pw", Some("home")).await.token();
    let end = jiff::Timestamp::now().as_second() + 3;
    let shown = jiff::Timestamp::from_second(end).unwrap().strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
    let wanted = json!({"application_credential": {"name": "ci", "expires_at": shown}});
    let made = cloud.ask("POST", &format!("/users/{ann}/application_credentials"), &token, wanted).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let credential = &made.body["application_credential"];
    let identity = json!({"methods": ["application_credential"],
        "application_credential": {"id": credential["id"], "secret": credential["secret"]}});
    let bound = cloud.auth(identity.clone(), Value::Null).await;
    assert_eq!((bound.status, &bound.body["token"]["expires_at"]), (201, &json!(shown)));
    assert!(cloud.is_valid(&bound.token()).await);
    assert!(cloud.is_valid(&bound.token()).await, "from the cache");
    while jiff::Timestamp::now().as_second() < end {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!cloud.is_valid(&bound.token()).await);
    assert_eq!(cloud.auth(identity, Value::Null).await.status, 401, "the credential has ended too");
    assert!(cloud.is_valid(&token).await, "the one it was made with has not");
}

#[tokio::test]
async fn tokens_outlive_a_restart_and_a_rotation_of_keys() {
    let cloud = Cloud::new().await;
    let store = &cloud.svc.store;
    bootstrap(store, Some("$argon2id$nonsense".into()), "RegionOne").await.unwrap_err();
    bootstrap(store, None, "RegionOne").await.unwrap();
    let again = Service::new(store.clone());
    assert!(again.validate(&cloud.admin).unwrap().is_some(), "a second bootstrap changes nothing");
    let aged = store.transact(|tx| {
        let mut keys = tx.get::<Keys>(Keys::ID)?.unwrap();
        keys.tokens[0].created_s = 0;
        tx.put(&keys)
    });
    aged.await.unwrap();
    Keyring::default().rotate(store, 3600).await.unwrap();
    let third = Service::new(store.clone());
    assert!(third.validate(&cloud.admin).unwrap().is_some(), "the old key still opens");
    let payload = third.validate(&cloud.admin).unwrap().unwrap().payload.clone();
    let fresh = Keyring::default().seal(store, &payload).unwrap();
    assert!(again.validate(&fresh).unwrap().is_some(), "a key made elsewhere is found");
}
