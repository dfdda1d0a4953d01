//! Helpers for reading objects by dotted paths.

use nave_machinery::{Map, Value, conditions};

/// Returns the value at a path.
pub(crate) fn value_at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |place, part| place.get(part))
}

/// Returns the string at a path; empty if absent.
pub(crate) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    value_at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the string at a path, or `missing` if it is absent or empty.
pub(crate) fn text_or<'a>(object: &'a Value, path: &str, missing: &'a str) -> &'a str {
    Some(text(object, path)).filter(|text| !text.is_empty()).unwrap_or(missing)
}

/// Returns the integer at a path; 0 if absent.
pub(crate) fn int(object: &Value, path: &str) -> i64 {
    value_at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

/// Returns the boolean at a path; false if absent.
pub(crate) fn flag(object: &Value, path: &str) -> bool {
    value_at(object, path).and_then(Value::as_bool).unwrap_or_default()
}

/// Returns the list at a path; empty if absent.
pub(crate) fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    value_at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns the map at a path.
pub(crate) fn map<'a>(object: &'a Value, path: &str) -> Option<&'a Map> {
    value_at(object, path).and_then(Value::as_object)
}

/// Returns the condition of this type in `status.conditions`.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions::find(object, kind)
}

/// Returns whether the condition of this type has the status `True`.
pub(crate) fn condition_is_true(object: &Value, kind: &str) -> bool {
    conditions::is_true(object, kind)
}

/// Returns whether the object has a deletion timestamp.
pub(crate) fn is_being_deleted(object: &Value) -> bool {
    value_at(object, "metadata.deletionTimestamp").is_some_and(Value::is_string)
}
