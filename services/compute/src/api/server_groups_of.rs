//! The security groups of one server: shown, and changed by the actions addSecurityGroup and removeSecurityGroup.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use cairn_gateway::{ApiError, ApiResult};
use cairn_network::model::{Port, SecurityGroup};
use cairn_state::Tx;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ask::{Ask, Svc, empty, own_server, server};
use super::form::invalid;
use super::security_groups;
use crate::{Service, actions, nics};

/// GET /servers/{id}/os-security-groups
pub async fn list(State(svc): Svc, ask: Ask, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let found = server(tx, &ask.caller, &id)?;
        let mut ids: Vec<String> = Vec::new();
        for port in nics::ports(tx, &found)? {
            let new = port.security_groups.into_iter().filter(|g| !ids.contains(g)).collect::<Vec<_>>();
            ids.extend(new);
        }
        let mut groups = Vec::new();
        for id in ids {
            if let Some(group) = tx.get::<SecurityGroup>(&id)? {
                groups.push(security_groups::shown(tx, &group)?);
            }
        }
        Ok(Json(json!({"security_groups": groups})))
    })
}

/// The actions, which concern every port of the server.
pub async fn change(svc: &Service, ask: &Ask, id: &str, argument: &Value, add: bool) -> ApiResult<Response> {
    let name = argument.get("name").and_then(Value::as_str).filter(|n| !n.trim().is_empty());
    let name = name.ok_or_else(|| invalid("name", argument, "is not a security group's name"))?;
    let actor = ask.actor();
    svc.store
        .transact(|tx| {
            let found = own_server(tx, &ask.caller, id)?;
            let group = group(tx, ask, name)?;
            let ports: Vec<Port> = nics::ports(tx, &found)?.into_iter().filter(|p| p.port_security).collect();
            if !add && !ports.iter().any(|p| p.security_groups.contains(&group)) {
                let why = format!("Security group {name} not associated with the instance {id}");
                return Err(ApiError::new(StatusCode::NOT_FOUND, why));
            }
            for mut port in ports {
                port.security_groups.retain(|g| *g != group);
                if add {
                    port.security_groups.push(group.clone());
                }
                port.stamp.touch(Timestamp::now());
                tx.put(&port)?;
            }
            actions::done(tx, &found, &actor, if add { "addSecurityGroup" } else { "removeSecurityGroup" })?;
            Ok(())
        })
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// The group with this name or id.
fn group(tx: &mut Tx, ask: &Ask, name: &str) -> ApiResult<String> {
    let own = tx.by_index::<SecurityGroup>("project", &ask.caller.project_id)?;
    let mut found = own.into_iter().filter(|g| g.id == name || g.name == name);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.id),
        (None, _) => Err(ApiError::new(StatusCode::NOT_FOUND, format!("Security group {name} not found."))),
        _ => Err(ApiError::conflict(format!("Multiple security groups found matching '{name}'. Use an ID."))),
    }
}
