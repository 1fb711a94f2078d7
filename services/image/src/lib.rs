//! Images: what disks are made from. OpenStack's Image API (Glance v2) at `/image`.
//!
//! An image is a record in the store; its content is a read-only volume of the storage engine with the image's
//! id, so that disks are made from it at once by cloning. Content streams between the client and the storage
//! process; it is never gathered here.
//!
//! It may touch its own records, the specs of volumes with an image's id, and the storage process's data
//! socket. It must never show an image to who may not see it, never call an image active whose content is not
//! on stable media, and never leave content behind that no record names.

pub mod access;
pub mod api;
pub mod capture;
mod conductor;
pub mod data;
pub mod model;
pub mod upload;

use std::sync::Arc;

use cairn_gateway::{ErrorStyle, Mount, mount::BODY_MAX};
use cairn_state::LocalStore;

pub use access::usable;
pub use conductor::conductor;
pub use model::Image;

use crate::data::ImageData;

/// The image service.
pub struct Service {
    /// The store.
    pub store: LocalStore,
    /// The node whose storage process `data` speaks to.
    pub node: String,
    /// Where content goes.
    pub data: Arc<dyn ImageData>,
    /// Tells this run of the process from earlier ones, whose uploads died with them.
    pub run: String,
    /// Whether a run of a controller, on whichever node, still lives.
    pub lives: Lives,
}

/// Whether a run of a controller still lives.
pub type Lives = Arc<dyn Fn(&str) -> bool + Send + Sync>;

impl Service {
    /// The service on this store, its content on `node`, reached through `data`.
    pub fn new(store: LocalStore, node: impl Into<String>, data: Arc<dyn ImageData>) -> Arc<Service> {
        let run = uuid::Uuid::new_v4().to_string();
        let own = run.clone();
        Service::among(store, node, data, run, Arc::new(move |run| run == own))
    }

    /// The same as one of several: `run` is this one, and `lives` knows of all.
    pub fn among(
        store: LocalStore,
        node: impl Into<String>,
        data: Arc<dyn ImageData>,
        run: String,
        lives: Lives,
    ) -> Arc<Service> {
        Arc::new(Service { store, node: node.into(), data, run, lives })
    }
}

/// The service's place under the endpoint.
pub fn mount(svc: &Arc<Service>) -> Mount {
    Mount {
        prefix: "/image",
        style: ErrorStyle::Glance,
        router: api::router(svc.clone()),
        body_max: BODY_MAX,
    }
}
