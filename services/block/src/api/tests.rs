//! The API against a store in memory, with the storage agent played by the tests.

mod attach;
mod backups;
mod elsewhere;
mod encryption;
mod groups;
mod lists;
mod manage;
mod qos;
mod revert;
mod transfers;
mod volumes;

use std::sync::Arc;

use axum::body::Body;
use cairn_gateway::{ApiError, BaseUrl, Caller};
use cairn_image::model::{Image, Status as ImageStatus, Visibility};
use cairn_shards::model::{DiskStatus, Phase, VolumeSpec, VolumeStatus};
use cairn_state::{Abort, LocalStore, StoreExt};
use http::{Method, Request, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::model::{BUSY, BY_WORK, GIB, Snapshot, Volume};
use crate::{Service, lifecycle, mount};

pub const P1: &str = "11111111111111111111111111111111";
pub const P2: &str = "22222222222222222222222222222222";
pub const ADMIN: &str = "adadadadadadadadadadadadadadadad";
pub const IMAGE: &str = "0a1b2c3d-0000-4000-8000-000000000000";

pub struct Cloud {
    pub svc: Arc<Service>,
}

pub fn caller(project: &str) -> Caller {
    let role = if project == ADMIN { "admin" } else { "member" };
    Caller {
        user_id: "u".into(),
        project_id: project.into(),
        roles: [role.to_owned()].into(),
        ..Caller::default()
    }
}

impl Cloud {
    /// A cloud of one node with a disk of 100 GiB.
    pub async fn new() -> Cloud {
        let svc = Service::new(LocalStore::in_memory().unwrap());
        let disk = DiskStatus {
            node: "node-1".into(),
            disk: "d".into(),
            path: "/d".into(),
            size: 100 * GIB,
            free: 100 * GIB,
            healthy: true,
            error: None,
            knows_places: true,
            has_backups: false,
            health: None,
            knows_owners: true,
            gone: false,
            visiting: None,
        };
        svc.store.put_record(&disk).await.unwrap();
        Cloud { svc }
    }

    /// An active image of 2 GiB that everybody may use.
    pub async fn image(&self) -> Image {
        let image = Image {
            id: IMAGE.into(),
            name: Some("linux".into()),
            status: ImageStatus::Active,
            visibility: Visibility::Public,
            owner: ADMIN.into(),
            disk_format: Some("raw".into()),
            container_format: Some("bare".into()),
            size: Some(1),
            virtual_size: Some(2 * GIB),
            checksum: None,
            os_hash_value: None,
            min_disk: 0,
            min_ram: 0,
            protected: false,
            os_hidden: false,
            tags: Default::default(),
            properties: [("os_distro".to_owned(), "linux".to_owned())].into(),
            created_at: Timestamp::now(),
            updated_at: Timestamp::now(),
            incoming: None,
        };
        let spec = VolumeSpec { read_only: true, ..VolumeSpec::new(IMAGE, "node-1", 2 * GIB) };
        let store = &self.svc.store;
        store
            .transact(|tx| {
                tx.put(&image)?;
                cairn_shards::volumes::create(tx, spec.clone())
            })
            .await
            .unwrap();
        image
    }

    pub async fn call_at(
        &self,
        minor: &str,
        project: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("openstack-api-version", format!("volume {minor}"))
            .extension(Arc::new(caller(project)))
            .extension(BaseUrl("https://cloud".into()))
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = mount(&self.svc).router.oneshot(request).await.unwrap();
        let status = response.status();
        if let Some(e) = response.extensions().get::<ApiError>() {
            return (status, json!(e.message));
        }
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn call(&self, project: &str, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.call_at("3.0", project, method, &format!("/v3/{project}{path}"), body).await
    }

    pub async fn get(&self, project: &str, path: &str) -> Value {
        let (status, body) = self.call(project, Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub async fn act(&self, project: &str, id: &str, body: Value) -> StatusCode {
        self.call(project, Method::POST, &format!("/volumes/{id}/action"), body).await.0
    }

    /// Makes a volume and plays the agent until it is available.
    pub async fn volume(&self, project: &str, fields: Value) -> String {
        let (status, body) = self.call(project, Method::POST, "/volumes", json!({"volume": fields})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        self.agent().await;
        body["volume"]["id"].as_str().unwrap().to_owned()
    }

    /// Asks for a volume that no node can take; gives what its user is told.
    pub async fn placeless(&self, body: Value) -> String {
        let (status, made) = self.call(P1, Method::POST, "/volumes", body).await;
        assert_eq!((status, &made["volume"]["status"]), (StatusCode::ACCEPTED, &json!("error")), "{made}");
        let told = self.call_at("3.3", P1, Method::GET, "/v3/messages", Value::Null).await.1;
        let told = told["messages"].as_array().unwrap();
        let ours = told.iter().find(|m| m["resource_uuid"] == made["volume"]["id"]).unwrap();
        ours["user_message"].as_str().unwrap().to_owned()
    }

    pub async fn status(&self, project: &str, id: &str) -> String {
        let shown = self.get(project, &format!("/volumes/{id}")).await;
        shown["volume"]["status"].as_str().unwrap().to_owned()
    }

    pub async fn report(&self, spec: &VolumeSpec, phase: Phase, error: Option<&str>) {
        let status = VolumeStatus { error: error.map(str::to_owned), ..VolumeStatus::new(spec, phase) };
        self.svc.store.put_record(&status).await.unwrap();
    }

    /// Plays the storage agent, all going well, and then the conductor's pass.
    pub async fn agent(&self) {
        for spec in self.svc.store.list_records::<VolumeSpec>().await.unwrap() {
            let phase = if spec.deleted { Phase::Gone } else { Phase::Ready };
            self.report(&spec, phase, None).await;
        }
        self.conduct().await;
    }

    pub async fn conduct(&self) {
        let store = &self.svc.store;
        for volume in store.read(|tx| tx.by_index::<Volume>(BY_WORK, BUSY)).unwrap() {
            store.transact(|tx| lifecycle::advance_volume(tx, &volume.id)).await.unwrap();
        }
        for snapshot in store.read(|tx| tx.by_index::<Snapshot>(BY_WORK, BUSY)).unwrap() {
            store.transact(|tx| lifecycle::advance_snapshot(tx, &snapshot.id)).await.unwrap();
        }
    }

    pub async fn spec(&self, id: &str) -> Option<VolumeSpec> {
        self.svc.store.get_record::<VolumeSpec>(id).await.unwrap()
    }

    /// Runs in a transaction.
    pub async fn tx<T>(
        &self,
        body: impl FnMut(&mut cairn_state::Tx) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.svc.store.transact(body).await
    }

    pub fn read<T>(&self, body: impl FnOnce(&mut cairn_state::Tx) -> Result<T, Abort>) -> T {
        self.svc.store.read(body).unwrap()
    }
}
