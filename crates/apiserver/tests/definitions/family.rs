//! Definitions as a generator of providers writes them: one version, long descriptions, nested settings.

use std::fmt::Write;

use nave_machinery::Value;
use serde_json::json;

const SENTENCE: &str =
    "Selects how the controller treats this setting when the external resource is created.";

/// Definitions of one group.
const PER_GROUP: usize = 10;

/// Returns the definition with this number, of about `bytes` bytes.
pub(crate) fn definition(number: usize, bytes: usize) -> Value {
    let group = format!("family{:03}.example.com", number / PER_GROUP);
    let plural = format!("things{number:05}");
    let (mut properties, mut size) = (serde_json::Map::new(), 800);
    for field in 0.. {
        let name = format!("setting{number}x{field}");
        let about = format!("The setting {field} of thing {number}. {SENTENCE}");
        let schema = match field % 4 {
            0 => json!({"type": "string", "description": about, "enum": ["Delete", "Orphan"]}),
            1 => json!({"type": "object", "description": about, "properties": {
                "name": {"type": "string", "description": SENTENCE}, "port": {"type": "integer"}}}),
            2 => json!({"type": "array", "description": about, "items": {"type": "string", "maxLength": 63}}),
            _ => json!({"type": "boolean", "description": about, "default": false}),
        };
        size += name.len() + schema.to_string().len() + 4;
        if size > bytes {
            break;
        }
        properties.insert(name, schema);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": format!("thing{number:05}"),
                "kind": format!("Thing{number:05}"), "listKind": format!("Thing{number:05}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": properties}}}}}],
        },
    })
}

/// Returns the path of the objects of the definition with this number.
pub(crate) fn objects(number: usize) -> String {
    let mut path = String::new();
    write!(path, "/apis/family{:03}.example.com/v1/things{number:05}", number / PER_GROUP).unwrap();
    path
}
