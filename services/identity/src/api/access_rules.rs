//! `/users/{id}/access_rules`: what restricted application credentials may be used for. They are made with the
//! credentials.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::ask::Ask;
use super::resource::{self, Delete, Managed};
use super::wire::Resource;
use crate::model::{AccessRule, ApplicationCredential, new_id};
use crate::policy;
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/users/{id}/access_rules", get(resource::list::<AccessRule>)).route(
        "/users/{id}/access_rules/{part}",
        get(resource::show::<AccessRule>).delete(resource::delete::<AccessRule>),
    )
}

impl Resource for AccessRule {
    const ONE: &'static str = "access_rule";
    const MANY: &'static str = "access_rules";

    fn path(&self) -> String {
        format!("users/{}/access_rules/{}", self.user_id, self.id)
    }

    fn view(&self) -> Value {
        json!({"id": self.id, "service": self.service, "method": self.method, "path": self.path})
    }
}

impl Managed for AccessRule {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<AccessRule>> {
        policy::require_self(&ask.caller, &ask.id)?;
        Ok(tx.by_index("user", &ask.id)?)
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<AccessRule> {
        policy::require_self(&ask.caller, &ask.id)?;
        let found = tx.get::<AccessRule>(&ask.part)?.filter(|r| r.user_id == ask.id);
        found.ok_or_else(|| ApiError::not_found("access rule:", &ask.part))
    }

    fn require_writer(ask: &Ask) -> ApiResult<()> {
        policy::require_self(&ask.caller, &ask.id)
    }
}

impl Delete for AccessRule {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        let users = tx.by_index::<ApplicationCredential>("user", &self.user_id)?;
        if users.iter().any(|c| c.access_rules.contains(&self.id)) {
            return Err(ApiError::forbidden("The access rule is in use by an application credential."));
        }
        Ok(tx.delete::<AccessRule>(&self.id).map(drop)?)
    }
}

/// The ids of the rules that are named, those made that are not there yet.
pub fn make(tx: &mut Tx, user_id: &str, wanted: &[Value]) -> ApiResult<Vec<String>> {
    let mut known = tx.by_index::<AccessRule>("user", user_id)?;
    let mut ids = Vec::new();
    for rule in wanted {
        if let Some(id) = rule["id"].as_str() {
            let found = known.iter().find(|r| r.id == id);
            ids.push(found.ok_or_else(|| ApiError::not_found("access rule:", id))?.id.clone());
            continue;
        }
        let mut new = parse(user_id, rule)?;
        let same =
            |r: &&AccessRule| (&r.service, &r.method, &r.path) == (&new.service, &new.method, &new.path);
        match known.iter().find(same) {
            Some(found) => new.id.clone_from(&found.id),
            None => {
                tx.put(&new)?;
                known.push(new.clone());
            }
        }
        ids.push(new.id);
    }
    Ok(ids)
}

fn parse(user_id: &str, rule: &Value) -> ApiResult<AccessRule> {
    let text = |key: &str| {
        let text = rule[key].as_str().filter(|t| !t.is_empty() && t.len() <= 1024).map(str::to_owned);
        text.ok_or_else(|| ApiError::bad_request(format!("An access rule needs a text '{key}'.")))
    };
    let (service, method, path) = (text("service")?, text("method")?.to_uppercase(), text("path")?);
    if !["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) || !path.starts_with('/')
    {
        return Err(ApiError::bad_request("An access rule needs an HTTP method, and a path from '/' on."));
    }
    Ok(AccessRule { id: new_id(), user_id: user_id.to_owned(), service, method, path })
}
