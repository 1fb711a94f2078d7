//! A node that cannot tell what is current answers with what was, and says so; it changes nothing, and answers nothing
//! if it has nothing yet, in the API's own form.

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
use cairn_state::{LocalStore, Member, Options};
use serde_json::Value;
use tower::ServiceExt;

struct Nobody;

#[async_trait]
impl Authenticate for Nobody {
    async fn authenticate(&self, _: &str) -> Result<Option<Arc<Caller>>, ApiError> {
        Ok(None)
    }
}

fn app(store: &LocalStore) -> Router {
    let doc = || async { "\"doc\"" };
    let router = Router::new().route("/v2.1", get(doc).post(doc));
    let mount = Mount { prefix: "/compute", style: ErrorStyle::Nova, router, body_max: 64 };
    Gateway::new(vec![mount], Arc::new(Nobody)).store(store.clone()).router()
}

/// Status, the header that says how old an answer may be, and body.
async fn call(app: &Router, method: &str, path: &str) -> (u16, Option<String>, Value) {
    let request = Request::builder().method(method).uri(path).header("host", "cairn.test");
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let stale = response.headers().get("x-cairn-stale").map(|v| v.to_str().unwrap().to_owned());
    assert_eq!(response.headers().contains_key("warning"), stale.is_some());
    let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
    (status, stale, serde_json::from_slice(&body).unwrap_or_default())
}

async fn ask(store: &LocalStore, path: &str) -> (u16, Value) {
    let (status, _, body) = call(&app(store), "GET", path).await;
    (status, body)
}

fn hasty(options: Options) -> LocalStore {
    let options = options.timing(Timing { patience: Duration::from_millis(200), ..Timing::default() });
    let dir = tempfile::tempdir().unwrap();
    // The open file goes on to be there.
    LocalStore::open_with(&dir.path().join("store.redb"), options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_its_group_answers_nothing() {
    let store = hasty(Options::join());
    let (status, body) = ask(&store, "/compute/v2.1").await;
    assert_eq!((status, &body["serviceUnavailable"]["code"]), (503, &503.into()), "{body}");
    assert_eq!(ask(&store, "/elsewhere").await.0, 404, "what reads nothing waits for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_one_answers() {
    let store = LocalStore::in_memory().unwrap();
    assert_eq!(ask(&store, "/compute/v2.1").await, (200, "doc".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_reads_say_that_they_are_old_and_writes_are_refused() {
    let store = hasty(Options::found(Member::default()));
    let app = app(&store);
    assert_eq!(call(&app, "GET", "/compute/v2.1").await, (200, None, "doc".into()));
    // A voter that is not there: from now on one of two is missing.
    let me = store.status().unwrap().node;
    drop(store.admit(me + 1, Member::default()).await);
    drop(store.set_voters([me, me + 1]).await);
    let (status, stale, body) = call(&app, "GET", "/compute/v2.1").await;
    assert_eq!((status, body), (200, "doc".into()));
    assert!(stale.is_some_and(|age| age.parse::<u64>().is_ok()), "it says how old it may be");
    let (status, stale, body) = call(&app, "POST", "/compute/v2.1").await;
    assert_eq!((status, stale), (503, None));
    let message = body["serviceUnavailable"]["message"].as_str().unwrap();
    assert!(message.contains("lost its majority"), "{message}");
}
