//! A user who calls the APIs, and what one does again and again.

use std::time::{Duration, Instant};

use axum::body::Body;
use cairn_placement::model::ResourceProvider;
use cairn_state::{LocalStore, Record, StoreExt};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Cloud, PASSWORD};

/// A user of the cloud.
pub struct User<'a> {
    cloud: &'a Cloud,
    token: String,
    /// The microversion asked for.
    pub mv: &'static str,
}

/// The administrator.
pub async fn admin(cloud: &Cloud) -> User<'_> {
    let mut user = User { cloud, token: String::new(), mv: "2.96" };
    let body = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": "admin", "domain": {"id": "default"}, "password": PASSWORD}}},
        "scope": {"project": {"name": "admin", "domain": {"id": "default"}}},
    }});
    let answer = user.send(Method::POST, "/identity/v3/auth/tokens", Some(body)).await;
    user.token = answer.headers()["x-subject-token"].to_str().unwrap().to_owned();
    user
}

impl User<'_> {
    /// Sends a request.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> http::Response<Body> {
        let body = body.map_or(Body::empty(), |b| Body::from(b.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "cloud.test")
            .header("content-type", "application/json")
            .header("x-auth-token", &self.token)
            .header("x-openstack-nova-api-version", self.mv);
        self.cloud.app.clone().oneshot(request.body(body).unwrap()).await.unwrap()
    }

    /// Sends a request, and reads its answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let answer = self.send(method, path, body).await;
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// What is there.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Posts.
    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// An image and a network to make servers with.
    pub async fn ground(&self) -> Ground {
        let image = json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
        let (_, image) = self.post("/image/v2/images", image).await;
        let image = image["id"].as_str().unwrap().to_owned();
        let upload = Request::put(format!("/image/v2/images/{image}/file"))
            .header("host", "cloud.test")
            .header("content-type", "application/octet-stream")
            .header("x-auth-token", &self.token);
        let answer =
            self.cloud.app.clone().oneshot(upload.body(Body::from("content")).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 204);
        let (_, network) = self.post("/network/v2.0/networks", json!({"network": {"name": "n"}})).await;
        let network = network["network"]["id"].as_str().unwrap().to_owned();
        let subnet = json!({"subnet": {"network_id": network, "cidr": "10.0.0.0/24", "ip_version": 4}});
        assert_eq!(self.post("/network/v2.0/subnets", subnet).await.0, 201);
        self.flavors().await;
        Ground { image, network }
    }

    /// Waits until the conductor has made the first flavors and the node's inventory.
    pub async fn flavors(&self) {
        self.until("/compute/v2.1/flavors", |b| b["flavors"].as_array().is_some_and(|f| !f.is_empty())).await;
        let began = Instant::now();
        while self.cloud.store.list_records::<ResourceProvider>().await.unwrap().len() < self.cloud.nodes {
            assert!(began.elapsed() < Duration::from_secs(60), "no inventory");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until what is there fits.
    pub async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let (_, body) = self.call(Method::GET, path, None).await;
            if fits(&body) {
                return body;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{path}: {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a server has this status and rests.
    pub async fn status(&self, id: &str, status: &str) -> Value {
        let rests =
            |b: &Value| b["server"]["status"] == status && b["server"]["OS-EXT-STS:task_state"].is_null();
        self.until(&format!("/compute/v2.1/servers/{id}"), rests).await
    }
}

/// What servers are made with.
pub struct Ground {
    /// An image.
    pub image: String,
    /// A network.
    pub network: String,
}

impl Ground {
    /// An order for a server.
    pub fn order(&self, more: Value) -> Value {
        let mut server = json!({
            "name": "web", "imageRef": self.image, "flavorRef": "c1", "networks": [{"uuid": self.network}],
        });
        server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"server": server})
    }
}

/// How many records of a kind there are.
pub async fn count<R: Record>(store: &LocalStore) -> usize {
    store.list_records::<R>().await.unwrap().len()
}

/// Where servers are.
pub const SERVERS: &str = "/compute/v2.1/servers";
