//! The application in-process: prefixes, slashes, error forms, ids, tokens, limits.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests by the lint")]

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{get, post};
use cairn_gateway::server::{Gateway, Limits, Status, StatusPage};
use cairn_gateway::{ApiError, ApiResult, Authenticate, BaseUrl, Caller, ErrorStyle, Mount};
use http::StatusCode;
use serde_json::{Value, json};
use tower::ServiceExt;

struct Tokens;

#[async_trait]
impl Authenticate for Tokens {
    async fn authenticate(&self, token: &str) -> Result<Option<Arc<Caller>>, ApiError> {
        Ok((token == "good").then(|| {
            Arc::new(Caller {
                user_id: "u".into(),
                user_name: "ann".into(),
                project_id: "p".into(),
                roles: ["member".to_owned()].into(),
                ..Caller::default()
            })
        }))
    }
}

struct Page;

impl StatusPage for Page {
    fn status(&self) -> Status {
        Status {
            version: "0.1".into(),
            problems: vec![],
            endpoints: vec![("Compute".into(), "/compute".into())],
        }
    }

    fn ca_pem(&self) -> Option<String> {
        Some("-----BEGIN CERTIFICATE-----".into())
    }
}

async fn whoami(caller: Caller) -> String {
    caller.user_name
}

async fn fail() -> ApiResult<()> {
    Err(ApiError::not_found("Thing", "x"))
}

async fn panics() {
    panic!("on purpose");
}

fn mounts() -> Vec<Mount> {
    let compute = Router::new()
        .route("/", get(|base: BaseUrl| async move { base.0 }))
        .route("/v2.1", get(|| async { "doc" }))
        .route("/v2/", get(|| async { "old" }))
        .route("/v2.1/me", get(whoami))
        .route("/v2.1/fail", get(fail))
        .route("/v2.1/panic", get(panics))
        .route("/v2.1/none", get(|| async { (StatusCode::NO_CONTENT, "a body") }))
        .route(
            "/v2.1/echo",
            post(|cairn_gateway::Body(v): cairn_gateway::Body<Value>| async { axum::Json(v) }),
        )
        .nest("/v3", Router::new().route("/", get(|| async { "nested" })));
    vec![Mount { prefix: "/compute", style: ErrorStyle::Nova, router: compute, body_max: 64 }]
}

fn app() -> Router {
    Gateway::new(mounts(), Arc::new(Tokens)).status(Arc::new(Page)).router()
}

async fn ask(method: &str, path: &str, token: &str, body: &str) -> Response {
    let request = Request::builder().method(method).uri(path).header("host", "cairn.test:8443");
    let request = request.header("x-auth-token", token).header("content-length", body.len());
    app().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 16).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_prefix_and_a_path_answer_with_and_without_their_last_slash() {
    for (path, body) in [
        ("/compute", "https://cairn.test:8443"),
        ("/compute/", "https://cairn.test:8443"),
        ("/compute/v2.1", "doc"),
        ("/compute/v2.1/", "doc"),
        ("/compute/v2", "old"),
        ("/compute/v2/", "old"),
        ("/compute/v3", "nested"),
        ("/compute/v3/", "nested"),
    ] {
        let response = ask("GET", path, "", "").await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(text(response).await, body, "{path}");
    }
}

#[tokio::test]
async fn errors_have_the_form_of_their_api_and_a_request_id() {
    for (method, path, token, status, name) in [
        ("GET", "/compute/v2.1/fail", "", 404, "itemNotFound"),
        ("GET", "/compute/v2.1/nothing", "", 404, "itemNotFound"),
        ("DELETE", "/compute/v2.1/me", "", 405, "badMethod"),
        ("GET", "/compute/v2.1/me", "", 401, "unauthorized"),
        ("GET", "/compute/v2.1/me", "bad", 401, "unauthorized"),
        ("GET", "/compute/v2.1/panic", "", 500, "computeFault"),
        ("POST", "/compute/v2.1/echo", "", 400, "badRequest"),
        ("GET", "/computers", "", 404, "error"),
    ] {
        let response = ask(method, path, token, "").await;
        assert_eq!(response.status(), status, "{path}");
        let id = response.headers()["x-openstack-request-id"].to_str().unwrap().to_owned();
        assert!(id.starts_with("req-") && id.len() == 40, "{id}");
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body[name]["code"], status, "{path}: {body}");
    }
}

#[tokio::test]
async fn a_valid_token_gives_the_caller_and_head_and_204_have_no_body() {
    assert_eq!(text(ask("GET", "/compute/v2.1/me", "good", "").await).await, "ann");
    let head = ask("HEAD", "/compute/v2.1/me", "good", "").await;
    assert_eq!((head.status().as_u16(), text(head).await), (200, String::new()));
    let none = ask("GET", "/compute/v2.1/none", "good", "").await;
    assert!(none.headers().get("content-type").is_none());
    assert_eq!((none.status().as_u16(), text(none).await), (204, String::new()));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let body = json!({"a": "x".repeat(100)}).to_string();
    let response = ask("POST", "/compute/v2.1/echo", "", &body).await;
    assert_eq!(response.status(), 413);
    let streamed = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(body.clone())]));
    let request = Request::post("/compute/v2.1/echo").body(streamed).unwrap();
    assert_eq!(app().oneshot(request).await.unwrap().status(), 413);
    assert_eq!(ask("POST", "/compute/v2.1/echo", "", "{\"a\":1}").await.status(), 200);
}

#[tokio::test]
async fn the_gateways_own_pages_answer() {
    assert!(text(ask("GET", "/", "", "").await).await.contains("/compute"));
    assert_eq!(text(ask("GET", "/healthz", "", "").await).await, "ok\n");
    assert!(text(ask("GET", "/ca.pem", "", "").await).await.starts_with("-----BEGIN"));
    assert_eq!(ask("POST", "/", "", "").await.status(), 405);
}

#[tokio::test]
async fn a_host_that_could_forge_links_is_refused() {
    let request = Request::get("/compute").header("host", "evil.test/<x>").body(Body::empty()).unwrap();
    assert_eq!(app().oneshot(request).await.unwrap().status(), 400);
}

#[tokio::test]
async fn failed_attempts_are_limited_while_valid_tokens_go_on() {
    let limits = Limits { failures_burst: 2.0, failures_per_s: 0.0, ..Limits::default() };
    let app = Gateway::new(mounts(), Arc::new(Tokens)).limits(limits).router();
    let ask = |token: &'static str| {
        let request = Request::get("/compute/v2.1/me").header("x-auth-token", token);
        app.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let mut seen = Vec::new();
    for token in ["bad", "bad", "bad", "good"] {
        seen.push(ask(token).await.unwrap().status().as_u16());
    }
    assert_eq!(seen, [401, 401, 429, 200]);
}
