//! Checks objects against schemas, with the error texts of kube-apiserver.

#![allow(missing_docs, clippy::unwrap_used, clippy::needless_pass_by_value)]

use nave_machinery::Value;
use nave_structural::{Malformed, Structural};
use serde_json::json;

/// The error of a value that matches no alternative of `oneOf`.
const NONE: &str =
    r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found none valid"#;

/// Returns a schema whose `spec` has one property, `x`.
fn schema_of(property: Value) -> Structural {
    let spec = json!({"type": "object", "properties": {"x": property}});
    Structural::compile(&json!({"type": "object", "properties": {"spec": spec}})).unwrap()
}

fn object_of(value: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": {"x": value}})
}

fn errors(property: &Value, value: Value) -> Vec<String> {
    let found = schema_of(property.clone()).validate(&object_of(value), None);
    found.errors.iter().map(ToString::to_string).collect()
}

/// Integers are compared with integers. Floats and their limits are shown as Go shows floats.
#[test]
fn shows_numbers_as_go() {
    let cases: [(Value, &str, &str); 9] = [
        (
            json!({"type": "integer", "maximum": 2_147_483_647}),
            "3000000000",
            "3000000000|less than or equal to 2147483647",
        ),
        (
            json!({"type": "integer", "maximum": 2_147_483_647}),
            "3e9",
            "3e+09|less than or equal to 2.147483647e+09",
        ),
        (
            json!({"type": "number", "maximum": 1_000_000}),
            "1500000.5",
            "1.5000005e+06|less than or equal to 1e+06",
        ),
        (json!({"type": "number", "maximum": 1_000_000}), "2000000", "2000000|less than or equal to 1000000"),
        (json!({"type": "number", "minimum": 10}), "-0.0", "-0|greater than or equal to 10"),
        (json!({"type": "number", "minimum": 10}), "9.0", "9|greater than or equal to 10"),
        (json!({"type": "integer", "multipleOf": 1_000_000}), "1500000", "1500000|a multiple of 1000000"),
        (json!({"type": "integer", "multipleOf": 1_000_000}), "1500000.0", "1.5e+06|a multiple of 1e+06"),
        (json!({"type": "number", "multipleOf": 1e-5}), "0.000015", "1.5e-05|a multiple of 1e-05"),
    ];
    for (property, value, wanted) in cases {
        let (shown, limit) = wanted.split_once('|').unwrap();
        let wanted = format!("spec.x: Invalid value: {shown}: spec.x in body should be {limit}");
        assert_eq!(errors(&property, serde_json::from_str(value).unwrap()), [wanted], "{property} {value}");
    }
    let listed = json!({"type": "number", "enum": [20_000_000, 1e20, 1e21, 0.00001, 1e-7]});
    let wanted = "spec.x: Unsupported value: 4e+07: supported values: \"20000000\", \"100000000000000000000\", \
                  \"1e+21\", \"0.00001\", \"1e-7\"";
    assert_eq!(errors(&listed, json!(4e7)), [wanted]);
}

