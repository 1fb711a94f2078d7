//! The proxies of security groups that the API had before 2.36: the network service does the work, in its own
//! rules; here its groups are shown and asked for in Nova's words.

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Json, Router, routing};
use cairn_gateway::{ApiError, ApiResult, Body, Page, Query};
use cairn_network::api::attrs::Attrs;
use cairn_network::api::resource::{self, Ctx, Resource};
use cairn_network::model::{Direction, SecurityGroup, SecurityGroupRule};
use cairn_state::Tx;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Routes;
use super::ask::{Ask, Svc, empty};
use super::form::{self, invalid};

/// The last microversion that has these.
const GONE: u32 = 36;

/// The routes of groups and of rules.
pub fn routes() -> Routes {
    Router::new()
        .route("/os-security-groups", routing::get(list).post(create))
        .route("/os-security-groups/{id}", routing::get(show).put(update).delete(delete))
        .route("/os-security-group-rules", routing::post(create_rule))
        .route("/os-security-group-rules/{id}", routing::delete(delete_rule))
}

/// A group in Nova's words: only rules towards the port, which is all that Nova ever had.
pub fn shown(tx: &mut Tx, group: &SecurityGroup) -> ApiResult<Value> {
    let mut rules = Vec::new();
    for rule in tx.by_index::<SecurityGroupRule>("group", &group.id)? {
        if rule.direction == Direction::Ingress {
            rules.push(shown_rule(tx, &rule)?);
        }
    }
    Ok(json!({
        "id": group.id, "name": group.name, "tenant_id": group.project_id, "description": group.description,
        "rules": rules,
    }))
}

fn shown_rule(tx: &mut Tx, rule: &SecurityGroupRule) -> ApiResult<Value> {
    let remote = match &rule.remote_group_id {
        Some(id) => tx.get::<SecurityGroup>(id)?,
        None => None,
    };
    let all = rule.protocol.is_some() && rule.port_range_min.is_none();
    let port = |p: Option<u16>| if all { json!(-1) } else { json!(p) };
    let group = remote.map(|g| json!({"name": g.name, "tenant_id": g.project_id}));
    let cidr = rule.remote_ip_prefix.map(|p| json!({"cidr": p.to_string()}));
    let anywhere = group.is_none().then(|| json!({"cidr": "0.0.0.0/0"}));
    Ok(json!({
        "id": rule.id, "parent_group_id": rule.security_group_id, "ip_protocol": rule.protocol,
        "from_port": port(rule.port_range_min), "to_port": port(rule.port_range_max),
        "group": group.unwrap_or_else(|| json!({})),
        "ip_range": cidr.or(anywhere).unwrap_or_else(|| json!({})),
    }))
}

fn ctx(ask: &Ask) -> Ctx<'_> {
    Ctx { caller: &ask.caller, now: Timestamp::now() }
}

fn attrs<R: Resource>(value: Value) -> ApiResult<Attrs> {
    Attrs::new(value, R::NAME, R::READ_ONLY)
}

/// The network service's refusals, as Nova tells them: over quota is 403, and so on.
fn told(e: ApiError) -> ApiError {
    match e.code {
        "OverQuota" => ApiError::forbidden(e.message),
        "SecurityGroupRuleExists" => ApiError::bad_request(e.message),
        // Nova knows an invalid request, not a conflict, for a group that is in use.
        "SecurityGroupInUse" | "SecurityGroupCannotRemoveDefault" => ApiError::bad_request(e.message),
        _ => ApiError::new(e.status, e.message),
    }
}

async fn list(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    ask.mv.removed_since(GONE)?;
    // Listing makes the project's default group, as in the network service.
    let none = Query::default();
    if svc.store.read(|tx| SecurityGroup::unprepared(tx, &ask.caller, &none))? {
        svc.store.transact(|tx| SecurityGroup::prepare(tx, ctx(&ask))).await?;
    }
    svc.store.read(|tx| {
        let everybody = ask.caller.is_admin() && query.flag("all_tenants")?.unwrap_or(false);
        let groups = match everybody {
            true => tx.list_unfenced::<SecurityGroup>()?,
            false => tx.by_index::<SecurityGroup>("project", &ask.caller.project_id)?,
        };
        let page = Page::cut(groups, &query, |g| &g.id)?;
        let shown = page.items.iter().map(|g| shown(tx, g)).collect::<ApiResult<Vec<_>>>()?;
        Ok(Json(json!({"security_groups": shown})))
    })
}

fn find(tx: &mut Tx, ask: &Ask, id: &str) -> ApiResult<SecurityGroup> {
    if uuid::Uuid::parse_str(id).is_err() {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("Security group {id} not found.")));
    }
    resource::find::<SecurityGroup>(tx, &ask.caller, id).map_err(told)
}

async fn show(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    ask.mv.removed_since(GONE)?;
    svc.store.read(|tx| {
        let group = find(tx, &ask, &id)?;
        Ok(Json(json!({"security_group": shown(tx, &group)?})))
    })
}

