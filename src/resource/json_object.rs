//! Fields that hold a JSON object.

use crate::entity::JsonText;
use crate::error::{ApiError, ErrorCode};
use crate::json::{self, Bounds, Fault};
use serde_json::Value;
use serde_json::value::RawValue;

/// How many members of objects and items of arrays a JSON field may have, all together.
const JSON_VALUES_MAX: usize = 1000;

/// Checks the JSON object of a field: `max` bytes at most, and nothing that the database would not return as it was sent.
pub(crate) fn json_object(field: &str, text: &RawValue, max: u32) -> Result<JsonText, ApiError> {
    let error =
        |code, what: String| Err(ApiError::detailed(code, format!("{field}: {what}")).of_field(field.to_owned()));
    if text.get().len() as u64 > u64::from(max) {
        return error(ErrorCode::InvalidInput, format!("it has more than {max} bytes (MAX_METADATA_BYTES)"));
    }
    match json::parse(text, Bounds { values: JSON_VALUES_MAX, exact_numbers: true }) {
        // PostgreSQL's jsonb has no place for U+0000 (postgresql.org/docs/current/datatype-json.html).
        Ok(metadata) if contains_nul(&metadata) => {
            error(ErrorCode::InvalidInput, "it must not contain the character U+0000".to_owned())
        }
        Ok(metadata @ Value::Object(_)) => JsonText::new(&metadata).map_err(|error| ApiError::internal(&error)),
        Ok(_) => error(ErrorCode::InvalidInput, "it must be an object".to_owned()),
        Err(fault @ Fault::NotJson(_)) => error(ErrorCode::BadFormat, fault.to_string()),
        Err(fault) => error(ErrorCode::InvalidInput, fault.to_string()),
    }
}

fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || contains_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
