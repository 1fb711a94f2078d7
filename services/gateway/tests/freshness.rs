//! A node that cannot tell what is current answers nothing from its replica, and says so in the API's own form.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests by the lint")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::routing::get;
use cairn_gateway::server::Gateway;
use cairn_gateway::{ApiError, Authenticate, Caller, ErrorStyle, Mount};
use cairn_state::raft::Timing;
use cairn_state::{LocalStore, Options};
use serde_json::Value;
use tower::ServiceExt;

struct Nobody;

#[async_trait]
impl Authenticate for Nobody {
    async fn authenticate(&self, _: &str) -> Result<Option<Arc<Caller>>, ApiError> {
        Ok(None)
    }
}

async fn ask(store: &LocalStore, path: &str) -> (u16, Value) {
    let router = Router::new().route("/v2.1", get(|| async { "\"doc\"" }));
    let mount = Mount { prefix: "/compute", style: ErrorStyle::Nova, router, body_max: 64 };
    let app = Gateway::new(vec![mount], Arc::new(Nobody)).store(store.clone()).router();
    let request = Request::builder().uri(path).header("host", "cairn.test").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_group_answers_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let patience = Duration::from_millis(100);
    let options = Options::join().timing(Timing { patience, ..Timing::default() });
    let store = LocalStore::open_with(&dir.path().join("store.redb"), options).unwrap();
    let (status, body) = ask(&store, "/compute/v2.1").await;
    assert_eq!((status, &body["serviceUnavailable"]["code"]), (503, &503.into()), "{body}");
    assert_eq!(ask(&store, "/elsewhere").await.0, 404, "what reads nothing waits for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_one_answers() {
    let store = LocalStore::in_memory().unwrap();
    assert_eq!(ask(&store, "/compute/v2.1").await, (200, "doc".into()));
}
