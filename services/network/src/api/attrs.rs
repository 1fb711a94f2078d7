//! The attributes of a request body, taken one by one with Neutron's conversions; what is left over is refused.
//!
//! Pure parsing: no store. It must never let an attribute pass that nobody took.

use std::net::IpAddr;
use std::str::FromStr;

use cairn_gateway::{ApiError, ApiResult};
use ipnet::IpNet;
use serde_json::{Map, Value};

/// The longest name or description, in characters.
const TEXT_MAX: usize = 255;

/// The attributes that every resource shows, and takes from nobody (but the project, of a new one).
const SHOWN_BY_ALL: [&str; 6] =
    ["id", "project_id", "tenant_id", "created_at", "updated_at", "revision_number"];

/// What a client gave for one resource.
#[derive(Debug, Clone)]
pub struct Attrs {
    map: Map<String, Value>,
    readable: &'static [&'static str],
}

impl Attrs {
    /// The attributes in `{"NAME": {...}}`'s inner object. `readable` are those that the resource
    /// shows but doesn't take, beside those of every resource, so that such a one is told from an unknown one.
    pub fn new(value: Value, name: &str, readable: &'static [&'static str]) -> ApiResult<Attrs> {
        match value {
            Value::Object(map) => Ok(Attrs { map, readable }),
            _ => Err(ApiError::bad_request(format!("Unable to find '{name}' in request body"))),
        }
    }

    /// Whether the attribute is given, be it as null.
    pub fn given(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Takes an attribute as it is.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key)
    }

    /// Takes a text of at most 255 characters.
    pub fn text(&mut self, key: &str) -> ApiResult<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(s)) if s.chars().count() <= TEXT_MAX => Ok(Some(s)),
            Some(Value::String(_)) => Err(invalid(key, "it exceeds 255 characters")),
            Some(other) => Err(invalid(key, &format!("'{other}' is not a valid string"))),
        }
    }

    /// Takes a text that must be given.
    pub fn required(&mut self, key: &str) -> ApiResult<String> {
        self.text(key)?.ok_or_else(|| {
            ApiError::bad_request(format!(
                "Failed to parse request. Required attribute '{key}' not specified"
            ))
        })
    }

    /// Takes a text or null: `Some(None)` is a null that was given.
    pub fn nullable(&mut self, key: &str) -> ApiResult<Option<Option<String>>> {
        if matches!(self.map.get(key), Some(Value::Null)) {
            self.map.remove(key);
            return Ok(Some(None));
        }
        Ok(self.text(key)?.map(Some))
    }

    /// Takes a boolean, in any of the forms Neutron takes.
    pub fn flag(&mut self, key: &str) -> ApiResult<Option<bool>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        as_flag(&value)
            .map(Some)
            .ok_or_else(|| invalid(key, &format!("'{value}' cannot be converted to boolean")))
    }

    /// Takes a whole number between `min` and `max`, or null.
    pub fn number(&mut self, key: &str, min: i64, max: i64) -> ApiResult<Option<Option<i64>>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        if value.is_null() {
            return Ok(Some(None));
        }
        match as_number(&value) {
            Some(n) if (min..=max).contains(&n) => Ok(Some(Some(n))),
            Some(n) => Err(invalid(key, &format!("'{n}' is not between {min} and {max}"))),
            None => Err(invalid(key, &format!("'{value}' is not an integer"))),
        }
    }

    /// Takes a list; null is an empty one.
    pub fn list(&mut self, key: &str) -> ApiResult<Option<Vec<Value>>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(Vec::new())),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(invalid(key, &format!("'{other}' is not a list"))),
        }
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, key: &str) -> ApiResult<Option<Vec<String>>> {
        let Some(items) = self.list(key)? else { return Ok(None) };
        let text = |v: Value| match v {
            Value::String(s) => Ok(s),
            other => Err(invalid(key, &format!("'{other}' is not a valid string"))),
        };
        items.into_iter().map(text).collect::<ApiResult<_>>().map(Some)
    }

    /// Takes a text and parses it; null and the empty text are `Some(None)`.
    pub fn parsed<T: FromStr>(&mut self, key: &str, what: &str) -> ApiResult<Option<Option<T>>> {
        match self.nullable(key)? {
            None => Ok(None),
            Some(None) => Ok(Some(None)),
            Some(Some(s)) if s.is_empty() => Ok(Some(None)),
            Some(Some(s)) => parse(key, &s, what).map(|v| Some(Some(v))),
        }
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> ApiResult<()> {
        let Some(first) = self.map.keys().next() else { return Ok(()) };
        if self.readable.iter().chain(&SHOWN_BY_ALL).any(|known| known == first) {
            return Err(ApiError::bad_request(format!("Cannot set or update read-only attribute {first}")));
        }
        let all = self.map.keys().cloned().collect::<Vec<_>>().join(", ");
        Err(ApiError::bad_request(format!("Unrecognized attribute(s) '{all}'")))
    }
}

