//! The `scale` subresource: conversion between objects and `autoscaling/v1` `Scale`.

use nave_machinery::go_value::{GoValue, go_type};
use nave_machinery::selector::LabelSelector;
use nave_machinery::{Value, limits};
use serde_json::json;

/// The paths of the fields in a `Scale`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// The path of the desired number of replicas.
    pub spec_replicas: Vec<String>,
    /// The path of the current number of replicas.
    pub status_replicas: Vec<String>,
    /// The path of the selector: a map of labels, a `LabelSelector`, or a string; `None` if there is none.
    pub selector: Option<Vec<String>>,
}

impl ScalePaths {
    /// Returns the paths of the built-in workloads.
    pub fn workload() -> Self {
        let path = |parts: [&str; 2]| parts.map(str::to_owned).to_vec();
        Self {
            spec_replicas: path(["spec", "replicas"]),
            status_replicas: path(["status", "replicas"]),
            selector: Some(path(["spec", "selector"])),
        }
    }
}

/// The replicas in the scale of a custom object that has none. A change must set them.
pub const UNSET_REPLICAS: i64 = i32::MIN as i64;

/// Maximum length of a value in an error, in bytes.
const MAX_SHOWN: usize = 1024;

/// A field of a custom object with the wrong type for its scale.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(".{path} accessor error: {value} is of the type {found}, expected {wanted}")]
pub struct AccessorError {
    path: String,
    value: String,
    found: &'static str,
    wanted: &'static str,
}

impl ScalePaths {
    /// Returns the desired replicas of a custom object, and checks the types of all fields of its scale.
    ///
    /// # Errors
    /// The first field that has the wrong type.
    pub fn checked_replicas(&self, object: &Value) -> Result<Option<i64>, AccessorError> {
        let replicas = int_at(object, &self.spec_replicas)?;
        int_at(object, &self.status_replicas)?;
        if let Some(path) = &self.selector {
            text_at(object, path)?;
        }
        Ok(replicas)
    }
}

/// Returns the integer at a path of a custom object; `None` if it does not exist.
pub(crate) fn int_at(object: &Value, path: &[String]) -> Result<Option<i64>, AccessorError> {
    let Some(value) = accessed(object, path)? else { return Ok(None) };
    value.as_i64().map(Some).ok_or_else(|| wrong_type(path, value, "int64"))
}

/// Returns the text at a path of a custom object; `None` if it does not exist.
pub(crate) fn text_at<'v>(object: &'v Value, path: &[String]) -> Result<Option<&'v str>, AccessorError> {
    let Some(value) = accessed(object, path)? else { return Ok(None) };
    value.as_str().map(Some).ok_or_else(|| wrong_type(path, value, "string"))
}

fn accessed<'v>(object: &'v Value, path: &[String]) -> Result<Option<&'v Value>, AccessorError> {
    let mut place = object;
    for (at, field) in path.iter().enumerate() {
        place = match place {
            Value::Null => return Ok(None),
            Value::Object(fields) => match fields.get(field) {
                Some(value) => value,
                None => return Ok(None),
            },
            // Upstream shows the path of the field that it looks for.
            value => {
                return Err(wrong_type(path.get(..=at).unwrap_or(path), value, "map[string]interface{}"));
            }
        };
    }
    Ok(Some(place))
}

fn wrong_type(path: &[String], value: &Value, wanted: &'static str) -> AccessorError {
    let shown = limits::clipped(GoValue(value), MAX_SHOWN);
    AccessorError { path: path.join("."), value: shown, found: go_type(value), wanted }
}

