//! An API object: a JSON value that is always a map.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Map, Value, meta};

/// An API object.
///
/// The value is always a map, so stages after decoding need not check this. Reads never fail: a field of the wrong type
/// reads as absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Object(Value);

/// Error of converting a value that is not a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object")]
pub struct NotAnObject;

impl Object {
    /// Returns an object without fields.
    pub fn new() -> Self {
        Self(Value::Object(Map::new()))
    }

    /// Returns the object as a value.
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// Converts the object into a value.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// Returns the fields.
    pub fn as_map(&self) -> &Map {
        match &self.0 {
            Value::Object(map) => map,
            _ => unreachable!("an object holds a map"),
        }
    }

    /// Returns the fields for modification.
    pub fn as_map_mut(&mut self) -> &mut Map {
        match &mut self.0 {
            Value::Object(map) => map,
            _ => unreachable!("an object holds a map"),
        }
    }

    /// Sets a field and returns its previous value.
    pub fn insert(&mut self, field: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.as_map_mut().insert(field.into(), value.into())
    }

    /// Removes a field and returns its value.
    pub fn remove(&mut self, field: &str) -> Option<Value> {
        self.as_map_mut().remove(field)
    }

    /// Returns a field.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// Returns a field for modification.
    pub fn get_mut(&mut self, field: &str) -> Option<&mut Value> {
        self.0.get_mut(field)
    }

    /// Returns the value at a path of field names.
    pub fn value_at(&self, path: &[&str]) -> Option<&Value> {
        meta::value_at(&self.0, path)
    }

    /// Returns the value at a path of field names for modification.
    pub fn value_at_mut(&mut self, path: &[&str]) -> Option<&mut Value> {
        path.iter().try_fold(&mut self.0, |value, name| value.get_mut(name))
    }

    /// Returns the string at a path of field names.
    pub fn str_at(&self, path: &[&str]) -> Option<&str> {
        self.value_at(path)?.as_str()
    }

    /// Returns the integer at a path of field names.
    pub fn i64_at(&self, path: &[&str]) -> Option<i64> {
        self.value_at(path)?.as_i64()
    }

    /// Returns whether the value at a path of field names is `true`.
    pub fn is_true_at(&self, path: &[&str]) -> bool {
        self.value_at(path).and_then(Value::as_bool).unwrap_or_default()
    }

    /// Returns the items of the list at a path of field names; empty if the value is not a list.
    pub fn list_at(&self, path: &[&str]) -> &[Value] {
        self.value_at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Returns the map at a path of field names.
    pub fn map_at(&self, path: &[&str]) -> Option<&Map> {
        self.value_at(path)?.as_object()
    }

    /// Returns the map at a path of field names for modification.
    pub fn map_at_mut(&mut self, path: &[&str]) -> Option<&mut Map> {
        self.value_at_mut(path)?.as_object_mut()
    }

    /// Returns `apiVersion`; empty if absent.
    pub fn api_version(&self) -> &str {
        meta::api_version(&self.0)
    }

    /// Returns `kind`; empty if absent.
    pub fn kind(&self) -> &str {
        meta::kind(&self.0)
    }

    /// Returns `metadata.name`; empty if absent.
    pub fn name(&self) -> &str {
        meta::name(&self.0)
    }

    /// Returns `metadata.generateName`; empty if absent.
    pub fn generate_name(&self) -> &str {
        meta::generate_name(&self.0)
    }

    /// Returns `metadata.namespace`; empty if absent.
    pub fn namespace(&self) -> &str {
        meta::namespace(&self.0)
    }

    /// Returns `metadata.uid`; empty if absent.
    pub fn uid(&self) -> &str {
        meta::uid(&self.0)
    }

    /// Returns `metadata.resourceVersion`; empty if absent.
    pub fn resource_version(&self) -> &str {
        meta::resource_version(&self.0)
    }

    /// Returns `metadata.generation`; 0 if absent.
    pub fn generation(&self) -> i64 {
        meta::generation(&self.0)
    }

    /// Returns `metadata.creationTimestamp`.
    pub fn creation_timestamp(&self) -> Option<&str> {
        meta::field(&self.0, "creationTimestamp").and_then(Value::as_str)
    }

    /// Returns `metadata.deletionTimestamp`, if the object is being deleted.
    pub fn deletion_timestamp(&self) -> Option<&str> {
        meta::deletion_timestamp(&self.0)
    }

    /// Returns `metadata.labels`.
    pub fn labels(&self) -> Option<&Map> {
        meta::labels(&self.0)
    }

    /// Returns the value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        meta::label(&self.0, key)
    }

