//! Checks schemas of definitions against the rules, with the paths and texts of kube-apiserver.

#![allow(missing_docs, clippy::unwrap_used, clippy::needless_pass_by_value)]

use nave_machinery::{FieldPath, Value};
use nave_structural::rules::{self, Requirements};
use nave_structural::{CompileError, Structural};
use serde_json::json;

/// Returns the errors of a schema with the property `a`.
fn errors(property: Value) -> Vec<String> {
    errors_of(json!({"type": "object", "properties": {"a": property}}))
}

fn errors_of(schema: Value) -> Vec<String> {
    let found = rules::check(&schema, &FieldPath::new("s"), Requirements::ALL).errors;
    found.iter().map(|error| error.to_string().replace("s.properties[a]", "A")).collect()
}

#[test]
fn rejects_schemas_that_are_not_structural() {
    let map_keys = |more: Value| {
        let mut list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}});
        list.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        list
    };
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({}), &["A.type: Required value: must not be empty for specified object fields"]),
        (json!({"type": "array"}), &["A.items: Required value: must be specified"]),
        (
            json!({"type": "array", "items": {}}),
            &["A.items.type: Required value: must not be empty for specified array items"],
        ),
        (
            json!({"type": "text"}),
            &[
                r#"A.type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ],
        ),
        (
            json!({"type": "null"}),
            &[
                r#"A.type: Unsupported value: "null": supported values: "array", "boolean", "integer", "number", "object", "string""#,
                "A.type: Forbidden: type cannot be set to null, use nullable as an alternative",
            ],
        ),
        (json!({"x-kubernetes-int-or-string": true}), &[]),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            &[],
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}]}),
            &[],
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}]}),
            &["A.anyOf[0].type: Forbidden: must be empty to be structural"],
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
            &[
                "A.x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
            ],
        ),
        (json!({"x-kubernetes-preserve-unknown-fields": true}), &[]),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            &["A.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            &[
                "A.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            ],
        ),
        (
            json!({"x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            &["A.type: Required value: must be object if x-kubernetes-embedded-resource is true"],
        ),
        (
            json!({"type": "string", "anyOf": [{"description": "x", "title": "x", "default": "a", "nullable": true}]}),
            &[
                "A.anyOf[0].default: Forbidden: must be undefined to be structural",
                "A.anyOf[0].description: Forbidden: must be empty to be structural",
                "A.anyOf[0].nullable: Forbidden: must be false to be structural",
                "A.anyOf[0].title: Forbidden: must be empty to be structural",
            ],
        ),
        (
            json!({"type": "object", "allOf": [{"additionalProperties": {"minimum": 1}}]}),
            &["A.allOf[0].additionalProperties: Forbidden: must be undefined to be structural"],
        ),
        (
            json!({"type": "string", "pattern": "("}),
            &[
                "A.pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`",
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            &[
                "A.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
        (
            json!({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            &["A.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
        ),
        (json!({"type": "string", "$ref": "#/x"}), &["A.$ref: Forbidden: $ref is not supported"]),
        (
            json!({"type": "string", "id": "x", "patternProperties": {"a": {}}}),
            &[
                "A.id: Forbidden: id is not supported",
                "A.patternProperties: Forbidden: patternProperties is not supported",
            ],
        ),
        (
            json!({"type": "array", "items": [{"type": "string"}]}),
            &["A.items: Forbidden: items must be a schema object and not an array"],
        ),
        (
            json!({"type": "string", "x-kubernetes-list-type": "set"}),
            &[r#"A.type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "bag"}),
            &[
                r#"A.x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map""#,
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-map-type": "bag"}),
            &[r#"A.x-kubernetes-map-type: Unsupported value: "bag": supported values: "atomic", "granular""#],
        ),
        (map_keys(json!({})), &[]),
        (
            map_keys(json!({"x-kubernetes-list-map-keys": []})),
            &[
                "A.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ],
        ),
        (
            map_keys(json!({"x-kubernetes-list-map-keys": ["k", "k"]})),
            &[
                r#"A.x-kubernetes-list-map-keys: Invalid value: ["k","k"]: must not contain duplicate entries"#,
            ],
        ),
        (
            map_keys(json!({"x-kubernetes-list-map-keys": ["z"]})),
            &[
                r#"A.x-kubernetes-list-map-keys: Invalid value: ["z"]: entries must all be names of item properties"#,
            ],
        ),
        (
            map_keys(json!({"x-kubernetes-list-type": "set"})),
            &[
                "A.items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
                r#"A.x-kubernetes-list-type: Invalid value: "set": must be map if x-kubernetes-list-map-keys is non-empty"#,
            ],
        ),
        (
            map_keys(json!({"items": {"type": "string"}})),
            &[
                r#"A.items.type: Invalid value: "string": must be object if parent array's x-kubernetes-list-type is map"#,
            ],
        ),
        (
            map_keys(
                json!({"items": {"type": "object", "nullable": true, "properties": {"k": {"type": "string", "nullable": true}}}}),
            ),
            &[
                "A.items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is map",
                "A.items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                "A.items.properties[k].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            ],
        ),
    ];
    for (property, expected) in cases {
        assert_eq!(errors(property.clone()), *expected, "{property}");
    }
}

#[test]
fn the_root_is_an_object_with_metadata_of_its_own() {
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({}), &["s.type: Required value: must not be empty at the root"]),
        (json!({"type": "string"}), &[r#"s.type: Invalid value: "string": must be object at the root"#]),
        (
            json!({"type": "object", "additionalProperties": true}),
            &["s.additionalProperties: Forbidden: must not be used at the root"],
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "integer"}}}),
            &[r#"s.properties[kind].type: Invalid value: "integer": must be string"#],
        ),
        (json!({"type": "object", "properties": {"metadata": {"type": "object"}}}), &[]),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}}}}),
            &[],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            &[
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ],
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "string"}}}),
            &[r#"s.properties[metadata].type: Invalid value: "string": must be object"#],
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "string", "default": "X"}}}),
            &["s.properties[kind].default: Forbidden: must not be set in top-level kind"],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object"}}, "anyOf": [{"properties": {"metadata": {}}}]}),
            &[
                "s.anyOf[0].properties[metadata]: Forbidden: must not be specified in a nested context",
                "s.properties[metadata]: Required value: because it is defined in s.anyOf[0].properties[metadata]",
            ],
        ),
    ];
    for (schema, expected) in cases {
        assert_eq!(errors_of(schema.clone()), *expected, "{schema}");
    }
}

