//! Server groups: how servers are to be spread over hosts.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body, Query};
use cairn_state::Tx;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Routes;
use super::ask::{Ask, Svc, empty};
use super::create_body::text;
use super::form::{self, integer, invalid};
use crate::model::{Server, ServerGroup};
use crate::quota;

/// The routes.
pub fn routes() -> Routes {
    Router::new()
        .route("/os-server-groups", routing::get(list).post(create))
        .route("/os-server-groups/{id}", routing::get(show).delete(delete))
}

fn body(tx: &mut Tx, group: &ServerGroup, ask: &Ask) -> ApiResult<Value> {
    let mut members = tx.by_index::<Server>("group", &group.id)?;
    members.retain(|s| !s.deleted);
    let members: Vec<_> = members.into_iter().map(|s| s.id).collect();
    let mut out = json!({"id": group.id, "name": group.name, "members": members});
    if ask.mv.since(13) {
        out["project_id"] = json!(group.project_id);
        out["user_id"] = json!(group.user_id);
    }
    if ask.mv.since(64) {
        out["policy"] = json!(group.policy);
        out["rules"] = match group.max_server_per_host {
            Some(max) => json!({"max_server_per_host": max}),
            None => json!({}),
        };
    } else {
        out["policies"] = json!([group.policy]);
        out["metadata"] = json!({});
    }
    Ok(out)
}

async fn list(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    let number = |key: &str| match query.get(key) {
        None => Ok(None),
        Some(text) => {
            text.parse::<usize>().map(Some).map_err(|_| invalid(key, text, "is not a number of at least 0"))
        }
    };
    let (limit, offset) = (number("limit")?.unwrap_or(1000).min(1000), number("offset")?.unwrap_or(0));
    svc.store.read(|tx| {
        let everybody = ask.caller.is_admin() && query.0.iter().any(|(k, _)| k == "all_projects");
        let groups = match everybody {
            true => tx.list_unfenced::<ServerGroup>()?,
            false => tx.by_index::<ServerGroup>("project", ask.caller.require_project()?)?,
        };
        let page = groups.iter().skip(offset).take(limit);
        let shown = page.map(|g| body(tx, g, &ask)).collect::<ApiResult<Vec<_>>>()?;
        Ok(Json(json!({"server_groups": shown})))
    })
}

fn find(tx: &mut Tx, ask: &Ask, id: &str) -> ApiResult<ServerGroup> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("Instance group {id} could not be found."));
    tx.get::<ServerGroup>(id)?.filter(|g| ask.caller.sees(&g.project_id)).ok_or_else(missing)
}

async fn show(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let group = find(tx, &ask, &id)?;
        Ok(Json(json!({"server_group": body(tx, &group, &ask)?})))
    })
}

/// The policy and its rule: a list of one before 2.64, by name since.
fn policy(f: &Map<String, Value>, ask: &Ask) -> ApiResult<(String, Option<u32>)> {
    let policy = match ask.mv.since(64) {
        true => text(f, "policy")?,
        false => match f.get("policies").and_then(Value::as_array).map(Vec::as_slice) {
            Some([only]) => only.as_str().map(str::to_owned),
            _ => None,
        },
    };
    let policy = policy.ok_or_else(|| ApiError::bad_request("A server group needs exactly one policy."))?;
    let known: &[&str] = match ask.mv.since(15) {
        true => &["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"],
        false => &["affinity", "anti-affinity"],
    };
    if !known.contains(&policy.as_str()) {
        return Err(invalid("policy", policy, &format!("is not one of {known:?}")));
    }
    let rules = f.get("rules").and_then(|r| r.get("max_server_per_host"));
    let max = rules.map(|v| integer("max_server_per_host", v, 1, 1000)).transpose()?;
    if max.is_some() && policy != "anti-affinity" {
        return Err(ApiError::bad_request("Only anti-affinity policy supports rules."));
    }
    Ok((policy, max.map(|n| n as u32)))
}

async fn create(State(svc): Svc, ask: Ask, Body(json): Body<Value>) -> ApiResult<Json<Value>> {
    let project_id = ask.caller.require_writer()?.to_owned();
    let f = form::object(&json, "server_group")?;
    let known: &[&str] = if ask.mv.since(64) { &["name", "policy", "rules"] } else { &["name", "policies"] };
    form::only(f.keys(), |k| known.contains(&k))?;
    let (policy, max_server_per_host) = policy(f, &ask)?;
    let name = text(f, "name")?.ok_or_else(|| ApiError::bad_request("'name' is a required property"))?;
    let group = ServerGroup {
        id: uuid::Uuid::new_v4().to_string(),
        project_id,
        user_id: ask.caller.user_id.clone(),
        name: form::name("name", &name)?,
        policy,
        max_server_per_host,
        created: Timestamp::now(),
    };
    svc.store
        .transact(|tx| {
            let have = tx.by_index::<ServerGroup>("project", &group.project_id)?.len();
            quota::admit_one(tx, &group.project_id, "server_groups", have)?;
            tx.put(&group)?;
            Ok(Json(json!({"server_group": body(tx, &group, &ask)?})))
        })
        .await
}

async fn delete(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Response> {
    svc.store
        .transact(|tx| {
            let group = find(tx, &ask, &id)?;
            ask.caller.require_writer()?;
            // Its members stay where they are, and are in no group then.
            for mut member in tx.by_index::<Server>("group", &group.id)? {
                member.group = None;
                tx.put(&member)?;
            }
            tx.delete::<ServerGroup>(&group.id)?;
            Ok::<_, ApiError>(())
        })
        .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
