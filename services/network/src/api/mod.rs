//! Neutron's API v2.0: a file per resource on one shared machinery.
//!
//! [`attrs`] takes a request's attributes, [`resource`] says what a resource is, [`crud`] and [`tags`] serve it,
//! [`listing`] filters and sorts. Handlers hold no state and decide nothing: that is [`crate::logic`]'s.

pub mod address_scopes;
pub mod agents;
pub mod attrs;
pub mod crud;
pub mod discovery;
pub mod floating_ips;
pub mod listing;
pub mod networks;
pub mod port_attrs;
pub mod port_view;
pub mod ports;
pub mod quotas;
pub mod resource;
pub mod router_actions;
pub mod routers;
pub mod security_groups;
pub mod security_rules;
pub mod subnet_pools;
pub mod subnets;
pub mod tags;

use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use cairn_gateway::ApiError;

use crate::model;
use crate::service::Service;

/// Everything below `/network`.
pub fn router() -> Router<Arc<Service>> {
    Router::new()
        .merge(discovery::routes())
        .merge(crud::routes::<model::Network>().merge(tags::routes::<model::Network>()))
        .merge(crud::routes::<model::Subnet>().merge(tags::routes::<model::Subnet>()))
        .merge(crud::routes::<model::Port>().merge(tags::routes::<model::Port>()))
        .merge(crud::routes::<model::Router>().merge(tags::routes::<model::Router>()))
        .merge(router_actions::routes())
        .merge(crud::routes::<model::FloatingIp>().merge(tags::routes::<model::FloatingIp>()))
        .merge(crud::routes::<model::SecurityGroup>().merge(tags::routes::<model::SecurityGroup>()))
        .merge(crud::routes::<model::SecurityGroupRule>())
        .merge(crud::routes::<model::SubnetPool>().merge(tags::routes::<model::SubnetPool>()))
        .merge(crud::routes::<model::AddressScope>())
        .merge(quotas::routes())
        .merge(agents::routes())
        .fallback(unknown)
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::new(http::StatusCode::NOT_FOUND, format!("The resource {} could not be found.", uri.path()))
}
