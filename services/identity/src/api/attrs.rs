//! The attributes of a request body, taken one by one with their type checked; what is left over are extras.

use cairn_gateway::{ApiError, ApiResult};
use serde_json::Value;

use crate::model::Extra;

/// The longest text of an attribute that has no limit of its own, in bytes.
const TEXT_MAX: usize = 64 << 10;
/// The longest name of most things, in characters; of projects and domains.
pub const NAME_MAX: usize = 255;
pub const SHORT_NAME_MAX: usize = 64;
/// How many extras a record may have.
const EXTRAS_MAX: usize = 100;

/// The attributes of the one object in a body.
#[derive(Clone)]
pub struct Attrs(Extra);

impl Attrs {
    /// Takes the object named `one` out of a body: `{"user": {...}}`.
    pub fn of(mut body: Value, one: &str) -> ApiResult<Attrs> {
        match body.get_mut(one).map(Value::take) {
            Some(Value::Object(map)) => Ok(Attrs(map)),
            _ => Err(ApiError::bad_request(format!("The body needs an object '{one}'."))),
        }
    }

    /// An attribute as it came; `None` if it is absent.
    pub fn value(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// A text that may be null: the outer `None` if it is absent.
    pub fn optional(&mut self, key: &str) -> ApiResult<Option<Option<String>>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(s)) if s.len() <= TEXT_MAX => Ok(Some(Some(s))),
            Some(_) => Err(bad(key, "a text")),
        }
    }

    /// A text; absent and null are the same.
    pub fn text(&mut self, key: &str) -> ApiResult<Option<String>> {
        Ok(self.optional(key)?.flatten())
    }

    /// A text that must be there, and not be empty.
    pub fn required(&mut self, key: &str) -> ApiResult<String> {
        let text = self.text(key)?.filter(|t| !t.is_empty());
        text.ok_or_else(|| ApiError::bad_request(format!("'{key}' is required.")))
    }

    /// A boolean; absent and null are the same.
    pub fn flag(&mut self, key: &str) -> ApiResult<Option<bool>> {
        match self.value(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(b)),
            Some(_) => Err(bad(key, "true or false")),
        }
    }

    /// Sets a name if it is given: 1 to `max` characters, not only blanks.
    pub fn set_name(&mut self, name: &mut String, max: usize) -> ApiResult<()> {
        match self.value("name") {
            None => Ok(()),
            Some(Value::String(s)) if !s.trim().is_empty() && s.chars().count() <= max => {
                *name = s;
                Ok(())
            }
            Some(_) => Err(bad("name", &format!("a text of 1 to {max} characters"))),
        }
    }

    /// Sets a text if it is given; null empties it.
    pub fn set_text(&mut self, key: &str, field: &mut String) -> ApiResult<()> {
        if let Some(text) = self.optional(key)? {
            *field = text.unwrap_or_default();
        }
        Ok(())
    }

    /// Sets a text if it is given; null takes it away.
    pub fn set_optional(&mut self, key: &str, field: &mut Option<String>) -> ApiResult<()> {
        if let Some(text) = self.optional(key)? {
            *field = text;
        }
        Ok(())
    }

    /// Sets a boolean if it is given.
    pub fn set_flag(&mut self, key: &str, field: &mut bool) -> ApiResult<()> {
        if let Some(flag) = self.flag(key)? {
            *field = flag;
        }
        Ok(())
    }

    /// Sets `options` if it is given.
    pub fn set_options(&mut self, field: &mut Extra) -> ApiResult<()> {
        match self.value("options") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Object(map)) => {
                *field = map;
                Ok(())
            }
            Some(_) => Err(bad("options", "an object")),
        }
    }

    /// Puts all that is left into the extras. What the API makes itself is not taken from clients.
    pub fn set_extra(mut self, extra: &mut Extra) -> ApiResult<()> {
        for own in ["id", "links"] {
            self.0.remove(own);
        }
        for (key, value) in self.0 {
            extra.insert(key, value);
        }
        if extra.len() > EXTRAS_MAX {
            return Err(ApiError::bad_request(format!("At most {EXTRAS_MAX} further attributes are kept.")));
        }
        Ok(())
    }
}

/// Refuses a new thing without a name.
pub fn require_name(name: &str) -> ApiResult<()> {
    if name.is_empty() { Err(ApiError::bad_request("'name' is required.")) } else { Ok(()) }
}

fn bad(key: &str, wanted: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid input for '{key}': it must be {wanted}."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attrs(value: Value) -> Attrs {
        Attrs::of(json!({"x": value}), "x").unwrap()
    }

    #[test]
    fn types_are_checked_and_the_rest_is_kept() {
        let mut a = attrs(json!({"enabled": false, "name": "ann", "id": "mine", "email": "a@b"}));
        let (mut enabled, mut name, mut extra) = (true, String::new(), Extra::new());
        a.set_flag("enabled", &mut enabled).unwrap();
        a.set_name(&mut name, 64).unwrap();
        a.set_extra(&mut extra).unwrap();
        assert_eq!((enabled, name.as_str()), (false, "ann"));
        assert_eq!(Value::Object(extra), json!({"email": "a@b"}));
    }

    #[test]
    fn wrong_values_are_refused() {
        assert!(Attrs::of(json!({"y": {}}), "x").is_err());
        assert!(attrs(json!({"enabled": "False"})).flag("enabled").is_err());
        for name in [json!(""), json!("  "), json!(7), json!(null), json!("a".repeat(65))] {
            assert!(attrs(json!({"name": name})).set_name(&mut String::new(), 64).is_err());
        }
    }
}
