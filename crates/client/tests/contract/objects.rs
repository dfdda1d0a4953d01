//! Creates objects for tests.

use nave_client::Object;
use serde_json::{Value, json};

/// Creates an object `namespace/name` with a version, a UID and one label.
pub(crate) fn labelled(key: &str, uid: &str, version: u64, label: &str) -> Object {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    Object::from_value(&json!({"kind": "Thing", "apiVersion": "example.com/v1", "metadata": {
        "name": name, "namespace": namespace, "uid": uid, "resourceVersion": version.to_string(),
        "labels": {"colour": label},
    }}))
    .unwrap()
}

/// Creates an object whose UID is derived from the key.
pub(crate) fn object(key: &str, version: u64) -> Object<Value> {
    labelled(key, &format!("uid-of-{key}"), version, "none")
}