/// 400: an attribute's value is wrong.
pub fn invalid(key: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid input for {key}. Reason: {why}."))
}

/// Parses an attribute's text; `what` names the type to a person.
pub fn parse<T: FromStr>(key: &str, text: &str, what: &str) -> ApiResult<T> {
    text.parse().map_err(|_| invalid(key, &format!("'{text}' is not a valid {what}")))
}

/// An IP address in an object's field.
pub fn address_in(object: &Map<String, Value>, field: &str, key: &str) -> ApiResult<IpAddr> {
    parse(key, text_in(object, field, key)?, "IP address")
}

/// A prefix in an object's field, cut to its length; a bare address is a prefix of itself.
pub fn prefix_in(object: &Map<String, Value>, field: &str, key: &str) -> ApiResult<IpNet> {
    parse_prefix(key, text_in(object, field, key)?)
}

fn text_in<'a>(object: &'a Map<String, Value>, field: &str, key: &str) -> ApiResult<&'a str> {
    object.get(field).and_then(Value::as_str).ok_or_else(|| invalid(key, &format!("it lacks {field}")))
}

/// A prefix, cut to its length; a bare address is a prefix of itself.
pub fn parse_prefix(key: &str, text: &str) -> ApiResult<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    Ok(parse::<IpNet>(key, text, "IP subnet")?.trunc())
}

/// An object in a list, with no other fields than these.
pub fn object<'a>(value: &'a Value, key: &str, fields: &[&str]) -> ApiResult<&'a Map<String, Value>> {
    let object = value.as_object().ok_or_else(|| invalid(key, &format!("'{value}' is not a dictionary")))?;
    match object.keys().find(|k| !fields.contains(&k.as_str())) {
        Some(unknown) => Err(invalid(key, &format!("'{unknown}' is not expected"))),
        None => Ok(object),
    }
}

/// A boolean in any of the forms Neutron takes.
pub fn as_flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) if n.as_i64() == Some(1) => Some(true),
        Value::Number(n) if n.as_i64() == Some(0) => Some(false),
        Value::String(s) => match s.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number, also as text.
pub fn as_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attrs(value: Value) -> Attrs {
        Attrs::new(value, "thing", &["status"]).unwrap()
    }

    #[test]
    fn what_nobody_took_is_refused_by_name() {
        let mut a = attrs(json!({"name": "n", "colour": "red"}));
        assert_eq!(a.text("name").unwrap().as_deref(), Some("n"));
        assert!(a.finish().unwrap_err().message.contains("Unrecognized attribute(s) 'colour'"));
        let read_only = attrs(json!({"status": "ACTIVE"})).finish().unwrap_err();
        assert!(read_only.message.contains("read-only attribute status"));
    }

    #[test]
    fn types_are_checked() {
        let mut a = attrs(json!({"name": null, "up": "True", "n": "12", "list": null, "ip": "10.0.0.300"}));
        assert!(a.text("name").is_err());
        assert_eq!(a.flag("up").unwrap(), Some(true));
        assert_eq!(a.number("n", 0, 20).unwrap(), Some(Some(12)));
        assert_eq!(a.list("list").unwrap(), Some(vec![]));
        assert!(a.parsed::<IpAddr>("ip", "IP address").is_err());
    }

    #[test]
    fn prefixes_are_cut() {
        assert_eq!(parse_prefix("cidr", "10.0.0.5/24").unwrap().to_string(), "10.0.0.0/24");
        assert_eq!(parse_prefix("cidr", "10.0.0.5").unwrap().to_string(), "10.0.0.5/32");
        for bad in ["192.168.1./24", "192.168.1.1/33", "bad_prefix", "256"] {
            assert!(parse_prefix("cidr", bad).is_err(), "{bad}");
        }
    }
}