/// Returns the `Scale` of an object.
pub fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let metadata: serde_json::Map<String, Value> =
        ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
            .into_iter()
            .filter_map(|field| Some((field.to_owned(), object.get("metadata")?.get(field)?.clone())))
            .collect();
    let mut spec = serde_json::Map::new();
    // As in upstream's type, `spec.replicas` is omitted if it is 0.
    if let Some(wanted) = replicas(object, &paths.spec_replicas).filter(|wanted| *wanted != 0) {
        spec.insert("replicas".to_owned(), json!(wanted));
    }
    let mut status = serde_json::Map::new();
    status.insert("replicas".to_owned(), json!(replicas(object, &paths.status_replicas).unwrap_or(0)));
    let selector = paths.selector.as_ref().and_then(|path| value_at(object, path)).and_then(selector_text);
    if let Some(selector) = selector.filter(|text| !text.is_empty()) {
        status.insert("selector".to_owned(), Value::String(selector));
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// Sets an object's desired replicas from a `Scale`; an absent number means 0.
pub fn apply_scale(paths: &ScalePaths, object: &mut Value, scale: &Value) {
    let wanted = scale.get("spec").and_then(|spec| spec.get("replicas")).and_then(Value::as_i64).unwrap_or(0);
    let Some((last, parents)) = paths.spec_replicas.split_last() else { return };
    let mut place = object;
    for parent in parents {
        let Some(fields) = place.as_object_mut() else { return };
        place = fields.entry(parent.as_str()).or_insert_with(|| json!({}));
    }
    if let Some(fields) = place.as_object_mut() {
        fields.insert(last.clone(), json!(wanted));
    }
}

fn replicas(object: &Value, path: &[String]) -> Option<i64> {
    value_at(object, path)?.as_i64()
}

fn value_at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |place, part| place.get(part))
}

/// Formats a selector given as a map of labels, a `LabelSelector`, or a string.
fn selector_text(selector: &Value) -> Option<String> {
    if let Some(text) = selector.as_str() {
        return Some(text.to_owned());
    }
    let fields = selector.as_object()?;
    let plain = fields.values().all(Value::is_string);
    let wrapped = json!({"matchLabels": selector});
    LabelSelector::from_value(if plain { &wrapped } else { selector })
        .ok()
        .map(|selector| selector.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"not": "shown"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}},
            "status": {"replicas": 2},
        })
    }

    #[test]
    fn converts_object_to_scale() {
        let mut object = deployment();
        assert_eq!(
            scale_of(&ScalePaths::workload(), &object),
            json!({
                "kind": "Scale", "apiVersion": "autoscaling/v1",
                "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7"},
                "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "app=a"},
            })
        );
        // The selector of a replication controller is a map. The spec omits zero replicas, but the status does not.
        object["spec"] = json!({"replicas": 0, "selector": {"b": "2", "a": "1"}});
        object["status"] = json!({});
        let scale = scale_of(&ScalePaths::workload(), &object);
        assert_eq!(scale["spec"], json!({}));
        assert_eq!(scale["status"], json!({"replicas": 0, "selector": "a=1,b=2"}));
    }

    #[test]
    fn custom_objects_have_fields_of_the_right_types() {
        let paths = ScalePaths {
            spec_replicas: vec!["spec".to_owned(), "n".to_owned()],
            status_replicas: vec!["status".to_owned(), "n".to_owned()],
            selector: Some(vec!["status".to_owned(), "s".to_owned()]),
        };
        for (object, expected) in [
            (json!({}), Ok(None)),
            (json!({"spec": null}), Ok(None)),
            (json!({"spec": {"n": 2}, "status": {"n": 1, "s": "a=b"}}), Ok(Some(2))),
            (
                json!({"spec": {"n": "x"}}),
                Err(".spec.n accessor error: x is of the type string, expected int64"),
            ),
            (
                json!({"spec": {"n": 1.5}}),
                Err(".spec.n accessor error: 1.5 is of the type float64, expected int64"),
            ),
            (
                json!({"spec": {"n": null}}),
                Err(".spec.n accessor error: <nil> is of the type <nil>, expected int64"),
            ),
            (
                json!({"spec": ["a"]}),
                Err(
                    ".spec.n accessor error: [a] is of the type []interface {}, expected map[string]interface{}",
                ),
            ),
            (
                json!({"spec": {"n": 2}, "status": {"s": {"a": "b"}}}),
                Err(
                    ".status.s accessor error: map[a:b] is of the type map[string]interface {}, expected string",
                ),
            ),
        ] {
            let found = paths.checked_replicas(&object).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{object}");
        }
    }

    #[test]
    fn scale_changes_only_replicas() {
        for (scale, wanted) in
            [(json!({"spec": {"replicas": 5}}), 5), (json!({"spec": {}}), 0), (json!({}), 0)]
        {
            let mut object = deployment();
            apply_scale(&ScalePaths::workload(), &mut object, &scale);
            let mut expected = deployment();
            expected["spec"]["replicas"] = json!(wanted);
            assert_eq!(object, expected);
        }
        let mut bare = json!({});
        apply_scale(&ScalePaths::workload(), &mut bare, &json!({"spec": {"replicas": 1}}));
        assert_eq!(bare, json!({"spec": {"replicas": 1}}));
    }
}
