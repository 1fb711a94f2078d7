//! The wire: Keystone's v3 API, a file per resource. Handlers check who asks, change the store in one transaction,
//! and show the result; what follows from a change is decided elsewhere.

mod access_rules;
mod application_credentials;
mod ask;
mod assignments;
mod attrs;
mod auth;
mod credentials;
mod domains;
mod ec2;
mod endpoints;
mod grants;
mod groups;
mod inference;
mod policies;
mod projects;
mod regions;
mod resource;
mod roles;
mod services;
mod tags;
mod tokens;
mod trusts;
mod users;
mod versions;
mod wire;

use std::sync::Arc;

use axum::Router;
use cairn_gateway::{ErrorStyle, Mount, mount::BODY_MAX};

use crate::service::Service;

/// What handlers are given.
type Svc = axum::extract::State<Arc<Service>>;

/// Identity under the gateway.
pub fn mount(svc: &Arc<Service>) -> Mount {
    let v3 = Router::new()
        .merge(access_rules::routes())
        .merge(application_credentials::routes())
        .merge(assignments::routes())
        .merge(auth::routes())
        .merge(credentials::routes())
        .merge(domains::routes())
        .merge(ec2::routes())
        .merge(endpoints::routes())
        .merge(grants::routes())
        .merge(groups::routes())
        .merge(inference::routes())
        .merge(policies::routes())
        .merge(projects::routes())
        .merge(regions::routes())
        .merge(roles::routes())
        .merge(services::routes())
        .merge(tags::routes())
        .merge(tokens::routes())
        .merge(trusts::routes())
        .merge(users::routes());
    let router = Router::new().merge(versions::routes()).nest("/v3", v3).with_state(svc.clone());
    Mount { prefix: "/identity", style: ErrorStyle::Keystone, router, body_max: BODY_MAX }
}
