//! A cloud's identity behind the gateway, in this process, and a client of it.

#![allow(dead_code)] // each test file uses some of it

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use cairn_gateway::server::{Gateway, Limits};
use cairn_identity::password::Passwords;
use cairn_identity::{Service, bootstrap, mount};
use cairn_state::LocalStore;
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tower::ServiceExt;

/// The admin's password.
pub const SECRET: &str = "first light";

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The token of an answer that has one.
    pub fn token(&self) -> String {
        self.headers["x-subject-token"].to_str().unwrap().to_owned()
    }

    /// The id of the one object in the body.
    pub fn id(&self, one: &str) -> String {
        self.body[one]["id"].as_str().unwrap_or_else(|| panic!("{}: {}", self.status, self.body)).to_owned()
    }
}

/// The cloud.
pub struct Cloud {
    pub svc: Arc<Service>,
    pub app: Router,
    pub admin: String,
}

impl Cloud {
    pub async fn new() -> Cloud {
        let store = LocalStore::in_memory().unwrap();
        let hash = Passwords::default().hash(SECRET).await.unwrap();
        bootstrap(&store, Some(hash), "RegionOne").await.unwrap();
        let svc = Service::new(store);
        let limits = Limits { failures_burst: 1e6, ..Limits::default() };
        let app = Gateway::new(vec![mount(&svc)], svc.clone()).limits(limits).router();
        let mut cloud = Cloud { svc, app, admin: String::new() };
        cloud.admin = cloud.login("admin", SECRET, Some("admin")).await.token();
        cloud
    }

    /// A request; a null body is none.
    pub async fn ask(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/identity/v3{path}"));
        request = request.header("host", "cloud.test").header("x-auth-token", token);
        self.send(
            request.body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) }).unwrap(),
        )
        .await
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 24).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// As the admin.
    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask(method, path, &self.admin, body).await
    }

    pub async fn auth(&self, identity: Value, scope: Value) -> Answer {
        let mut auth = json!({"identity": identity});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        self.ask("POST", "/auth/tokens", "", json!({"auth": auth})).await
    }

    /// Logs in by password in the default domain.
    pub async fn login(&self, user: &str, password: &str, project: Option<&str>) -> Answer {
        let user = json!({"name": user, "domain": {"id": "default"}, "password": password});
        let scope = project.map(|p| json!({"project": {"name": p, "domain": {"name": "Default"}}}));
        self.auth(json!({"methods": ["password"], "password": {"user": user}}), scope.unwrap_or_default())
            .await
    }

    /// Whether the token is valid, asked as the admin.
    pub async fn is_valid(&self, token: &str) -> bool {
        let request = Request::get("/identity/v3/auth/tokens").header("host", "cloud.test");
        let request = request.header("x-auth-token", &self.admin).header("x-subject-token", token);
        let status = self.send(request.body(Body::empty()).unwrap()).await.status;
        assert!(status == 200 || status == 404, "{status}");
        let own = self.svc.validate(token).unwrap().is_some();
        assert_eq!(own, status == 200, "the gateway and the API agree");
        own
    }

    pub async fn project(&self, name: &str) -> String {
        self.admin("POST", "/projects", json!({"project": {"name": name}})).await.id("project")
    }

    pub async fn user(&self, name: &str) -> String {
        let user = json!({"user": {"name": name, "password": "pw"}});
        self.admin("POST", "/users", user).await.id("user")
    }

    pub async fn role(&self, name: &str) -> String {
        let found = self.admin("GET", &format!("/roles?name={name}"), Value::Null).await;
        match found.body["roles"][0]["id"].as_str() {
            Some(id) => id.to_owned(),
            None => self.admin("POST", "/roles", json!({"role": {"name": name}})).await.id("role"),
        }
    }

    /// PUTs or DELETEs a grant, as `projects/P/users/U`.
    pub async fn grant(&self, method: &str, place: &str, role: &str) {
        let path = format!("/{place}/roles/{role}");
        assert_eq!(self.admin(method, &path, Value::Null).await.status, 204, "{method} {path}");
    }

    /// A user with the role `member` on a project of its own: their ids.
    pub async fn member(&self, user: &str, project: &str) -> (String, String) {
        let (user, project) = (self.user(user).await, self.project(project).await);
        let role = self.role("member").await;
        self.grant("PUT", &format!("projects/{project}/users/{user}"), &role).await;
        (user, project)
    }
}