#[test]
fn rejects_values_with_upstream_messages() {
    let list = json!({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2});
    let map = json!({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 2});
    let object = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
    let text = json!({"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-zäöü]+$"});
    let number = json!({"type": "number", "minimum": -1.5, "maximum": 1e21});
    // For an integer, upstream truncates the factor to 0.
    let half = json!({"type": "number", "multipleOf": 0.5});
    let cut = "spec.x: Invalid value: 0: factor MultipleOf declared for spec.x must be positive: 0";
    assert_eq!(errors(&half, json!(2)), [cut]);
    let cases: Vec<(&Value, Value, &[&str])> = vec![
        (&list, json!([]), &["spec.x: Invalid value: 0: spec.x in body should have at least 1 items"]),
        (&list, json!(["a", "b", "c"]), &["spec.x: Too many: 3: must have at most 2 items"]),
        (
            &list,
            json!(["a", 1]),
            &[r#"spec.x[1]: Invalid value: "integer": spec.x[1] in body must be of type string: "integer""#],
        ),
        (
            &list,
            json!({}),
            &[r#"spec.x: Invalid value: "object": spec.x in body must be of type array: "object""#],
        ),
        (
            &list,
            json!(null),
            &[r#"spec.x: Invalid value: "null": spec.x in body must be of type array: "null""#],
        ),
        (&map, json!({}), &["spec.x: Invalid value: 0: spec.x in body should have at least 1 properties"]),
        (&map, json!({"a": 1, "b": 2, "c": 3}), &["spec.x: Too many: 3: must have at most 2 items"]),
        (
            &map,
            json!({"j": 1.5, "k": "v"}),
            &[
                r#"spec.x.j: Invalid value: "number": spec.x.j in body must be of type integer: "number""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in spec.x.j"#,
                r#"spec.x.k: Invalid value: "string": spec.x.k in body must be of type integer: "string""#,
            ],
        ),
        (&object, json!({"b": 1}), &["spec.x.a: Required value"]),
        (
            &object,
            json!([]),
            &[r#"spec.x: Invalid value: "array": spec.x in body must be of type object: "array""#],
        ),
        (
            &text,
            json!("a"),
            &[r#"spec.x: Invalid value: "a": spec.x in body should be at least 2 chars long"#],
        ),
        (&text, json!("äöüäö"), &["spec.x: Too long: may not be more than 4 bytes"]),
        (
            &text,
            json!("ab1"),
            &[r#"spec.x: Invalid value: "ab1": spec.x in body should match '^[a-zäöü]+$'"#],
        ),
        (&half, json!(1.3), &["spec.x: Invalid value: 1.3: spec.x in body should be a multiple of 0.5"]),
        (
            &number,
            json!(-2),
            &["spec.x: Invalid value: -2: spec.x in body should be greater than or equal to -1"],
        ),
        (
            &number,
            json!(2e21),
            &["spec.x: Invalid value: 2e+21: spec.x in body should be less than or equal to 1e+21"],
        ),
    ];
    for (property, value, expected) in cases {
        assert_eq!(errors(property, value.clone()), *expected, "{property} {value}");
    }
}

#[test]
fn rejects_numbers_by_range_bound_and_enumeration() {
    let integer = |more: Value| {
        let mut schema = json!({"type": "integer"});
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    };
    let exclusive =
        integer(json!({"minimum": 0, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": true}));
    let cases: Vec<(Value, Value, &[&str])> = vec![
        (exclusive.clone(), json!(0), &["spec.x: Invalid value: 0: spec.x in body should be greater than 0"]),
        (exclusive, json!(9), &["spec.x: Invalid value: 9: spec.x in body should be less than 9"]),
        (
            integer(json!({"minimum": -3, "maximum": 9})),
            json!(-4),
            &["spec.x: Invalid value: -4: spec.x in body should be greater than or equal to -3"],
        ),
        (
            integer(json!({"format": "int32"})),
            json!(2_147_483_648_i64),
            &[
                r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.x"#,
            ],
        ),
        (
            integer(json!({"format": "int64"})),
            json!(9_223_372_036_854_775_808_u64),
            &[
                r#"spec.x: Invalid value: "float64": spec.x in body must be of type int64: "float64""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer with format int64 in spec.x"#,
            ],
        ),
        (
            integer(json!({})),
            json!(3.5),
            &[
                r#"spec.x: Invalid value: "number": spec.x in body must be of type integer: "number""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in spec.x"#,
            ],
        ),
        (integer(json!({})), json!(3.0), &[]),
        (
            integer(json!({"multipleOf": 3})),
            json!(10),
            &["spec.x: Invalid value: 10: spec.x in body should be a multiple of 3"],
        ),
        (
            integer(json!({"multipleOf": 0})),
            json!(10),
            &["spec.x: Invalid value: 0: factor MultipleOf declared for spec.x must be positive: 0"],
        ),
        (
            json!({"type": "string", "enum": ["red", "green", ""]}),
            json!("blue"),
            &[r#"spec.x: Unsupported value: "blue": supported values: "red", "green", """#],
        ),
        (
            json!({"type": "number", "enum": [1, 2.5]}),
            json!(3),
            &[r#"spec.x: Unsupported value: 3: supported values: "1", "2.5""#],
        ),
        (json!({"type": "number", "enum": [1, 2.5]}), json!(1.0), &[]),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "enum": [{"a": 1}, {"b": [1]}]}),
            json!({"a": 2}),
            &[r#"spec.x: Unsupported value: {"a":2}: supported values: "{\"a\":1}", "{\"b\":[1]}""#],
        ),
        (
            json!({"type": "string", "nullable": true, "enum": ["a"]}),
            json!(null),
            &[r#"spec.x: Unsupported value: null: supported values: "a""#],
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            &[
                r#"spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean""#,
            ],
        ),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%"), &[]),
        (
            json!({"type": "string", "format": "uuid"}),
            json!("no"),
            &[r#"spec.x: Invalid value: "no": spec.x in body must be of type uuid: "no""#],
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("no"),
            &[r#"spec.x: Invalid value: "no": spec.x in body must be of type date-time: "no""#],
        ),
        (json!({"type": "string", "format": "postcode"}), json!("no"), &[]),
        (
            json!({"type": "string", "format": "uuid"}),
            json!({}),
            &[r#"spec.x: Invalid value: "": spec.x in body must be of type uuid: """#],
        ),
        (
            json!({"type": "string"}),
            json!([]),
            &[r#"spec.x: Invalid value: "array": spec.x in body must be of type string: "array""#],
        ),
        // Lists pass the check of the type if there is a format.
        (json!({"type": "string", "format": "uuid"}), json!([]), &[]),
    ];
    for (property, value, expected) in cases {
        assert_eq!(errors(&property, value.clone()), *expected, "{property} {value}");
    }
}

#[test]
fn logic_reports_errors_of_the_closest_alternative() {
    let text =
        json!({"type": "string", "anyOf": [{"minLength": 5}, {"pattern": "^x"}], "not": {"pattern": "bad"}});
    let number = json!({"type": "integer", "oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]});
    let range = json!({"type": "integer", "allOf": [{"minimum": 1}, {"maximum": 5}]});
    let variant = |kind: &str| json!({"properties": {"kind": {"enum": [kind]}}, "required": [kind]});
    let variants = json!({
        "type": "object", "oneOf": [variant("port"), variant("path")],
        "properties": {"kind": {"type": "string"}, "port": {"type": "integer"}, "path": {"type": "string"}},
    });
    let cases: Vec<(&Value, Value, &[&str])> = vec![
        (&text, json!("abcde"), &[]),
        (&text, json!("xy"), &[]),
        (
            &text,
            json!("ab"),
            &[
                r#"<nil>: Invalid value: "": "spec.x" must validate at least one schema (anyOf)"#,
                r#"spec.x: Invalid value: "ab": spec.x in body should be at least 5 chars long"#,
            ],
        ),
        (&text, json!("xbad"), &[r#"<nil>: Invalid value: "": "spec.x" must not validate the schema (not)"#]),
        (&number, json!(4), &[]),
        (
            &number,
            json!(6),
            &[
                r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
        (&number, json!(5), &[NONE, "spec.x: Invalid value: 5: spec.x in body should be a multiple of 2"]),
        (
            &range,
            json!(0),
            &[
                "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
                r#"<nil>: Invalid value: "": "spec.x" must validate all the schemas (allOf)"#,
            ],
        ),
        (&variants, json!({"kind": "port", "port": 80}), &[]),
        (&variants, json!({"kind": "port", "path": "/x"}), &[NONE, "spec.x.port: Required value"]),
        (
            &variants,
            json!({"kind": "socket", "port": 80}),
            &[NONE, r#"spec.x.kind: Unsupported value: "socket": supported values: "port""#],
        ),
    ];
    for (property, value, expected) in cases {
        assert_eq!(errors(property, value.clone()), *expected, "{property} {value}");
    }
}

#[test]
fn rejects_new_duplicates_in_sets_and_maps() {
    let text = json!({"type": "string"});
    let set = json!({"type": "array", "items": text, "x-kubernetes-list-type": "set"});
    let item = json!({"type": "object", "properties": {"a": text, "b": text}});
    let one = json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"]});
    let two = json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"]});
    for (property, value, expected) in [
        (&set, json!(["a", "b", "a", "a"]), vec![r#"spec.x[2]: Duplicate value: "a""#]),
        (
            &one,
            json!([{"a": "1"}, {"b": "x"}, {"a": "1", "b": "y"}]),
            vec![r#"spec.x[2]: Duplicate value: {"a":"1"}"#],
        ),
        (&one, json!([{}, {"b": "x"}]), vec!["spec.x[1]: Duplicate value: {}"]),
        (
            &two,
            json!([{"a": "1"}, {"a": "1", "b": "y"}, {"a": "1"}]),
            vec![r#"spec.x[2]: Duplicate value: {"a":"1"}"#],
        ),
        (&two, json!([{"a": "1", "b": "x"}, {"a": "1", "b": "y"}]), vec![]),
    ] {
        assert_eq!(errors(property, value.clone()), expected, "{value}");
        let found = schema_of(property.clone()).validate(&object_of(value.clone()), Some(&object_of(value)));
        assert_eq!(found.errors, []);
    }
}

#[test]
fn errors_in_unchanged_parts_are_accepted_on_update() {
    let small = json!({"type": "integer", "maximum": 5});
    let item = json!({"type": "object", "properties": {"name": {"type": "string"}, "n": small}, "required": ["name"]});
    let map = json!({"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]});
    let property = json!({"type": "object", "required": ["needed"], "properties": {
        "needed": {"type": "string"}, "n": small, "m": small, "map": map, "atomic": {"type": "array", "items": small},
    }});
    let schema = schema_of(property);
    let fields = |old: Value, new: Value| {
        let found = schema.validate(&object_of(new), Some(&object_of(old)));
        let shown = |list: &[nave_machinery::FieldError]| {
            list.iter().map(|error| error.field.to_string()).collect::<Vec<_>>()
        };
        (shown(&found.errors), shown(&found.ratcheted))
    };
    let none: Vec<String> = Vec::new();
    let old = json!({"n": 9, "needed": ""});
    // Accepts an unchanged value, but not a changed or new value.
    assert_eq!(
        fields(old.clone(), json!({"n": 9, "m": 1, "needed": ""})),
        (none.clone(), vec!["spec.x.n".into()])
    );
    assert_eq!(fields(old.clone(), json!({"n": 8, "needed": ""})).0, ["spec.x.n"]);
    assert_eq!(fields(old, json!({"n": 9, "m": 9, "needed": ""})).0, ["spec.x.m"]);
    // A missing field is accepted only if the whole object is unchanged.
    assert_eq!(fields(json!({"n": 1}), json!({"n": 1})), (none.clone(), vec!["spec.x.needed".into()]));
    assert_eq!(fields(json!({"n": 1}), json!({"n": 2})).0, ["spec.x.needed"]);
    // Items of maps are compared by their keys, items of other lists only with the whole list.
    let with = |map: Value, atomic: Value| json!({"needed": "", "map": map, "atomic": atomic});
    let old = with(json!([{"name": "a", "n": 9}, {"name": "b", "n": 1}]), json!([9, 1]));
    let moved = with(json!([{"name": "c"}, {"name": "a", "n": 9}]), json!([9, 1]));
    assert_eq!(fields(old.clone(), moved), (none, vec!["spec.x.atomic[0]".into(), "spec.x.map[1].n".into()]));
    let changed = with(json!([{"name": "b", "n": 9}]), json!([9]));
    assert_eq!(fields(old, changed).0, ["spec.x.atomic[0]", "spec.x.map[0].n"]);
}

#[test]
fn validates_a_status_by_its_own_schema() {
    let status = json!({"type": "object", "properties": {"phase": {"type": "string", "enum": ["New"]}}, "required": ["phase"]});
    let spec = json!({"type": "object", "required": ["a"]});
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": status}});
    let schema = Structural::compile(&schema).unwrap();
    let shown = |status: Value, old: Value| {
        let found = schema.validate_status(&json!({"spec": {}, "status": status}), &json!({"status": old}));
        found.errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        shown(json!({"phase": "Old"}), json!({})),
        [r#"status.phase: Unsupported value: "Old": supported values: "New""#]
    );
    assert_eq!(shown(json!({}), json!({"phase": "New"})), ["status.phase: Required value"]);
    assert_eq!(
        shown(json!("x"), json!({})),
        [r#"status: Invalid value: "string":  in body must be of type object: "string""#]
    );
    assert_eq!(shown(json!({"phase": "Old"}), json!({"phase": "Old"})), [""; 0]);
}

#[test]
fn drops_and_reports_unknown_fields() {
    let text = json!({"type": "string"});
    let resource = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object", "properties": {"a": text}}}});
    let spec = json!({"type": "object", "properties": {
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": text}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": text}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object", "properties": {"a": text}}}},
        "resource": resource,
        "any": {"type": "object", "additionalProperties": true},
    }});
    let schema = Structural::compile(&json!({"type": "object", "properties": {"spec": spec}})).unwrap();
    let mut object = json!({
        "apiVersion": "v1", "kind": "T", "metadata": {"whatever": 1}, "top": 1,
        "spec": {
            "list": [{"a": "x"}, {"b": 1}], "map": {"k.k": {"a": "x", "c": 1}}, "odd": {"deep": 1},
            "free": {"x": {"y": 1}, "known": {"a": "1", "z": 1}},
            "resource": {"apiVersion": "v1", "kind": "T", "metadata": {"odd": 1}, "status": {}, "spec": {"a": "1", "b": 1}},
            "any": {"x": {"y": 1}},
        },
    });
    let dropped = schema.prune(&mut object);
    assert_eq!(
        dropped,
        [
            "spec.any.x.y",
            "spec.free.known.z",
            "spec.list[1].b",
            "spec.map.k.k.c",
            "spec.odd",
            "spec.resource.spec.b",
            "spec.resource.status",
            "top"
        ]
    );
    let expected = json!({
        "apiVersion": "v1", "kind": "T", "metadata": {"whatever": 1},
        "spec": {
            "list": [{"a": "x"}, {}], "map": {"k.k": {"a": "x"}}, "free": {"x": {"y": 1}, "known": {"a": "1"}},
            "resource": {"apiVersion": "v1", "kind": "T", "metadata": {"odd": 1}, "spec": {"a": "1"}}, "any": {"x": {}},
        },
    });
    assert_eq!(object, expected);
    assert!(schema.prune(&mut object).is_empty());
}

#[test]
fn defaults_set_absent_fields_and_replace_null() {
    let schema = schema_of(json!({"type": "object", "default": {}, "properties": {
        "a": {"type": "string", "default": "A"},
        "nullable": {"type": "string", "default": "N", "nullable": true},
        "plain": {"type": "string"},
        "o": {"type": "object", "properties": {"b": {"type": "integer", "default": 3}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "boolean", "default": false}}}},
        "map": {"type": "object", "additionalProperties": {"type": "integer", "default": 7}},
    }}));
    for (input, expected) in [
        (json!({"spec": {}}), json!({"spec": {"x": {"a": "A", "nullable": "N"}}})),
        (json!({}), json!({})),
        (
            json!({"spec": {"x": {"a": null, "nullable": null, "plain": null, "o": {}, "list": [{}, {"c": true}], "map": {"k": null}}}}),
            json!({"spec": {"x": {"a": "A", "nullable": null, "o": {"b": 3}, "list": [{"c": false}, {"c": true}], "map": {"k": 7}}}}),
        ),
    ] {
        let mut object = input;
        schema.drop_nulls(&mut object);
        schema.default(&mut object).unwrap();
        assert_eq!(object, expected);
        schema.default(&mut object).unwrap();
        assert_eq!(object, expected);
    }
}

#[test]
fn defaults_are_limited_by_the_memory_of_an_object() {
    let big = json!({"type": "string", "default": "x".repeat(100_000)});
    let schema = schema_of(json!({"type": "array", "items": {"type": "object", "properties": {"a": big}}}));
    let mut object = object_of(Value::Array(vec![json!({}); 1000]));
    assert!(schema.default(&mut object).is_err());
}

#[test]
fn metadata_of_embedded_resources_is_coerced_and_validated() {
    let schema = schema_of(
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
    );
    let resource =
        |metadata: Value| object_of(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}));
    let mut object = resource(json!({"name": "a", "odd": 1, "labels": {"a": "b"}}));
    assert_eq!(
        schema.coerce_metadata(&mut object, Malformed::Refuse),
        Ok(vec!["spec.x.metadata.odd".to_owned()])
    );
    assert_eq!(object["spec"]["x"]["metadata"], json!({"name": "a", "labels": {"a": "b"}}));

    let mut malformed = resource(json!({"name": 5, "labels": {"a": "b"}}));
    let error = schema.coerce_metadata(&mut malformed.clone(), Malformed::Refuse).unwrap_err();
    assert_eq!(error.field.as_str(), "spec.x.metadata");
    schema.coerce_metadata(&mut malformed, Malformed::Drop).unwrap();
    assert_eq!(malformed["spec"]["x"]["metadata"], json!({"labels": {"a": "b"}}));

    let shown = |value: Value| {
        let found = schema.validate(&object_of(value), None);
        found.errors.iter().map(|error| error.field.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        shown(json!({"apiVersion": "a/b/c", "kind": "no kind", "metadata": {"name": "a/b"}})),
        ["spec.x.apiVersion", "spec.x.kind", "spec.x.metadata.name"]
    );
    assert_eq!(shown(json!({})), ["spec.x.apiVersion", "spec.x.kind"]);
    assert_eq!(shown(json!({"apiVersion": "v1", "kind": "Pod"})), [""; 0]);
}

#[test]
fn the_number_of_errors_is_bounded() {
    let schema = schema_of(json!({"type": "array", "items": {"type": "integer"}}));
    let object = object_of(Value::Array((0..10_000).map(|n| json!(format!("{n}"))).collect()));
    assert_eq!(schema.validate(&object, None).errors.len(), 100);
}

#[test]
fn errors_of_large_values_are_small() {
    let patterns: Vec<Value> = (0..90).map(|n| json!({"pattern": format!("^{n}$")})).collect();
    let enums: Vec<Value> = (0..90).map(|n| json!({"enum": [n]})).collect();
    let list: Vec<Value> = (0..50_000).map(|n| json!({"n": n})).collect();
    for (property, value) in [
        (json!({"type": "string", "allOf": patterns}), json!("x".repeat(1_000_000))),
        (json!({"type": "array", "items": {"type": "object"}, "allOf": enums}), json!(list)),
        (json!({"type": "string", "format": "uuid"}), json!("x".repeat(1_000_000))),
    ] {
        let found = schema_of(property).validate(&object_of(value), None);
        let size: usize =
            found.errors.iter().map(|error| error.value.to_string().len() + error.detail.len()).sum();
        assert!(!found.errors.is_empty() && size < 1_000_000, "{size}");
    }
}
