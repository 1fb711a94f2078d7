//! What a restricted application credential may be used for: method and path of one service, or nothing.

use cairn_gateway::ApiError;
use cairn_state::LocalStore;
use http::Method;

use crate::model::{AccessRule, Endpoint, Service};
use crate::validate::Validated;

/// Whether the token may be used for this request. Only tokens with access rules are ever refused.
pub fn allows(
    store: &LocalStore,
    validated: &Validated,
    method: &Method,
    path: &str,
) -> Result<bool, ApiError> {
    let Some((_, rules)) =
        validated.application_credential.as_ref().filter(|(c, _)| !c.access_rules.is_empty())
    else {
        return Ok(true);
    };
    let (prefix, rest) = split(path);
    let matching: Vec<&AccessRule> =
        rules.iter().filter(|r| method.as_str() == r.method && matches(&r.path, rest)).collect();
    if matching.is_empty() {
        return Ok(false);
    }
    let types = store.read(|tx| types_at(tx, prefix))?;
    Ok(matching.iter().any(|r| types.contains(&r.service)))
}

/// The types of the services whose endpoints are under this prefix. Both kinds are small.
fn types_at(tx: &mut cairn_state::Tx, prefix: &str) -> Result<Vec<String>, ApiError> {
    let here = tx.list_unfenced::<Endpoint>()?.into_iter().filter(|e| split(&e.url).0 == prefix);
    let ids: Vec<String> = here.map(|e| e.service_id).collect();
    let services = tx.list_unfenced::<Service>()?;
    Ok(services.into_iter().filter(|s| ids.contains(&s.id)).map(|s| s.kind).collect())
}

/// `/compute/v2.1/servers` is `compute`, and `/v2.1/servers` below it.
fn split(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or("");
    match path.find('/') {
        Some(at) => path.split_at(at),
        None => (path, "/"),
    }
}

/// Whether a path fits a rule's pattern: `*` and `{name}` stand for one element, `**` for the rest.
fn matches(pattern: &str, path: &str) -> bool {
    let mut wanted = pattern.trim_end_matches('/').split('/');
    let mut given = path.trim_end_matches('/').split('/');
    loop {
        match (wanted.next(), given.next()) {
            (Some("**"), _) => return true,
            (None, None) => return true,
            (Some(w), Some(g)) if w == g || w == "*" || (w.starts_with('{') && w.ends_with('}')) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_elements() {
        assert!(matches("/v2.1/servers", "/v2.1/servers/"));
        assert!(matches("/v2.1/servers/*", "/v2.1/servers/7"));
        assert!(matches("/v2.1/servers/{id}/ips", "/v2.1/servers/7/ips"));
        assert!(matches("/v2.1/**", "/v2.1/a/b/c"));
        assert!(!matches("/v2.1/servers/*", "/v2.1/servers/7/ips"));
        assert!(!matches("/v2.1/servers", "/v2.1/serversx"));
    }

    #[test]
    fn the_service_is_the_first_element() {
        assert_eq!(split("/compute/v2.1/servers"), ("compute", "/v2.1/servers"));
        assert_eq!(split("/network"), ("network", "/"));
    }
}
