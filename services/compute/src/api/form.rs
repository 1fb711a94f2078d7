//! The small forms that all answers share: times, links, ids of hosts, and checks of common fields.

use cairn_gateway::{ApiError, ApiResult, BaseUrl};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha224};

/// A time to the second, as `2026-01-31T12:00:00Z`.
pub fn seconds(t: Timestamp) -> String {
    t.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time to the microsecond without a zone (which is UTC), as older parts of the API have it.
pub fn micros(t: Timestamp) -> String {
    t.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}

/// Reads a time in any of the forms clients send; one without a zone is UTC.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    // A plus sign that a client did not escape has become a space.
    let text = text.trim().replace(' ', "+");
    let zoned = text.parse::<Timestamp>().ok();
    zoned.or_else(|| {
        let local = text.parse::<jiff::civil::DateTime>().ok()?;
        local.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp())
    })
}

/// The links `self` and `bookmark` of a resource, as `servers` and its id.
pub fn links(base: &BaseUrl, collection: &str, id: &str) -> Value {
    json!([
        {"rel": "self", "href": format!("{}/compute/v2.1/{collection}/{id}", base.0)},
        bookmark(base, collection, id),
    ])
}

/// The link `bookmark` of a resource.
pub fn bookmark(base: &BaseUrl, collection: &str, id: &str) -> Value {
    json!({"rel": "bookmark", "href": format!("{}/compute/{collection}/{id}", base.0)})
}

/// The link to the next page of a list.
pub fn next_link(base: &BaseUrl, path: &str, query: &cairn_gateway::Query, marker: &str) -> Value {
    let kept = query.0.iter().filter(|(k, _)| k != "marker").map(|(k, v)| (k.as_str(), v.as_str()));
    let text: Vec<_> =
        kept.chain([("marker", marker)]).map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
    json!([{"rel": "next", "href": format!("{}/compute/v2.1/{path}?{}", base.0, text.join("&"))}])
}

fn escape(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~:".contains(&b);
    text.bytes().map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What a project sees instead of a host's name: the same for all its servers there, and telling nothing.
pub fn host_id(project_id: &str, host: Option<&str>) -> String {
    match host {
        None => String::new(),
        Some(host) => hex(&Sha224::digest(format!("{project_id}{host}").as_bytes())),
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A UUID in its usual form; 400 if it is none.
pub fn uuid(what: &str, text: &str) -> ApiResult<String> {
    match uuid::Uuid::parse_str(text) {
        Ok(id) if text.len() >= 32 => Ok(id.to_string()),
        _ => Err(invalid(what, text, "is not a 'uuid'")),
    }
}

/// 400 in the words that Nova's schema check has.
pub fn invalid(attribute: &str, value: impl std::fmt::Display, why: &str) -> ApiError {
    let value: String = value.to_string().chars().take(100).collect();
    ApiError::bad_request(format!(
        "Invalid input for field/attribute {attribute}. Value: {value}. '{value}' {why}"
    ))
}

/// A name: 1 to 255 characters, none of them a control character, no space at either end.
pub fn name(attribute: &str, text: &str) -> ApiResult<String> {
    let length = text.chars().count();
    if length == 0 || text.trim().is_empty() {
        return Err(invalid(attribute, text, "is too short"));
    }
    if length > 255 {
        return Err(invalid(attribute, text, "is too long"));
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err(invalid(attribute, text, "does not match the allowed pattern"));
    }
    Ok(text.to_owned())
}

/// The key of a metadata item, an extra specification or a hint.
pub fn is_key(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_:. ".contains(c);
    !text.is_empty() && text.len() <= 255 && text.chars().all(allowed)
}

/// The object under the only key of a body.
pub fn inner<'a>(body: &'a Value, key: &str) -> ApiResult<&'a Value> {
    match body.as_object() {
        Some(map) if map.len() == 1 => map.get(key),
        _ => None,
    }
    .ok_or_else(|| {
        ApiError::bad_request(format!("The request body must be an object with the one key '{key}'."))
    })
}

/// The fields of the object under the only key of a body.
pub fn object<'a>(body: &'a Value, key: &str) -> ApiResult<&'a Map<String, Value>> {
    let value = inner(body, key)?;
    value.as_object().ok_or_else(|| invalid(key, value, "is not of type 'object'"))
}

