//! `/allocation_candidates`: which nodes could take a request. For administrators.
//!
//! Every node is one flat provider, so all the groups of a request (`resources`, `resources1`, ...) must fit
//! the same node together; a request that wants its groups isolated from each other finds none.

use axum::Json;
use axum::extract::State;
use cairn_gateway::{ApiError, ApiResult, Caller, Minor, Query};
use serde_json::{Map, Value, json};

use super::{Svc, add_up, parse_resources, traits_match};
use crate::model::{Amounts, ResourceProvider};

/// `GET /allocation_candidates?resources=VCPU:1,...`
pub async fn list(State(svc): Svc, caller: Caller, minor: Minor, query: Query) -> ApiResult<Json<Value>> {
    minor.added_in(10)?;
    caller.require_admin()?;
    let groups = groups(&query)?;
    let wanted = add_up(groups.iter().map(|(_, amounts)| amounts));
    let isolated = query.get("group_policy") == Some("isolate") && groups.len() > 1;
    let limit = query.parse::<usize>("limit")?.unwrap_or(usize::MAX);
    if limit == 0 {
        return Err(ApiError::bad_request("Invalid query string parameters: limit must be positive."));
    }
    let all = svc.store.read(|tx| tx.list_unfenced::<ResourceProvider>())?;
    let fit: Vec<_> = all
        .iter()
        .filter(|_| !isolated)
        .filter(|p| query.get("in_tree").is_none_or(|t| t == p.uuid))
        .filter(|_| query.all("member_of").all(|m| m.starts_with('!')))
        .filter(|p| p.misfit(&wanted).is_none())
        .filter(|p| {
            groups.iter().all(|(suffix, _)| traits_match(&query, &format!("required{suffix}"), &p.traits))
        })
        .take(limit)
        .collect();
    let requests: Vec<_> = fit.iter().map(|p| request_view(p, &wanted, minor)).collect();
    let summaries: Map<_, _> =
        fit.iter().map(|p| (p.uuid.clone(), summary_view(p, &wanted, minor))).collect();
    Ok(Json(json!({"allocation_requests": requests, "provider_summaries": summaries})))
}

/// The request's groups: the suffix (empty, `1`, `2`...) and the amounts.
fn groups(query: &Query) -> ApiResult<Vec<(String, Amounts)>> {
    let mut groups = Vec::new();
    for (key, value) in &query.0 {
        let Some(suffix) = key.strip_prefix("resources") else { continue };
        if !suffix.chars().all(|c| c.is_ascii_digit()) {
            return Err(ApiError::bad_request(format!("Invalid query string parameter {key}.")));
        }
        groups.push((suffix.to_owned(), parse_resources(value)?));
    }
    if groups.is_empty() {
        return Err(ApiError::bad_request(
            "Invalid query string parameters: 'resources' is a required property.",
        ));
    }
    let numbered = groups.iter().filter(|(suffix, _)| !suffix.is_empty()).count();
    if numbered > 1 && query.get("group_policy").is_none() {
        return Err(ApiError::bad_request("The \"group_policy\" parameter is required with several groups."));
    }
    Ok(groups)
}

fn request_view(p: &ResourceProvider, wanted: &Amounts, minor: Minor) -> Value {
    if minor.since(12) {
        return json!({"allocations": {p.uuid.as_str(): {"resources": wanted}}});
    }
    json!({"allocations": [{"resource_provider": {"uuid": p.uuid}, "resources": wanted}]})
}

fn summary_view(p: &ResourceProvider, wanted: &Amounts, minor: Minor) -> Value {
    let resources: Map<_, _> = p
        .inventories
        .iter()
        .filter(|(class, _)| minor.since(27) || wanted.contains_key(*class))
        .map(|(class, row)| {
            let used = p.used.get(class).copied().unwrap_or(0);
            (class.clone(), json!({"capacity": row.capacity(), "used": used}))
        })
        .collect();
    let mut body = json!({"resources": resources});
    if minor.since(17) {
        body["traits"] = json!(p.traits);
    }
    if minor.since(29) {
        body["parent_provider_uuid"] = Value::Null;
        body["root_provider_uuid"] = json!(p.uuid);
    }
    body
}
