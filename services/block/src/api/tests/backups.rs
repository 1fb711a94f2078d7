//! Backups: making, continuing, restoring, exporting, ending.

use cairn_shards::backup::{BackupSpec, BackupStatus, RestoreSpec, RestoreStatus};
use cairn_shards::model::Phase;
use cairn_state::StoreExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ADMIN, Cloud, P1, P2};
use crate::backups;
use crate::model::{BUSY, BY_WORK, Backup, GIB};

impl Cloud {
    /// Plays the agent's part in backups too, and the conductor's, until nothing changes.
    async fn copy(&self) {
        let store = &self.svc.store;
        for _ in 0..4 {
            self.agent().await;
            for spec in store.list_records::<BackupSpec>().await.unwrap() {
                let phase = if spec.deleted { Phase::Gone } else { Phase::Ready };
                self.say(&spec, phase, None).await;
            }
            for spec in store.list_records::<RestoreSpec>().await.unwrap() {
                let (id, node, phase) = (spec.id, spec.node, Phase::Ready);
                store.put_record(&RestoreStatus { id, node, phase, error: None, size: GIB }).await.unwrap();
            }
            self.follow().await;
        }
    }

    async fn say(&self, spec: &BackupSpec, phase: Phase, error: Option<&str>) {
        let (id, node, error) = (spec.id.clone(), spec.node.clone(), error.map(str::to_owned));
        let status = BackupStatus { id, node, phase, error, chunks: 3, stored: 10 };
        self.svc.store.put_record(&status).await.unwrap();
    }

    async fn follow(&self) {
        let store = &self.svc.store;
        for backup in store.read(|tx| tx.by_index::<Backup>(BY_WORK, BUSY)).unwrap() {
            store.transact(|tx| backups::advance(tx, &backup.id)).await.unwrap();
        }
    }

    async fn backup(&self, fields: Value) -> (StatusCode, Value) {
        self.call(P1, Method::POST, "/backups", json!({"backup": fields})).await
    }

    async fn whole_backup(&self, fields: Value) -> String {
        let (status, made) = self.backup(fields).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{made}");
        self.copy().await;
        made["backup"]["id"].as_str().unwrap().to_owned()
    }

    async fn shown_backup(&self, id: &str) -> Value {
        self.get(P1, &format!("/backups/{id}")).await["backup"].clone()
    }
}

#[tokio::test]
async fn a_backup_is_made_of_a_frozen_copy_and_outlives_its_volume() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 2, "metadata": {"k": "v"}})).await;
    let (status, made) = cloud.backup(json!({"volume_id": volume, "name": "b", "container": "c"})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{made}");
    let id = made["backup"]["id"].as_str().unwrap();
    assert_eq!(cloud.status(P1, &volume).await, "backing-up");
    let frozen = cloud.spec(id).await.unwrap();
    assert_eq!((frozen.source.as_deref(), frozen.read_only), (Some(volume.as_str()), true));
    assert_eq!(cloud.call(P2, Method::GET, &format!("/backups/{id}"), Value::Null).await.0.as_u16(), 404);
    cloud.copy().await;
    let shown = cloud.shown_backup(id).await;
    assert_eq!(
        (&shown["status"], &shown["size"], &shown["object_count"]),
        (&json!("available"), &json!(2), &json!(3))
    );
    assert_eq!((&shown["container"], &shown["is_incremental"]), (&json!("c"), &json!(false)));
    assert_eq!(cloud.status(P1, &volume).await, "available");
    assert!(cloud.spec(id).await.is_none(), "the frozen copy is gone");

    let limits = cloud.get(P1, "/limits").await["limits"]["absolute"].clone();
    assert_eq!((&limits["totalBackupsUsed"], &limits["totalBackupGigabytesUsed"]), (&json!(1), &json!(2)));
    cloud.call(P1, Method::DELETE, &format!("/volumes/{volume}"), Value::Null).await;
    cloud.copy().await;
    assert_eq!(cloud.shown_backup(id).await["status"], "available");
    let path = format!("/backups/{id}");
    assert_eq!(cloud.call(P1, Method::DELETE, &path, Value::Null).await.0, StatusCode::ACCEPTED);
    cloud.copy().await;
    assert_eq!(cloud.call(P1, Method::GET, &path, Value::Null).await.0, StatusCode::NOT_FOUND);
    assert!(cloud.svc.store.list_records::<BackupSpec>().await.unwrap().is_empty());
    assert_eq!(cloud.get(P1, "/limits").await["limits"]["absolute"]["totalBackupsUsed"], 0);
}