/// The name and description of a body; both must be there and have up to 255 characters.
fn named(body: &Value) -> ApiResult<Value> {
    let f = form::inner(body, "security_group")?;
    let text = |key: &str| match f.get(key).and_then(Value::as_str) {
        Some(s) if s.chars().count() <= 255 => Ok(s.to_owned()),
        _ => Err(invalid(key, f, "is not a text of up to 255 characters")),
    };
    let (name, description) = (text("name")?, text("description")?);
    if name.trim().is_empty() {
        return Err(invalid("name", name, "is too short"));
    }
    Ok(json!({"name": name, "description": description}))
}

async fn create(State(svc): Svc, ask: Ask, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    ask.mv.removed_since(GONE)?;
    ask.caller.require_writer()?;
    let wanted = named(&body)?;
    svc.store
        .transact(|tx| {
            let mut attrs = attrs::<SecurityGroup>(wanted.clone())?;
            let group = SecurityGroup::create(tx, ctx(&ask), &mut attrs).map_err(told)?;
            Ok(Json(json!({"security_group": shown(tx, &group)?})))
        })
        .await
}

async fn update(
    State(svc): Svc,
    ask: Ask,
    Path(id): Path<String>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Value>> {
    ask.mv.removed_since(GONE)?;
    let wanted = named(&body)?;
    svc.store
        .transact(|tx| {
            let mut group = find(tx, &ask, &id)?;
            ask.caller.require_writer()?;
            let mut attrs = attrs::<SecurityGroup>(wanted.clone())?;
            group.stamp.touch(Timestamp::now());
            let group = group.update(tx, ctx(&ask), &mut attrs).map_err(told)?;
            Ok(Json(json!({"security_group": shown(tx, &group)?})))
        })
        .await
}

async fn delete(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Response> {
    ask.mv.removed_since(GONE)?;
    svc.store
        .transact(|tx| {
            let group = find(tx, &ask, &id)?;
            ask.caller.require_writer()?;
            group.remove(tx, ctx(&ask)).map_err(told)
        })
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// A rule in the network service's words.
fn rule(body: &Value) -> ApiResult<(String, Value)> {
    let f = form::inner(body, "security_group_rule")?;
    let parent = match f.get("parent_group_id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(n)) => n.to_string(),
        other => return Err(invalid("parent_group_id", json!(other), "is not valid")),
    };
    if uuid::Uuid::parse_str(&parent).is_err() {
        return Err(ApiError::bad_request(format!("Security group id {parent} is not a UUID.")));
    }
    let protocol = f.get("ip_protocol").and_then(Value::as_str).map(str::to_ascii_lowercase);
    if let Some(p) = protocol.as_deref().filter(|p| !["tcp", "udp", "icmp"].contains(p)) {
        return Err(ApiError::bad_request(format!("Invalid IP protocol {p}")));
    }
    let mut wanted = json!({"security_group_id": parent, "direction": "ingress", "ethertype": "IPv4"});
    if let Some(protocol) = protocol {
        let port = |key: &str| form::integer(key, f.get(key).unwrap_or(&Value::Null), -1, 65_535);
        let (from, to) = (port("from_port")?, port("to_port")?);
        wanted["protocol"] = json!(protocol);
        if (from, to) != (-1, -1) {
            if from > to && protocol != "icmp" || from < 0 {
                return Err(ApiError::bad_request(format!("Invalid port range {from}:{to}.")));
            }
            wanted["port_range_min"] = json!(from);
            if to >= 0 {
                wanted["port_range_max"] = json!(to);
            }
        }
    }
    match (f.get("group_id").and_then(Value::as_str), f.get("cidr").and_then(Value::as_str)) {
        (Some(group), _) => wanted["remote_group_id"] = json!(group),
        (None, Some(cidr)) => wanted["remote_ip_prefix"] = json!(cidr),
        (None, None) => wanted["remote_ip_prefix"] = json!("0.0.0.0/0"),
    }
    Ok((parent, wanted))
}

async fn create_rule(State(svc): Svc, ask: Ask, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    ask.mv.removed_since(GONE)?;
    ask.caller.require_writer()?;
    let (parent, wanted) = rule(&body)?;
    svc.store
        .transact(|tx| {
            find(tx, &ask, &parent)?;
            let mut attrs = attrs::<SecurityGroupRule>(wanted.clone())?;
            let rule = SecurityGroupRule::create(tx, ctx(&ask), &mut attrs).map_err(told)?;
            attrs.finish()?;
            Ok(Json(json!({"security_group_rule": shown_rule(tx, &rule)?})))
        })
        .await
}

async fn delete_rule(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Response> {
    ask.mv.removed_since(GONE)?;
    svc.store
        .transact(|tx| {
            let rule = resource::find_own::<SecurityGroupRule>(tx, &ask.caller, &id).map_err(told)?;
            rule.remove(tx, ctx(&ask)).map_err(told)
        })
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}
