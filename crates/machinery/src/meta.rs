//! Reads and writes the `metadata` of an object held as a [`Value`].
//!
//! Reads never fail: a field of the wrong type reads as absent.

use crate::{Map, Value};

/// Returns `metadata.name`; empty if absent.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// Returns `metadata.namespace`; empty if absent.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// Returns `metadata.uid`; empty if absent.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// Returns `metadata.resourceVersion`; empty if absent.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// Returns `metadata.generateName`; empty if absent.
pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}

/// Returns `metadata.generation`; 0 if absent.
pub fn generation(object: &Value) -> i64 {
    field(object, "generation").and_then(Value::as_i64).unwrap_or(0)
}

/// Returns `metadata.deletionTimestamp`, if the object is being deleted.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    field(object, "deletionTimestamp").and_then(Value::as_str)
}

/// Returns `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = field(object, "finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Returns `metadata.labels`.
pub fn labels(object: &Value) -> Option<&Map> {
    field(object, "labels").and_then(Value::as_object)
}

/// Returns the label `key`.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

/// Returns the annotation `key`.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    field(object, "annotations")?.get(key)?.as_str()
}

/// Returns a field of `metadata`; `null` reads as absent.
pub fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(name).filter(|value| !value.is_null())
}

/// Returns `apiVersion`; empty if absent.
pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// Returns `kind`; empty if absent.
pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// Returns the value at a path of field names.
pub fn value_at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

/// Returns the string at a path of field names.
pub fn str_at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a str> {
    value_at(object, path)?.as_str()
}

/// Sets a field of `metadata`. Does nothing if the value is not an object.
pub fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert(field.to_owned(), value);
    }
}

/// Removes a field of `metadata`.
pub fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(field)
}

/// Returns `metadata`, created if absent; `None` if the value is not an object.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut()
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    field(object, name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_of_the_wrong_type_reads_as_absent() {
        for object in
            [json!({}), json!(null), json!([]), json!({"metadata": 3}), json!({"metadata": {"name": null}})]
        {
            assert_eq!(name(&object), "");
            assert!(finalizers(&object).is_empty());
        }
    }

    #[test]
    fn set_creates_the_metadata() {
        let mut object = json!({});
        set(&mut object, "name", json!("x"));
        assert_eq!(name(&object), "x");
        assert_eq!(remove(&mut object, "name"), Some(json!("x")));
        assert_eq!(object, json!({"metadata": {}}));
    }
}