#[test]
fn defaults_must_be_valid_and_pruned() {
    let object = |default: Value| json!({"type": "object", "default": default, "properties": {"b": {"type": "integer", "minimum": 1}}});
    let resource = |default: Value| json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true, "default": default});
    let name = |default: Value| json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "default": default}}}}});
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({"type": "integer", "default": 3}), &[]),
        (
            json!({"type": "integer", "default": "x"}),
            &[r#"A.default: Invalid value: "string":  in body must be of type integer: "string""#],
        ),
        (
            object(json!({"b": 0})),
            &["A.default.b: Invalid value: 0: b in body should be greater than or equal to 1"],
        ),
        (object(json!({"c": 1})), &[r#"A.default: Invalid value: {"c":1}: must not have unknown fields"#]),
        (object(json!({})), &[]),
        (resource(json!({})), &["A.default.apiVersion: Required value", "A.default.kind: Required value"]),
        (resource(json!({"apiVersion": "v1", "kind": "Pod"})), &[]),
        (resource(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a b"}})), &[]),
        (name(json!("good")), &[]),
        (
            name(json!("a/b")),
            &[
                r#"A.properties[metadata].properties[name].default: Invalid value: "a/b": must result in valid metadata: metadata.name: Invalid value: "a/b": may not contain '/'"#,
            ],
        ),
        (
            json!({"type": "array", "items": {"type": "string", "default": 1}}),
            &[r#"A.items.default: Invalid value: "integer":  in body must be of type string: "integer""#],
        ),
    ];
    for (property, expected) in cases {
        assert_eq!(errors(property.clone()), *expected, "{property}");
    }
}

#[test]
fn rules_require_an_expression_and_valid_messages() {
    let rule = |rule: Value| json!({"type": "object", "properties": {"b": {"type": "string"}}, "x-kubernetes-validations": [rule]});
    for (rule, expected) in [
        (rule(json!({"rule": "true"})), vec![]),
        (rule(json!({"rule": " "})), vec!["rule: Required value: rule is not specified"]),
        (
            rule(json!({"rule": "true", "message": " "})),
            vec![r#"message: Invalid value: " ": must be non-empty if specified"#],
        ),
        (
            rule(json!({"rule": "true", "message": "a\nb"})),
            vec![r#"message: Invalid value: "a\nb": must not contain line breaks"#],
        ),
        (
            rule(json!({"rule": "true\n&& true"})),
            vec!["message: Required value: message must be specified if rule contains line breaks"],
        ),
        (
            rule(json!({"rule": "true", "messageExpression": " "})),
            vec!["messageExpression: Required value: messageExpression must be non-empty if specified"],
        ),
        (
            rule(json!({"rule": "true", "reason": "Odd"})),
            vec![
                r#"reason: Unsupported value: "Odd": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#,
            ],
        ),
        (rule(json!({"rule": "true", "fieldPath": ".b"})), vec![]),
        (rule(json!({"rule": "true", "fieldPath": "['b']"})), vec![]),
        (
            rule(json!({"rule": "true", "fieldPath": ".c"})),
            vec![r#"fieldPath: Invalid value: ".c": must be a valid path"#],
        ),
    ] {
        let found = errors(rule.clone());
        let found: Vec<&str> =
            found.iter().map(|error| error.trim_start_matches("A.x-kubernetes-validations[0].")).collect();
        assert_eq!(found, expected, "{rule}");
    }
}

#[test]
fn updates_tolerate_faults_of_old_schemas() {
    let schema = |property: Value| json!({"type": "object", "properties": {"a": property}});
    let text = json!({"type": "string"});
    let set = schema(
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object", "properties": {"b": text}}}),
    );
    let unpruned = schema(json!({"type": "object", "properties": {"b": text}, "default": {"c": 1}}));
    let keys = schema(
        json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["b"], "items": {"type": "object", "properties": {"b": text}}}),
    );
    let unknown = schema(json!({"type": "text"}));
    let loose = schema(json!({"properties": {"b": {}}}));
    let sound = schema(text);
    for (old, expected) in [
        (&sound, Requirements::ALL),
        (&set, Requirements { atomic_sets: false, ..Requirements::ALL }),
        (&unpruned, Requirements { pruned_defaults: false, ..Requirements::ALL }),
        (&keys, Requirements { sound_map_keys: false, ..Requirements::ALL }),
        (&loose, Requirements { structural: false, ..Requirements::ALL }),
    ] {
        assert_eq!(Requirements::of_update(&[&sound, old]), expected, "{old}");
    }
    assert!(!Requirements::of_update(&[&unknown]).known_types);
}

#[test]
fn compile_rejects_unsupported_keywords() {
    for (schema, expected) in [
        (json!({"$schema": "x"}), CompileError::Unsupported("schema")),
        (json!({"properties": {"a": {"definitions": {"b": {}}}}}), CompileError::Unsupported("definitions")),
        (json!({"items": []}), CompileError::ItemsArray),
        (json!({"type": "text"}), CompileError::UnknownType("text".to_owned())),
        (json!({"anyOf": ["x"]}), CompileError::NotAnObject),
        ((0..200).fold(json!({}), |inner, _| json!({"not": inner})), CompileError::TooDeep),
    ] {
        assert_eq!(Structural::compile(&schema).unwrap_err(), expected, "{schema}");
    }
}
