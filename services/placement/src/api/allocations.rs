//! `/allocations` and `/usages`: what consumers hold. For administrators, but for the usage of one's project.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_gateway::{ApiError, ApiResult, Body, Caller, Minor, Query};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Svc, add_up, require_class};
use crate::claims;
use crate::model::{Allocation, Amounts, ResourceProvider};

/// What one consumer shall hold, in either form: a map by provider (1.12 on), or a list (before).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    allocations: Shares,
    #[serde(default)]
    project_id: String,
    #[serde(default)]
    user_id: String,
    #[serde(default)]
    consumer_generation: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Shares {
    ByProvider(BTreeMap<String, Share>),
    List(Vec<ListedShare>),
}

#[derive(Debug, Clone, Deserialize)]
struct Share {
    resources: Amounts,
}

#[derive(Debug, Clone, Deserialize)]
struct ListedShare {
    resource_provider: Uuid,
    resources: Amounts,
}

#[derive(Debug, Clone, Deserialize)]
struct Uuid {
    uuid: String,
}

impl Wanted {
    /// Checks the form and turns it into the record, carrying the generation the client believes in.
    fn into_record(self, consumer: &str, Minor(minor): Minor) -> ApiResult<Allocation> {
        let amounts: BTreeMap<_, _> = match self.allocations {
            Shares::ByProvider(_) if minor < 12 => {
                return Err(ApiError::bad_request("allocations must be a list before microversion 1.12."));
            }
            Shares::List(_) if minor >= 12 => {
                return Err(ApiError::bad_request(
                    "allocations must be an object from microversion 1.12 on.",
                ));
            }
            Shares::ByProvider(map) => map.into_iter().map(|(id, share)| (id, share.resources)).collect(),
            Shares::List(list) => list.into_iter().map(|s| (s.resource_provider.uuid, s.resources)).collect(),
        };
        if minor >= 8 && (self.project_id.is_empty() || self.user_id.is_empty()) {
            return Err(ApiError::bad_request("'project_id' and 'user_id' are required properties."));
        }
        for (class, amount) in amounts.values().flatten() {
            require_class(class)?;
            if *amount == 0 {
                return Err(ApiError::bad_request(format!("The amount of {class} must be at least 1.")));
            }
        }
        Ok(Allocation {
            consumer: consumer.into(),
            generation: self.consumer_generation.unwrap_or(0),
            project_id: self.project_id,
            user_id: self.user_id,
            amounts,
        })
    }
}

/// `GET /allocations/{consumer}`; a consumer that holds nothing is no error.
pub async fn show(
    State(svc): Svc,
    caller: Caller,
    minor: Minor,
    Path(consumer): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.require_admin()?;
    svc.store.read(|tx| {
        let Some(held) = tx.get::<Allocation>(&consumer)? else {
            return Ok(Json(json!({"allocations": {}})));
        };
        let mut rows = Map::new();
        for (id, amounts) in &held.amounts {
            let generation = tx.get::<ResourceProvider>(id)?.map_or(0, |p| p.generation);
            rows.insert(id.clone(), json!({"generation": generation, "resources": amounts}));
        }
        let mut body = json!({"allocations": rows});
        if minor.since(12) {
            body["project_id"] = json!(held.project_id);
            body["user_id"] = json!(held.user_id);
        }
        if minor.since(28) {
            body["consumer_generation"] = json!(held.generation);
        }
        Ok(Json(body))
    })
}

/// `PUT /allocations/{consumer}`: makes this all it holds; 409 if it does not fit.
pub async fn set(
    State(svc): Svc,
    caller: Caller,
    minor: Minor,
    Path(consumer): Path<String>,
    Body(wanted): Body<Wanted>,
) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    replace(&State(svc), minor, [(consumer, wanted)].into()).await
}

/// `POST /allocations`: the same for several consumers, all or none.
pub async fn set_many(
    State(svc): Svc,
    caller: Caller,
    minor: Minor,
    Body(wanted): Body<BTreeMap<String, Wanted>>,
) -> ApiResult<StatusCode> {
    minor.added_in(13)?;
    caller.require_admin()?;
    replace(&State(svc), minor, wanted).await
}

async fn replace(svc: &Svc, minor: Minor, wanted: BTreeMap<String, Wanted>) -> ApiResult<StatusCode> {
    let mut records = Vec::with_capacity(wanted.len());
    for (consumer, one) in wanted {
        records.push(one.into_record(&consumer, minor)?);
    }
    svc.store
        .transact(|tx| {
            // Everything is given back first, so that shares may move between the consumers of one request.
            for record in &mut records {
                let held = tx.get::<Allocation>(&record.consumer)?.map_or(0, |a| a.generation);
                if minor.since(28) && held != record.generation {
                    return Err(ApiError::conflict("consumer generation conflict")
                        .with_code("placement.concurrent_update"));
                }
                claims::release(tx, &record.consumer)?;
            }
            for record in &records {
                if !record.amounts.is_empty() {
                    check_providers(tx, record)?;
                    claims::allocate(tx, record.clone())?;
                }
            }
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// An unknown provider in a body is the body's fault.
fn check_providers(tx: &mut cairn_state::Tx, record: &Allocation) -> ApiResult<()> {
    for id in record.amounts.keys() {
        if tx.get::<ResourceProvider>(id)?.is_none() {
            return Err(ApiError::bad_request(format!(
                "Allocation for resource provider '{id}' that does not exist."
            )));
        }
    }
    Ok(())
}

/// `DELETE /allocations/{consumer}`
pub async fn delete(State(svc): Svc, caller: Caller, Path(consumer): Path<String>) -> ApiResult<StatusCode> {
    caller.require_admin()?;
    svc.store
        .transact(|tx| {
            if tx.get::<Allocation>(&consumer)?.is_none() {
                let text = format!("No allocations for consumer '{consumer}'");
                return Err(ApiError::new(StatusCode::NOT_FOUND, text));
            }
            claims::release(tx, &consumer)?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}

/// `GET /usages?project_id=...[&user_id=...]`: what a project holds in all.
pub async fn usages(State(svc): Svc, caller: Caller, minor: Minor, query: Query) -> ApiResult<Json<Value>> {
    minor.added_in(9)?;
    let project = query
        .get("project_id")
        .filter(|p| !p.is_empty())
        .ok_or_else(|| ApiError::bad_request("'project_id' is a required property."))?;
    if !caller.sees(project) {
        return Err(ApiError::forbidden("Only the usage of one's own project may be read."));
    }
    let held = svc.store.read(|tx| tx.by_index::<Allocation>("project", project))?;
    let counted = held.iter().filter(|a| query.get("user_id").is_none_or(|u| u == a.user_id));
    Ok(Json(json!({"usages": add_up(counted.flat_map(|a| a.amounts.values()))})))
}