    /// Returns `metadata.annotations`.
    pub fn annotations(&self) -> Option<&Map> {
        meta::field(&self.0, "annotations").and_then(Value::as_object)
    }

    /// Returns the value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        meta::annotation(&self.0, key)
    }

    /// Returns `metadata.finalizers`.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.list_at(&["metadata", "finalizers"]).iter().filter_map(Value::as_str)
    }

    /// Returns `metadata.ownerReferences`.
    pub fn owner_references(&self) -> &[Value] {
        self.list_at(&["metadata", "ownerReferences"])
    }

    /// Returns `metadata`.
    pub fn metadata(&self) -> Option<&Map> {
        self.get("metadata").and_then(Value::as_object)
    }

    /// Returns `metadata`, created if absent.
    pub fn metadata_mut(&mut self) -> &mut Map {
        map_entry(self.as_map_mut(), "metadata")
    }

    /// Returns the map in a field of `metadata` (`labels`, `annotations`), created if absent.
    pub fn metadata_map_mut(&mut self, field: &str) -> &mut Map {
        map_entry(self.metadata_mut(), field)
    }

    /// Returns the map in a field (`spec`, `status`), created if absent.
    pub fn map_mut(&mut self, field: &str) -> &mut Map {
        map_entry(self.as_map_mut(), field)
    }
}

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl TryFrom<Value> for Object {
    type Error = NotAnObject;

    fn try_from(value: Value) -> Result<Self, NotAnObject> {
        if value.is_object() { Ok(Self(value)) } else { Err(NotAnObject) }
    }
}

impl From<Map> for Object {
    fn from(map: Map) -> Self {
        Self(Value::Object(map))
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        object.0
    }
}

impl AsRef<Value> for Object {
    fn as_ref(&self) -> &Value {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::from)
    }
}

/// Returns the map in a field, created if absent. Replaces a value that is not a map.
fn map_entry<'a>(map: &'a mut Map, field: &str) -> &'a mut Map {
    if !map.get(field).is_some_and(Value::is_object) {
        map.insert(field.to_owned(), Value::Object(Map::new()));
    }
    match map.get_mut(field) {
        Some(Value::Object(inner)) => inner,
        _ => unreachable!("the field was just set to a map"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_maps_become_objects() {
        for value in [json!(null), json!([]), json!("a"), json!(1), json!(true)] {
            assert_eq!(Object::try_from(value.clone()), Err(NotAnObject), "{value}");
            assert!(serde_json::from_value::<Object>(value).is_err());
        }
        let value = json!({"kind": "Pod", "apiVersion": "v1"});
        let object = Object::try_from(value.clone()).unwrap();
        assert_eq!((object.kind(), object.api_version()), ("Pod", "v1"));
        assert_eq!(serde_json::to_value(&object).unwrap(), value);
        assert_eq!(object.into_value(), value);
    }

    #[test]
    fn reads_metadata() {
        let object: Object = serde_json::from_value(json!({"metadata": {
            "name": "n", "namespace": "s", "uid": "u", "generateName": "g", "resourceVersion": "7", "generation": 2,
            "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["f"], "deletionTimestamp": "t",
            "ownerReferences": [{"uid": "o"}]}}))
        .unwrap();
        assert_eq!((object.name(), object.namespace(), object.uid()), ("n", "s", "u"));
        assert_eq!((object.generate_name(), object.resource_version(), object.generation()), ("g", "7", 2));
        assert_eq!((object.label("a"), object.annotation("c")), (Some("b"), Some("d")));
        assert_eq!(object.finalizers().collect::<Vec<_>>(), ["f"]);
        assert_eq!((object.deletion_timestamp(), object.owner_references().len()), (Some("t"), 1));
    }

    #[test]
    fn fields_of_the_wrong_type_read_as_absent() {
        for value in [json!({}), json!({"metadata": 3}), json!({"metadata": {"name": 1, "labels": []}})] {
            let mut object = Object::try_from(value).unwrap();
            assert_eq!((object.name(), object.labels()), ("", None));
            assert!(object.finalizers().next().is_none() && object.owner_references().is_empty());
            object.metadata_map_mut("labels").insert("a".to_owned(), json!("b"));
            assert_eq!(object.label("a"), Some("b"));
        }
    }
}
