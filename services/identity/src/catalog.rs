//! The catalog as a token's owner sees it: enabled endpoints of enabled services, URLs made whole.

use std::collections::BTreeMap;

use cairn_gateway::{ApiError, BaseUrl};
use cairn_state::Tx;
use serde_json::{Value, json};

use crate::model::{Endpoint, Service};

/// `catalog` of the API. Both kinds are small: some twenty records.
pub fn build(tx: &mut Tx, base: &BaseUrl, project_id: &str, user_id: &str) -> Result<Vec<Value>, ApiError> {
    let mut endpoints: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for endpoint in tx.list_unfenced::<Endpoint>()?.into_iter().filter(|e| e.enabled) {
        let Some(url) = fill(&whole(base, &endpoint.url), project_id, user_id) else { continue };
        endpoints.entry(endpoint.service_id).or_default().push(json!({
            "id": endpoint.id, "interface": endpoint.interface, "url": url,
            "region": endpoint.region_id, "region_id": endpoint.region_id,
        }));
    }
    let services = tx.list_unfenced::<Service>()?.into_iter().filter(|s| s.enabled);
    Ok(services
        .map(|s| {
            let name = s.name.clone().unwrap_or_default();
            let endpoints = endpoints.remove(&s.id).unwrap_or_default();
            json!({"id": s.id, "type": s.kind, "name": name, "endpoints": endpoints})
        })
        .collect())
}

/// An endpoint's URL: one that is only a path stands for this cloud's own endpoint, however the client calls it.
pub fn whole(base: &BaseUrl, url: &str) -> String {
    match url.starts_with('/') {
        true => format!("{}{url}", base.0),
        false => url.to_owned(),
    }
}

/// Replaces the ids in a URL; `None` if it asks for a project and there is none.
fn fill(url: &str, project_id: &str, user_id: &str) -> Option<String> {
    let mut out = url.to_owned();
    for (name, value) in [("project_id", project_id), ("tenant_id", project_id), ("user_id", user_id)] {
        for pattern in [format!("$({name})s"), format!("%({name})s")] {
            if out.contains(&pattern) {
                if value.is_empty() {
                    return None;
                }
                out = out.replace(&pattern, value);
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_made_whole_and_filled() {
        let base = BaseUrl("https://10.0.0.5".into());
        assert_eq!(whole(&base, "/compute/v2.1"), "https://10.0.0.5/compute/v2.1");
        assert_eq!(whole(&base, "http://other/x"), "http://other/x");
        assert_eq!(fill("/a/AUTH_$(project_id)s", "p", "u").unwrap(), "/a/AUTH_p");
        assert_eq!(fill("/a/%(tenant_id)s/%(user_id)s", "p", "u").unwrap(), "/a/p/u");
        assert_eq!(fill("/a/%(project_id)s", "", "u"), None);
    }
}
