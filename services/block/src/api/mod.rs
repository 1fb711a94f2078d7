//! The Block Storage API, `/volume`: routes, and what its resources share.
//!
//! Paths work with and without the project's id (`/v3/PROJECT/volumes`, `/v3/volumes`). Not built: volumes of encrypted
//! types, volumes for several servers, clusters; what there is no route for answers 404, actions 400.

mod actions;
mod attachments;
mod backup_records;
mod backups;
mod context;
mod encryption;
mod entry;
mod group_snapshots;
mod group_types;
mod groups;
mod info;
mod input;
mod listing;
mod manage;
mod messages;
mod metadata;
mod migrate;
mod pools;
mod qos;
mod quotas;
mod services;
mod since;
mod snapshots;
mod specs;
mod transfers;
mod types;
mod version;
mod view;
mod volumes;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post, put};

use self::since::since;
use crate::Service;
use crate::model::{GroupType, Snapshot, Volume, VolumeType};

/// The state of every handler.
pub(crate) type Svc = axum::extract::State<Arc<Service>>;

/// The routes, below `/volume`.
pub fn router(svc: Arc<Service>) -> Router {
    let resources = volume_routes()
        .merge(snapshot_routes())
        .merge(transfer_routes())
        .merge(backup_routes())
        .merge(manage_routes())
        .merge(group_routes())
        .merge(message_routes())
        .merge(type_routes())
        .merge(other_routes())
        .with_state(svc);
    let v3 = Router::new()
        .route("/", get(version::show))
        .fallback(entry::enter)
        .with_state(entry::Inner(version::SPOKEN.around(resources)));
    Router::new().route("/", get(version::list)).nest_service("/v3", v3)
}

fn volume_routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/volumes", get(volumes::list).post(volumes::create))
        .route("/volumes/detail", get(volumes::list_detail))
        .route("/volumes/summary", get(volumes::summary))
        .route("/volumes/{id}", get(volumes::show).put(volumes::update).delete(volumes::delete))
        .route("/volumes/{id}/action", post(actions::act))
        .route("/volumes/{id}/encryption", get(encryption::show_of_volume))
        .route("/volumes/{id}/encryption/{key}", get(encryption::item_of_volume))
        .merge(metadata::routes::<Volume>())
        .route("/attachments", get(attachments::list))
        .route("/attachments/detail", get(attachments::list_detail))
        .route("/attachments/{id}", get(attachments::show).delete(attachments::delete))
}

fn snapshot_routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/snapshots", get(snapshots::list).post(snapshots::create))
        .route("/snapshots/detail", get(snapshots::list_detail))
        .route("/snapshots/{id}", get(snapshots::show).put(snapshots::update).delete(snapshots::delete))
        .route("/snapshots/{id}/action", post(snapshots::act))
        .merge(metadata::routes::<Snapshot>())
}

fn transfer_routes() -> Router<Arc<Service>> {
    let under = |name: &str| {
        Router::new()
            .route(&format!("/{name}"), get(transfers::list).post(transfers::create))
            .route(&format!("/{name}/detail"), get(transfers::list_detail))
            .route(&format!("/{name}/{{id}}"), get(transfers::show).delete(transfers::delete))
            .route(&format!("/{name}/{{id}}/accept"), post(transfers::accept))
    };
    under("os-volume-transfer").merge(since(55, under("volume-transfers")))
}

fn backup_routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/backups", get(backups::list).post(backups::create))
        .route("/backups/detail", get(backups::list_detail))
        .route("/backups/import_record", post(backup_records::import))
        .route("/backups/{id}", get(backups::show).put(backups::update).delete(backups::delete))
        .route("/backups/{id}/export_record", get(backup_records::export))
        .route("/backups/{id}/restore", post(backups::restore))
        .route("/backups/{id}/action", post(backups::act))
}

