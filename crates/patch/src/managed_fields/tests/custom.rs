//! Apply of custom resources by the topology of their schema.

use nave_structural::Structural;

use super::*;

struct Custom {
    schema: Structural,
    empty: Value,
    reset: FieldSet,
}

impl Custom {
    fn new() -> Self {
        let text = json!({"type": "string"});
        let port = json!({"type": "object", "properties": {"name": text, "protocol": {"type": "string", "default": "TCP"}, "port": {"type": "integer"}}});
        let spec = json!({"type": "object", "properties": {
            "ports": {"type": "array", "items": port, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "protocol"]},
            "tags": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
            "steps": {"type": "array", "items": text},
            "limits": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": text, "b": text}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": text}},
        }});
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        let empty = json!({"apiVersion": "example.com/v1", "kind": "Thing"});
        Self { schema: Structural::compile(&schema).unwrap(), empty, reset: FieldSet::default() }
    }

    fn apply(&self, live: Option<&Value>, manager: &str, spec: Value) -> Result<Value, ApplyError> {
        let applied =
            json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec});
        let fields = FieldManager {
            versions: self,
            api_version: "example.com/v1",
            kind: "Thing",
            subresource: "",
            now: NOW,
            empty: &self.empty,
        };
        let mut object = fields.apply(live, &applied, manager, false)?;
        nave_machinery::managed_fields::expand(&mut object);
        Ok(object)
    }
}

impl Versions for Custom {
    fn type_of(&self, _: &str) -> Option<TypeRef<'_>> {
        Some(TypeRef::custom(&self.schema))
    }

    fn convert(&self, object: &Value, _: &str) -> Result<Value, String> {
        Ok(object.clone())
    }

    fn reset_fields(&self, _: &str) -> Option<&FieldSet> {
        Some(&self.reset)
    }
}

#[test]
fn fields_of_custom_resources_merge_by_their_schema() {
    let custom = Custom::new();
    let first = json!({
        "ports": [{"name": "web", "port": 80}], "tags": ["a"], "steps": ["x"], "limits": {"cpu": 1},
        "whole": {"a": "1"}, "free": {"a": "1", "b": {"c": 1}},
    });
    let live = custom.apply(None, "one", first).unwrap();
    let second = json!({
        "ports": [{"name": "dns", "protocol": "UDP", "port": 53}], "tags": ["b"], "limits": {"memory": "1Gi"},
        "free": {"b": {"d": 2}},
    });
    let live = custom.apply(Some(&live), "two", second).unwrap();
    let spec = json!({
        "ports": [{"name": "web", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}], "tags": ["a", "b"],
        "steps": ["x"], "limits": {"cpu": 1, "memory": "1Gi"}, "whole": {"a": "1"},
        "free": {"a": "1", "b": {"c": 1, "d": 2}},
    });
    assert_eq!(live["spec"], spec);
    let owned = json!({"f:spec": {
        "f:free": {"f:b": {".": {}, "f:d": {}}},
        "f:limits": {"f:memory": {}},
        "f:ports": {"k:{\"name\":\"dns\",\"protocol\":\"UDP\"}": {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}},
        "f:tags": {"v:\"b\"": {}},
    }});
    assert_eq!(fields(&live, "two", "Apply"), Some(&owned));
    let one = fields(&live, "one", "Apply").unwrap();
    // The missing key has its default. A list without topology and an atomic map are each one field.
    assert!(one["f:spec"]["f:ports"].get(r#"k:{"name":"web","protocol":"TCP"}"#).is_some(), "{one}");
    assert_eq!((&one["f:spec"]["f:steps"], &one["f:spec"]["f:whole"]), (&json!({}), &json!({})));

    let live = custom.apply(Some(&live), "two", json!({"tags": ["c"]})).unwrap();
    assert_eq!(live["spec"]["tags"], json!(["a", "c"]));
    assert_eq!(live["spec"]["ports"], json!([{"name": "web", "port": 80}]));
    let found = causes(custom.apply(Some(&live), "two", json!({"whole": {"b": "2"}})).unwrap_err());
    assert_eq!(found.into_iter().map(|(_, field)| field).collect::<Vec<_>>(), [".spec.whole"]);
}

#[test]
fn rejects_values_that_the_schema_does_not_allow() {
    let custom = Custom::new();
    for (spec, expected) in [
        (json!({"missing": 1}), "field not declared in schema"),
        (json!({"tags": ["a", "a"]}), "duplicate entries for key"),
        (json!({"steps": "x"}), "expected list, got"),
        (json!({"ports": [{"port": 1}, {"port": "x", "name": "a"}]}), "expected numeric"),
    ] {
        let why = custom.apply(None, "one", spec.clone()).unwrap_err().into_status().message;
        assert!(why.contains(expected), "{spec}: {why}");
    }
    // Values of any type where the schema allows them.
    let any = json!({"limits": {"a": 1, "b": "2"}, "free": {"x": [1, {"y": null}]}});
    assert_eq!(custom.apply(None, "one", any.clone()).unwrap()["spec"], any);
}