#[tokio::test]
async fn a_backup_that_fails_says_why_and_gives_its_volume_back() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let (_, made) = cloud.backup(json!({"volume_id": volume})).await;
    let id = made["backup"]["id"].as_str().unwrap();
    cloud.agent().await;
    cloud.follow().await;
    let spec = cloud.svc.store.get_record::<BackupSpec>(id).await.unwrap().unwrap();
    cloud.say(&spec, Phase::Failed, Some("disk full")).await;
    cloud.follow().await;
    let shown = cloud.shown_backup(id).await;
    assert_eq!((&shown["status"], &shown["fail_reason"]), (&json!("error"), &json!("disk full")));
    assert_eq!(cloud.status(P1, &volume).await, "available");
    let bad = json!({"volume_id": volume, "incremental": true});
    assert_eq!(cloud.backup(bad).await.0, StatusCode::BAD_REQUEST, "there is none to continue");
    for bad in [json!({}), json!({"volume_id": volume, "availability_zone": "mars"})] {
        assert_eq!(cloud.backup(bad).await.0, StatusCode::BAD_REQUEST);
    }
    assert_eq!(cloud.backup(json!({"volume_id": "absent"})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_another_backup_continues_stays() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let full = cloud.whole_backup(json!({"volume_id": volume})).await;
    let next = cloud.whole_backup(json!({"volume_id": volume, "incremental": true})).await;
    let spec = cloud.svc.store.get_record::<BackupSpec>(&next).await.unwrap().unwrap();
    assert_eq!(spec.parent.as_deref(), Some(full.as_str()));
    assert_eq!(cloud.shown_backup(&full).await["has_dependent_backups"], true);
    assert_eq!(cloud.shown_backup(&next).await["is_incremental"], true);
    let path = |id: &str| format!("/backups/{id}");
    let delete = async |id: &str| cloud.call(P1, Method::DELETE, &path(id), Value::Null).await.0;
    assert_eq!(delete(&full).await, StatusCode::BAD_REQUEST);
    assert_eq!(delete(&next).await, StatusCode::ACCEPTED);
    cloud.copy().await;
    assert_eq!(delete(&full).await, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_snapshot_is_held_while_it_is_copied() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let body = json!({"snapshot": {"volume_id": volume}});
    let (_, made) = cloud.call(P1, Method::POST, "/snapshots", body).await;
    let snapshot = made["snapshot"]["id"].as_str().unwrap();
    cloud.agent().await;
    let (status, _) = cloud.backup(json!({"volume_id": volume, "snapshot_id": snapshot})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let path = format!("/snapshots/{snapshot}");
    assert_eq!(cloud.get(P1, &path).await["snapshot"]["status"], "backing-up");
    assert_eq!(cloud.call(P1, Method::DELETE, &path, Value::Null).await.0, StatusCode::BAD_REQUEST);
    cloud.copy().await;
    assert_eq!(cloud.get(P1, &path).await["snapshot"]["status"], "available");
}

#[tokio::test]
async fn a_restore_makes_a_volume_or_replaces_ones_content() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 1, "metadata": {"k": "v"}})).await;
    let id = cloud.whole_backup(json!({"volume_id": volume})).await;
    let path = format!("/backups/{id}/restore");
    let (status, made) = cloud.call(P1, Method::POST, &path, json!({"restore": {}})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{made}");
    let new = made["restore"]["volume_id"].as_str().unwrap();
    assert_eq!(cloud.status(P1, new).await, "restoring-backup");
    assert_eq!(cloud.shown_backup(&id).await["status"], "restoring");
    assert!(cloud.spec(new).await.is_none(), "it has no content before the backup's is there");
    cloud.copy().await;
    assert_eq!(
        (cloud.status(P1, new).await.as_str(), &cloud.shown_backup(&id).await["status"]),
        ("available", &json!("available"))
    );
    assert_eq!(cloud.get(P1, &format!("/volumes/{new}")).await["volume"]["metadata"]["k"], "v");

    let generation = cloud.spec(&volume).await.unwrap().generation;
    let over = json!({"restore": {"volume_id": volume}});
    assert_eq!(cloud.call(P1, Method::POST, &path, over).await.0, StatusCode::ACCEPTED);
    assert!(!cloud.spec(&volume).await.unwrap().deleted, "the old content stays until the new one is whole");
    cloud.copy().await;
    cloud.copy().await;
    assert_eq!(cloud.status(P1, &volume).await, "available");
    let now = cloud.spec(&volume).await.unwrap();
    assert!(now.source.is_some() && now.generation > generation && !now.deleted);
    assert!(cloud.spec(now.source.as_deref().unwrap()).await.is_none(), "what was between is gone");
    assert_eq!(cloud.shown_backup(&id).await["status"], "available");
}