/// 400 for a key that nobody knows.
pub fn unexpected(key: &str) -> ApiError {
    ApiError::bad_request(format!("Additional properties are not allowed ('{key}' was unexpected)"))
}

/// 400 for the first key that is not known.
pub fn only<'a>(keys: impl IntoIterator<Item = &'a String>, known: impl Fn(&str) -> bool) -> ApiResult<()> {
    match keys.into_iter().find(|k| !known(k)) {
        Some(other) => Err(unexpected(other)),
        None => Ok(()),
    }
}

/// Metadata of a user's: keys and values of at most 255 characters, values text.
pub fn metadata(value: &Value) -> ApiResult<std::collections::BTreeMap<String, String>> {
    let map = value.as_object().ok_or_else(|| invalid("metadata", value, "is not of type 'object'"))?;
    map.iter()
        .map(|(k, v)| {
            if !is_key(k) {
                return Err(invalid("metadata", k, "is not a valid metadata key"));
            }
            match v.as_str() {
                Some(v) if v.chars().count() <= 255 => Ok((k.clone(), v.to_owned())),
                Some(v) => Err(invalid(k, v, "is too long")),
                None => Err(invalid(k, v, "is not of type 'string'")),
            }
        })
        .collect()
}

/// A number, which older clients send as text.
pub fn integer(attribute: &str, value: &Value, min: i64, max: i64) -> ApiResult<i64> {
    let number = match value {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    number
        .filter(|n| (min..=max).contains(n))
        .ok_or_else(|| invalid(attribute, value, &format!("is not an integer from {min} to {max}")))
}

/// A boolean, which older clients send as text.
pub fn boolean(attribute: &str, value: &Value) -> ApiResult<bool> {
    match value {
        Value::Bool(b) => return Ok(*b),
        Value::String(s) => match s.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" | "yes" => return Ok(true),
            "false" | "off" | "0" | "no" => return Ok(false),
            _ => {}
        },
        _ => {}
    }
    Err(invalid(attribute, value, "is not of type 'boolean'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_forms_clients_send() {
        let t = parse_time("2026-01-31T12:00:00Z").unwrap();
        assert_eq!(parse_time("2026-01-31T12:00:00"), Some(t));
        assert_eq!(parse_time("2026-01-31T13:00:00+01:00"), Some(t));
        assert_eq!(parse_time("2026-01-31T13:00:00 01:00"), Some(t));
        assert_eq!(parse_time("yesterday"), None);
        assert_eq!(
            (seconds(t), micros(t)),
            ("2026-01-31T12:00:00Z".into(), "2026-01-31T12:00:00.000000".into())
        );
    }

    #[test]
    fn the_next_page_keeps_the_query() {
        let query = cairn_gateway::Query(vec![("limit".into(), "2".into()), ("name".into(), "a b&c".into())]);
        let link = next_link(&BaseUrl("https://x".into()), "servers", &query, "m1");
        assert_eq!(link[0]["href"], "https://x/compute/v2.1/servers?limit=2&name=a%20b%26c&marker=m1");
    }

    #[test]
    fn names_and_keys() {
        assert!(name("name", "a name").is_ok() && name("name", "héllo\u{1F600}").is_ok());
        for bad in ["", " ", " a", "a ", "a\n", &"x".repeat(256)] {
            assert_eq!(name("name", bad).unwrap_err().status.as_u16(), 400, "{bad:?}");
        }
        assert!(is_key("a-B_1:. ") && !is_key("") && !is_key("a/b") && !is_key(&"x".repeat(256)));
        assert!(uuid("id", "abc").is_err());
        assert_eq!(host_id("p", None), "");
        assert_eq!(host_id("p", Some("h")).len(), 56);
    }
}
