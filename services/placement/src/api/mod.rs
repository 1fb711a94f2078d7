//! The Placement API, `/placement`: routes, and what its resources share.
//!
//! Providers are nodes: they are written by the compute service, so this API reads them only. Traits and
//! resource classes of one's own are not built (their routes answer 405).

mod allocations;
mod candidates;
mod names;
mod providers;
mod version;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use cairn_gateway::{ApiError, Query};

use crate::Service;
use crate::model::Amounts;

/// The state of every handler.
pub type Svc = axum::extract::State<Arc<Service>>;

/// The routes, below `/placement`.
pub fn router(svc: Arc<Service>) -> Router {
    let routes = Router::new()
        .route("/", get(version::document))
        .route("/resource_providers", get(providers::list))
        .route("/resource_providers/{id}", get(providers::show))
        .route("/resource_providers/{id}/inventories", get(providers::inventories))
        .route("/resource_providers/{id}/inventories/{class}", get(providers::inventory))
        .route("/resource_providers/{id}/usages", get(providers::usages))
        .route("/resource_providers/{id}/allocations", get(providers::allocations))
        .route("/resource_providers/{id}/traits", get(providers::traits))
        .route("/resource_providers/{id}/aggregates", get(providers::aggregates))
        .route("/allocation_candidates", get(candidates::list))
        .route("/allocations", axum::routing::post(allocations::set_many))
        .route(
            "/allocations/{consumer}",
            get(allocations::show).put(allocations::set).delete(allocations::delete),
        )
        .route("/usages", get(allocations::usages))
        .route("/traits", get(names::traits))
        .route("/traits/{name}", get(names::show_trait))
        .route("/resource_classes", get(names::classes))
        .route("/resource_classes/{name}", get(names::show_class))
        .layer(from_fn(version::date))
        .with_state(svc);
    version::SPOKEN.around(routes)
}

/// Reads `VCPU:2,MEMORY_MB:512`.
fn parse_resources(text: &str) -> Result<Amounts, ApiError> {
    let bad =
        || ApiError::bad_request(format!("Badly formed resources parameter '{text}': want CLASS:AMOUNT."));
    let mut amounts = Amounts::new();
    for pair in text.split(',') {
        let (class, amount) = pair.split_once(':').ok_or_else(bad)?;
        let amount = amount.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(bad)?;
        require_class(class)?;
        amounts.insert(class.to_owned(), amount);
    }
    Ok(amounts)
}

fn require_class(class: &str) -> Result<(), ApiError> {
    if crate::model::STANDARD_CLASSES.contains(&class) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("Invalid resource class '{class}': No such resource class.")))
}

/// The traits a query asks for: `A,B` must be there, `!C` must not, `in:D,E` one of them must.
fn traits_match(query: &Query, key: &str, has: &std::collections::BTreeSet<String>) -> bool {
    query.all(key).all(|text| match text.strip_prefix("in:") {
        Some(any) => any.split(',').any(|t| has.contains(t)),
        None => text.split(',').all(|t| match t.strip_prefix('!') {
            Some(absent) => !has.contains(absent),
            None => has.contains(t),
        }),
    })
}

/// Adds amounts up, class by class.
fn add_up<'a>(all: impl Iterator<Item = &'a Amounts>) -> Amounts {
    let mut sum = BTreeMap::new();
    for (class, amount) in all.flatten() {
        *sum.entry(class.clone()).or_insert(0) += amount;
    }
    sum
}

#[cfg(test)]
mod tests;