#[tokio::test]
async fn a_volume_is_made_of_a_backup_as_of_an_image() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 2})).await;
    let id = cloud.whole_backup(json!({"volume_id": volume})).await;
    let make = async |fields: Value| {
        let path = format!("/v3/{P1}/volumes");
        cloud.call_at("3.47", P1, Method::POST, &path, json!({"volume": fields})).await
    };
    assert_eq!(make(json!({"backup_id": id, "size": 1})).await.0, StatusCode::BAD_REQUEST);
    let (status, made) = make(json!({"backup_id": id, "size": 3, "name": "n"})).await;
    assert_eq!((status, &made["volume"]["size"]), (StatusCode::ACCEPTED, &json!(3)), "{made}");
    cloud.copy().await;
    assert_eq!(cloud.status(P1, made["volume"]["id"].as_str().unwrap()).await, "available");
}

#[tokio::test]
async fn a_record_comes_back_and_finds_its_content() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let id = cloud.whole_backup(json!({"volume_id": volume})).await;
    let path = format!("/backups/{id}/export_record");
    assert_eq!(cloud.call(P1, Method::GET, &path, Value::Null).await.0, StatusCode::FORBIDDEN);
    let record = cloud.get(ADMIN, &path).await["backup-record"].clone();
    let import = async |record: Value| {
        cloud.call(ADMIN, Method::POST, "/backups/import_record", json!({"backup-record": record})).await
    };
    assert_eq!(import(record.clone()).await.0, StatusCode::BAD_REQUEST, "it is there already");
    let bad = json!({"backup_service": record["backup_service"], "backup_url": "bm90aGluZw=="});
    assert_eq!(import(bad).await.0, StatusCode::BAD_REQUEST);
    // As after the loss of all that is known of it.
    let store = &cloud.svc.store;
    store.delete_record::<Backup>(&id).await.unwrap();
    store.delete_record::<BackupSpec>(&id).await.unwrap();
    store.delete_record::<BackupStatus>(&id).await.unwrap();
    let (status, made) = import(record).await;
    assert_eq!((status, &made["backup"]["id"]), (StatusCode::CREATED, &json!(id)), "{made}");
    assert_eq!(cloud.get(ADMIN, &format!("/backups/{id}")).await["backup"]["status"], "creating");
    cloud.copy().await;
    assert_eq!(cloud.get(ADMIN, &format!("/backups/{id}")).await["backup"]["status"], "available");
}

#[tokio::test]
async fn a_backups_texts_change_and_its_status_is_reset_by_administrators() {
    let cloud = Cloud::new().await;
    let volume = cloud.volume(P1, json!({"size": 1})).await;
    let id = cloud.whole_backup(json!({"volume_id": volume})).await;
    let path = format!("/v3/backups/{id}");
    let update = json!({"backup": {"name": "n", "metadata": {"a": "b"}}});
    let (_, changed) = cloud.call_at("3.43", P1, Method::PUT, &path, update).await;
    assert_eq!((&changed["backup"]["name"], &changed["backup"]["metadata"]["a"]), (&json!("n"), &json!("b")));
    let reset = json!({"os-reset_status": {"status": "error"}});
    let act = format!("/backups/{id}/action");
    assert_eq!(cloud.call(P1, Method::POST, &act, reset.clone()).await.0, StatusCode::FORBIDDEN);
    assert_eq!(cloud.call(ADMIN, Method::POST, &act, reset).await.0, StatusCode::ACCEPTED);
    assert_eq!(cloud.shown_backup(&id).await["status"], "error");
    let listed = cloud.get(P1, "/backups/detail?status=error").await;
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1);
}
