//! Filters, sorting and field selection over shown resources, as Neutron's query strings ask for them.
//!
//! Pure: works on what is shown, so that every attribute that is shown can be filtered and sorted by.

use std::cmp::Ordering;

use cairn_gateway::{ApiError, ApiResult, Query};
use serde_json::Value;

use super::resource::View;

/// Parameters that aren't filters.
const CONTROLS: [&str; 6] = ["fields", "limit", "marker", "sort_key", "sort_dir", "page_reverse"];

/// Whether a resource passes all filters. An attribute that it doesn't have filters nothing.
pub fn matches(view: &View, query: &Query) -> bool {
    let keys = query.0.iter().map(|(k, _)| k.as_str()).filter(|k| !CONTROLS.contains(k));
    keys.into_iter().all(|key| {
        let values: Vec<&str> = query.all(key).collect();
        match key {
            "tags" => words(&values).all(|w| has_tag(view, w)),
            "tags-any" => words(&values).any(|w| has_tag(view, w)),
            "not-tags" => !words(&values).all(|w| has_tag(view, w)),
            "not-tags-any" => !words(&values).any(|w| has_tag(view, w)),
            _ => view.get(key).is_none_or(|have| value_matches(have, &values)),
        }
    })
}

fn words<'a>(values: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    values.iter().flat_map(|v| v.split(','))
}

fn has_tag(view: &View, tag: &str) -> bool {
    view.get("tags").and_then(Value::as_array).is_some_and(|tags| tags.iter().any(|t| t == tag))
}

fn value_matches(have: &Value, values: &[&str]) -> bool {
    match have {
        Value::Array(items)
            if items.iter().any(Value::is_object) || values.iter().any(|v| v.contains('=')) =>
        {
            objects_match(items, values)
        }
        Value::Array(items) => values.iter().any(|v| items.iter().any(|i| scalar_matches(i, v))),
        Value::Object(_) => true,
        scalar => values.iter().any(|v| scalar_matches(scalar, v)),
    }
}

/// `fixed_ips=ip_address=10.0.0.3&fixed_ips=subnet_id=...`: some entry has, for each field named, one of the values
/// named for it.
fn objects_match(items: &[Value], values: &[&str]) -> bool {
    let wanted: Vec<(&str, &str)> = values.iter().filter_map(|v| v.split_once('=')).collect();
    items.iter().any(|item| {
        wanted.iter().all(|(field, _)| {
            wanted.iter().filter(|(f, _)| f == field).any(|(_, value)| field_matches(item, field, value))
        })
    })
}

fn field_matches(item: &Value, field: &str, value: &str) -> bool {
    match field.strip_suffix("_substr") {
        Some(field) => item.get(field).and_then(Value::as_str).is_some_and(|s| s.contains(value)),
        None => item.get(field).is_some_and(|have| scalar_matches(have, value)),
    }
}

fn scalar_matches(have: &Value, text: &str) -> bool {
    match have {
        Value::Null => text.is_empty(),
        Value::Bool(b) => super::attrs::as_flag(&Value::String(text.into())) == Some(*b),
        Value::Number(n) => n.to_string() == text,
        Value::String(s) => s == text,
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// Orders by `sort_key`/`sort_dir`, given in pairs; without them the order stays.
pub fn sort(views: &mut [View], query: &Query) -> ApiResult<()> {
    let keys: Vec<&str> = query.all("sort_key").collect();
    let mut directions = Vec::new();
    for direction in query.all("sort_dir") {
        directions.push(match direction {
            "asc" => false,
            "desc" => true,
            other => {
                return Err(ApiError::bad_request(format!("sort_dir is asc or desc, not '{other}'")));
            }
        });
    }
    if !directions.is_empty() && directions.len() != keys.len() {
        return Err(ApiError::bad_request("The number of sort_keys and sort_dirs must be same"));
    }
    directions.resize(keys.len(), false);
    if let Some(bad) = keys.iter().find(|k| views.first().is_some_and(|v| !v.contains_key(**k))) {
        return Err(ApiError::bad_request(format!("[{bad}] is invalid attribute for sort_keys")));
    }
    views.sort_by(|a, b| {
        keys.iter().zip(&directions).fold(Ordering::Equal, |so_far, (key, descending)| {
            so_far.then_with(|| {
                let order = compare(a.get(*key), b.get(*key));
                if *descending { order.reverse() } else { order }
            })
        })
    });
    Ok(())
}

fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_i64().cmp(&b.as_i64()),
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (a, b) => a.map(Value::to_string).cmp(&b.map(Value::to_string)),
    }
}

/// Keeps only the `fields` that are asked for, if any are.
pub fn select(view: View, query: &Query) -> View {
    if query.get("fields").is_none_or(str::is_empty) {
        return view;
    }
    view.into_iter().filter(|(k, _)| query.all("fields").any(|f| f == k)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(value: Value) -> View {
        value.as_object().cloned().unwrap()
    }

    fn query(pairs: &[(&str, &str)]) -> Query {
        Query(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
    }

    #[test]
    fn filters_by_any_attribute() {
        let port = view(json!({
            "name": "a", "admin_state_up": true, "router:external": false, "mtu": 1450, "tags": ["x", "y"],
            "security_groups": ["g1"], "fixed_ips": [{"subnet_id": "s", "ip_address": "10.0.0.3"}],
        }));
        for yes in [
            query(&[("name", "b"), ("name", "a")]),
            query(&[("admin_state_up", "True"), ("router:external", "false"), ("mtu", "1450")]),
            query(&[("security_groups", "g1")]),
            query(&[("fixed_ips", "ip_address=10.0.0.3"), ("fixed_ips", "subnet_id=s")]),
            query(&[("fixed_ips", "ip_address=10.0.0.4"), ("fixed_ips", "ip_address=10.0.0.3")]),
            query(&[("fixed_ips", "ip_address_substr=0.0.3")]),
            query(&[("tags", "x,y"), ("not-tags-any", "z")]),
            query(&[("unknown", "1"), ("limit", "5")]),
        ] {
            assert!(matches(&port, &yes), "{yes:?}");
        }
        for no in [
            query(&[("name", "b")]),
            query(&[("admin_state_up", "0")]),
            query(&[("fixed_ips", "ip_address=10.0.0.3"), ("fixed_ips", "subnet_id=t")]),
            query(&[("tags", "x,z")]),
            query(&[("not-tags", "x,y")]),
        ] {
            assert!(!matches(&port, &no), "{no:?}");
        }
    }

    #[test]
    fn sorts_and_selects() {
        let mut views = vec![view(json!({"n": "b", "v": 1})), view(json!({"n": "a", "v": 10}))];
        sort(&mut views, &query(&[("sort_key", "v"), ("sort_dir", "desc")])).unwrap();
        assert_eq!(views[0]["n"], "a");
        sort(&mut views, &query(&[("sort_key", "n"), ("sort_dir", "desc")])).unwrap();
        assert_eq!(views[0]["n"], "b");
        assert!(sort(&mut views, &query(&[("sort_key", "zz")])).is_err());
        let only = select(views.remove(0), &query(&[("fields", "n")]));
        assert_eq!(Value::Object(only), json!({"n": "b"}));
    }
}