fn manage_routes() -> Router<Arc<Service>> {
    let later = Router::new()
        .route("/manageable_volumes", get(manage::list_volumes).post(manage::volume))
        .route("/manageable_volumes/detail", get(manage::list_volumes_detail))
        .route("/manageable_snapshots", get(manage::list_snapshots).post(manage::snapshot))
        .route("/manageable_snapshots/detail", get(manage::list_snapshots_detail));
    Router::new()
        .route("/os-volume-manage", get(manage::list_volumes).post(manage::volume))
        .route("/os-volume-manage/detail", get(manage::list_volumes_detail))
        .route("/os-snapshot-manage", get(manage::list_snapshots).post(manage::snapshot))
        .route("/os-snapshot-manage/detail", get(manage::list_snapshots_detail))
        .merge(since(8, later))
}

fn group_routes() -> Router<Arc<Service>> {
    let types = Router::new()
        .route("/group_types", get(group_types::list).post(group_types::create))
        .route(
            "/group_types/{id}",
            get(group_types::show).put(group_types::update).delete(group_types::delete),
        )
        .merge(specs::routes::<GroupType>("/group_types"));
    let groups = Router::new()
        .route("/groups", get(groups::list).post(groups::create))
        .route("/groups/detail", get(groups::list_detail))
        .route("/groups/{id}", get(groups::show).put(groups::update))
        .route("/groups/{id}/action", post(groups::act));
    let snapshots = Router::new()
        .route("/groups/action", post(groups::create_from))
        .route("/group_snapshots", get(group_snapshots::list).post(group_snapshots::create))
        .route("/group_snapshots/detail", get(group_snapshots::list_detail))
        .route("/group_snapshots/{id}", get(group_snapshots::show).delete(group_snapshots::delete))
        .route("/group_snapshots/{id}/action", post(group_snapshots::act));
    since(11, types).merge(since(13, groups)).merge(since(14, snapshots))
}

fn message_routes() -> Router<Arc<Service>> {
    let routes = Router::new()
        .route("/messages", get(messages::list))
        .route("/messages/{id}", get(messages::show).delete(messages::delete));
    since(3, routes)
}

fn type_routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/types", get(types::list).post(types::create))
        .route("/types/{id}", get(types::show).put(types::update).delete(types::delete))
        .route("/types/{id}/action", post(types::act))
        .route("/types/{id}/os-volume-type-access", get(types::access))
        .route("/types/{id}/encryption", get(encryption::show).post(encryption::create))
        .route(
            "/types/{id}/encryption/{key}",
            get(encryption::item).put(encryption::update).delete(encryption::delete),
        )
        .merge(specs::routes::<VolumeType>("/types"))
        .route("/qos-specs", get(qos::list).post(qos::create))
        .route("/qos-specs/{id}", get(qos::show).put(qos::update).delete(qos::delete))
        .route("/qos-specs/{id}/delete_keys", put(qos::delete_keys))
        .route("/qos-specs/{id}/associations", get(qos::associations))
        .route("/qos-specs/{id}/associate", get(qos::associate))
        .route("/qos-specs/{id}/disassociate", get(qos::part))
        .route("/qos-specs/{id}/disassociate_all", get(qos::part_from_all))
}

fn other_routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/limits", get(quotas::limits))
        .route("/os-quota-sets/{project}", get(quotas::show).put(quotas::update).delete(quotas::delete))
        .route("/os-quota-sets/{project}/defaults", get(quotas::defaults))
        .route("/os-quota-class-sets/{class}", get(quotas::show_class).put(quotas::update_class))
        .route("/os-availability-zone", get(info::zones))
        .route("/extensions", get(info::extensions))
        .route("/os-services", get(services::list))
        .route("/os-services/enable", put(services::enable))
        .route("/os-services/disable", put(services::disable))
        .route("/os-services/disable-log-reason", put(services::disable_for))
        .route("/os-services/freeze", put(services::freeze))
        .route("/os-services/thaw", put(services::thaw))
        .route("/os-hosts", get(services::hosts))
        .route("/os-hosts/{host}", get(services::show_host))
        .route("/scheduler-stats/get_pools", get(pools::list))
        .route("/capabilities/{host}", get(pools::capabilities))
}

#[cfg(test)]
mod tests;
