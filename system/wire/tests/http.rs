//! HTTP over Unix sockets: streaming both ways, peers, errors, a stale socket.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use cairn_wire::Peer;
use cairn_wire::local_http::{Client, Error, serve};
use common::within;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

async fn start(path: &std::path::Path) -> Client {
    let router = Router::new()
        .route("/json", post(|Json(value): Json<Value>| async move { Json(json!({ "got": value })) }))
        .route("/echo", post(|request: Request<Body>| async move { request.into_body() }))
        .route("/peer", get(|ConnectInfo(peer): ConnectInfo<Peer>| async move { Json(peer.pid) }))
        .route("/bad", get(|| async { (StatusCode::CONFLICT, "the disk is in use") }));
    let at = path.to_owned();
    tokio::spawn(async move { serve(&at, 0o660, router).await });
    while std::os::unix::net::UnixStream::connect(path).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Client::new(path)
}

#[tokio::test]
async fn json_and_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("storage.sock");
    let unreached = Client::new(&path).get_json::<Value>("/peer").await;
    assert!(matches!(unreached, Err(Error::Connect { .. })));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

    let client = start(&path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let answer: Value = client.post_json("/json", &json!([1])).await.unwrap();
    assert_eq!(answer, json!({ "got": [1] }));
    assert_eq!(client.get_json::<u32>("/peer").await.unwrap(), std::process::id());
    match client.get_json::<Value>("/bad").await {
        Err(Error::Status { status: StatusCode::CONFLICT, body }) => assert_eq!(body, "the disk is in use"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let client = start(&directory.path().join("storage.sock")).await;
    // Each chunk is only made once the last has come back: nothing may gather the body.
    let (more, asked) = tokio::sync::mpsc::channel::<Bytes>(1);
    let chunks = stream::unfold(asked, |mut asked| async {
        let chunk = asked.recv().await?;
        Some((Ok::<_, std::io::Error>(chunk), asked))
    });
    let request = Request::post("/echo").body(Body::from_stream(chunks)).unwrap();
    let sent = tokio::spawn(async move { client.send(request).await.unwrap() });
    more.send(Bytes::from(vec![0; 1000])).await.unwrap();
    let mut body = within(sent).await.unwrap().into_body().into_data_stream();
    for n in 0..50u8 {
        let mut left = 1000;
        while left > 0 {
            let chunk = within(body.next()).await.unwrap().unwrap();
            assert!(chunk.iter().all(|b| *b == n));
            left -= chunk.len();
        }
        more.send(Bytes::from(vec![n + 1; 1000])).await.unwrap();
    }
}
