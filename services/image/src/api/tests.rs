//! The API against a store in memory and a storage that keeps content in memory.

mod content;
mod metadata;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use cairn_gateway::{ApiError, BaseUrl, Caller};
use cairn_state::LocalStore;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::data::{DataError, ImageData, Stored};
use crate::{Service, mount};

/// Keeps content in memory. Content that begins with `bad`, `full` or `broken` fails in that way.
#[derive(Default)]
pub struct Memory {
    kept: Mutex<BTreeMap<String, Bytes>>,
}

#[async_trait]
impl ImageData for Memory {
    async fn import(&self, id: &str, _: &str, cap: u64, body: Body) -> Result<Stored, DataError> {
        let bytes = axum::body::to_bytes(body, 1 << 20)
            .await
            .map_err(|_| DataError::Refused("the upload was cut off".into()))?;
        if bytes.starts_with(b"bad") {
            return Err(DataError::Refused("the image has a backing file".into()));
        }
        if bytes.starts_with(b"full") {
            return Err(DataError::Full("there is no room".into()));
        }
        self.kept.lock().unwrap().insert(id.into(), bytes.clone());
        if bytes.starts_with(b"broken") {
            return Err(DataError::Broken("gone".into()));
        }
        assert!(cap > 0);
        let size = bytes.len() as u64;
        Ok(Stored { size, virtual_size: size, md5: "m".repeat(32), sha512: "s".repeat(128) })
    }

    async fn capture(&self, id: &str, volume: &str) -> Result<Stored, DataError> {
        if volume == "missing" {
            return Err(DataError::Missing("no such volume".into()));
        }
        self.import(id, "raw", 1, Body::from(volume.to_owned())).await
    }

    async fn read(&self, id: &str, range: Option<&str>) -> Result<Response<Body>, DataError> {
        let bytes = self.kept.lock().unwrap().get(id).cloned();
        let bytes = bytes.ok_or_else(|| DataError::Missing("no content".into()))?;
        let answer = Response::builder().header("x-inner", "1");
        Ok(match range {
            Some("bytes=1-2") => {
                let whole = bytes.len();
                answer
                    .status(206)
                    .header("content-range", format!("bytes 1-2/{whole}"))
                    .body(Body::from(bytes.slice(1..3)))
            }
            _ => answer.header("content-length", bytes.len()).body(Body::from(bytes)),
        }
        .unwrap())
    }
}

pub struct Cloud {
    pub svc: Arc<Service>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub bytes: Bytes,
    pub error: Option<ApiError>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }
}

impl Cloud {
    pub fn new() -> Cloud {
        let store = LocalStore::in_memory().unwrap();
        Cloud { svc: Service::new(store, "node-1", Arc::new(Memory::default())) }
    }

    pub async fn send(
        &self,
        project: &str,
        request: http::request::Builder,
        body: impl Into<Body>,
    ) -> Answer {
        let role = if project == "admin" { "admin" } else { "member" };
        let caller = Caller {
            user_id: "u".into(),
            project_id: project.into(),
            roles: [role.to_owned()].into(),
            ..Caller::default()
        };
        let request = request
            .extension(Arc::new(caller))
            .extension(BaseUrl("https://cloud".into()))
            .body(body.into())
            .unwrap();
        let response = mount(&self.svc).router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            error: parts.extensions.get::<ApiError>().cloned(),
            headers: parts.headers,
            bytes: axum::body::to_bytes(body, 1 << 20).await.unwrap(),
        }
    }

    pub async fn call(&self, project: &str, method: Method, path: &str, body: Value) -> Answer {
        self.send(project, Request::builder().method(method).uri(path), body.to_string()).await
    }

    pub async fn get(&self, project: &str, path: &str) -> Answer {
        self.call(project, Method::GET, path, Value::Null).await
    }

    pub async fn image(&self, project: &str, body: Value) -> String {
        let answer = self.call(project, Method::POST, "/v2/images", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.error);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub async fn raw(&self, project: &str) -> String {
        self.image(project, json!({"name": "i", "disk_format": "raw", "container_format": "bare"})).await
    }

    pub async fn upload(&self, project: &str, id: &str, content: &'static str) -> Answer {
        let request =
            Request::put(format!("/v2/images/{id}/file")).header("content-type", "application/octet-stream");
        self.send(project, request, content).await
    }

    pub async fn patch(&self, project: &str, id: &str, patch: Value) -> Answer {
        let request = Request::patch(format!("/v2/images/{id}"))
            .header("content-type", "application/openstack-images-v2.1-json-patch");
        self.send(project, request, patch.to_string()).await
    }

    pub async fn list(&self, project: &str, query: &str) -> Vec<String> {
        let answer = self.get(project, &format!("/v2/images?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {:?}", answer.error);
        let body = answer.json();
        body["images"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect()
    }
}
