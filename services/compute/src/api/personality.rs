//! Files to be injected into a new server, which the API had before 2.57. They are checked as ever, and then
//! honestly refused: nothing here writes into a user's disk.

use base64::Engine as _;
use cairn_gateway::{ApiError, ApiResult};
use serde_json::Value;

use super::form::invalid;

/// How many files a server may be given by quota.
const FILES_MAX: usize = 5;

/// Refuses what is malformed or too much as Nova does, and anything else as not built. An empty list is fine.
pub fn check(value: &Value) -> ApiResult<()> {
    let files = value.as_array().ok_or_else(|| invalid("personality", value, "is not of type 'array'"))?;
    for file in files {
        let contents = file.get("contents").and_then(Value::as_str).unwrap_or_default();
        let path = file.get("path").and_then(Value::as_str).unwrap_or_default();
        if path.is_empty() || base64::engine::general_purpose::STANDARD.decode(contents).is_err() {
            return Err(invalid("personality", contents, "is not a 'base64'"));
        }
    }
    if files.len() > FILES_MAX {
        return Err(ApiError::forbidden("Quota exceeded, too many injected files."));
    }
    match files.is_empty() {
        true => Ok(()),
        false => Err(ApiError::bad_request("Files cannot be injected here; give them in user_data instead.")),
    }
}
