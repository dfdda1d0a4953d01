//! Properties of random schemas and objects, compared with a direct evaluation of the schema.

#![allow(missing_docs, clippy::unwrap_used)]

use nave_machinery::Value;
use nave_structural::Structural;
use nave_structural::jsonpath::JsonPath;
use proptest::prelude::*;
use serde_json::json;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-4i64..8).prop_map(Value::from),
        (-8i64..16).prop_map(|n| json!(n as f64 / 2.0)),
        prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(1 << 53)].prop_map(Value::from),
        "[ab]{0,4}".prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Generates value validations without structure. Bounds are multiples of `unit`.
fn rules(unit: f64) -> impl Strategy<Value = Value> {
    let bound = move || (-4i64..8).prop_map(move |n| json!(n as f64 * unit));
    prop_oneof![
        Just(json!({})),
        (bound(), any::<bool>())
            .prop_map(|(n, exclusive)| json!({"minimum": n, "exclusiveMinimum": exclusive})),
        (bound(), any::<bool>())
            .prop_map(|(n, exclusive)| json!({"maximum": n, "exclusiveMaximum": exclusive})),
        (1i64..6).prop_map(move |n| json!({"multipleOf": n as f64 * unit})),
        (0i64..4).prop_map(|n| json!({"minLength": n, "minItems": n, "minProperties": n})),
        (0i64..4).prop_map(|n| json!({"maxLength": n, "maxItems": n, "maxProperties": n})),
        Just(json!({"pattern": "^a"})),
        prop::collection::vec(scalar(), 1..4).prop_map(|list| json!({"enum": list})),
        prop::collection::vec("[a-d]", 0..3).prop_map(|names| json!({"required": names})),
    ]
}

/// Generates schemas, structural or not, because validation must not depend on structural rules.
fn schema() -> impl Strategy<Value = Value> {
    prop_oneof![schema_of(Bounds::Whole), schema_of(Bounds::Halves)]
}

/// The bounds of numbers in a schema.
#[derive(Clone, Copy, PartialEq)]
enum Bounds {
    Whole,
    /// Upstream truncates such bounds for integers, which is stricter than the schema. Under `not` and `oneOf`,
    /// truncation would be more lenient, so these are not generated.
    Halves,
}

fn schema_of(bounds: Bounds) -> impl Strategy<Value = Value> {
    let unit = if bounds == Bounds::Whole { 1.0 } else { 0.5 };
    let leaf = (
        rules(unit),
        prop::sample::select(vec!["string", "integer", "number", "boolean", "object", "array", ""]),
        any::<bool>(),
        prop::option::of(value()),
    );
    let leaf = leaf.prop_map(|(mut rules, kind, nullable, default)| {
        rules["type"] = json!(kind);
        rules["nullable"] = json!(nullable);
        if let Some(default) = default {
            rules["default"] = default;
        }
        rules
    });
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let some = prop::collection::vec(inner.clone(), 1..3);
        (inner.clone(), some, prop::collection::btree_map("[a-d]", inner, 0..3), 0u8..9).prop_map(
            move |(mut schema, some, properties, form)| {
                let form = if bounds == Bounds::Halves && matches!(form, 6 | 7) { 5 } else { form };
                match form {
                    0 => schema["properties"] = json!(properties),
                    1 => schema["additionalProperties"] = some[0].clone(),
                    2 => schema["additionalProperties"] = json!(false),
                    3 => schema["items"] = some[0].clone(),
                    4 => schema["allOf"] = json!(some),
                    5 => schema["anyOf"] = json!(some),
                    6 => schema["oneOf"] = json!(some),
                    7 => schema["not"] = some[0].clone(),
                    _ => schema["x-kubernetes-int-or-string"] = json!(true),
                }
                schema
            },
        )
    })
}

/// Returns whether a number is a multiple of a factor. Large integers are divided as integers, because a double cannot
/// hold them.
fn is_multiple(value: &Value, own: f64, factor: f64) -> bool {
    match value.as_i64() {
        Some(integer) if factor.fract() == 0.0 && factor.abs() < 1e15 => integer % (factor as i64) == 0,
        _ => (own / factor).fract() == 0.0,
    }
}

/// Returns whether a value matches a schema, evaluated directly.
fn fits(schema: &Value, value: &Value) -> bool {
    let number = |name: &str| schema[name].as_f64();
    let count = |name: &str| schema[name].as_u64().map(|count| count as usize);
    let within = |size: usize, min: &str, max: &str| {
        count(min).is_none_or(|min| size >= min) && count(max).is_none_or(|max| size <= max)
    };
    let list = |name: &str| schema[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let fitting = |name: &str| list(name).iter().filter(|schema| fits(schema, value)).count();
    if value.is_null() {
        // As upstream, `null` is checked by type and enumeration only, and no enumeration contains it.
        let typed =
            schema["type"] != "" && !schema["type"].is_null() || schema["x-kubernetes-int-or-string"] == true;
        return (!typed || schema["nullable"] == true) && list("enum").is_empty();
    }
    let logic = fitting("allOf") == list("allOf").len()
        && (list("anyOf").is_empty() || fitting("anyOf") > 0)
        && (list("oneOf").is_empty() || fitting("oneOf") == 1)
        && (schema["not"].is_null() || !fits(&schema["not"], value));
    let kind = match (schema["x-kubernetes-int-or-string"] == true, schema["type"].as_str()) {
        (true, _) => value.is_string() || is_integer(value),
        (false, Some("string")) => value.is_string(),
        (false, Some("integer")) => is_integer(value),
        (false, Some("number")) => value.is_number(),
        (false, Some("boolean")) => value.is_boolean(),
        (false, Some("object")) => value.is_object(),
        (false, Some("array")) => value.is_array(),
        _ => true,
    };
    let among = list("enum").is_empty() || list("enum").iter().any(|known| same(known, value));
    let own = match value {
        Value::Number(_) => {
            let own = value.as_f64().unwrap();
            number("minimum")
                .is_none_or(|min| if schema["exclusiveMinimum"] == true { own > min } else { own >= min })
                && number("maximum")
                    .is_none_or(|max| if schema["exclusiveMaximum"] == true { own < max } else { own <= max })
                && number("multipleOf").is_none_or(|factor| is_multiple(value, own, factor))
        }
        Value::String(text) => {
            within(text.chars().count(), "minLength", "maxLength")
                && (schema["pattern"].is_null() || text.starts_with('a'))
        }
        Value::Array(items) => {
            within(items.len(), "minItems", "maxItems")
                && (schema["items"].is_null() || items.iter().all(|item| fits(&schema["items"], item)))
        }
        Value::Object(fields) => {
            within(fields.len(), "minProperties", "maxProperties")
                && list("required").iter().all(|name| fields.contains_key(name.as_str().unwrap()))
                && fields.iter().all(|(name, value)| {
                    match (&schema["properties"][name], &schema["additionalProperties"]) {
                        (Value::Null, Value::Bool(allowed)) => *allowed,
                        (Value::Null, Value::Null) => true,
                        (Value::Null, additional) => fits(additional, value),
                        (property, _) => fits(property, value),
                    }
                })
        }
        _ => true,
    };
    logic && kind && among && own
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.as_f64().is_some_and(|float| float.fract() == 0.0)
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || a.is_number() && a.as_f64() == b.as_f64()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepts_only_values_that_the_reference_accepts(schema in schema(), value in value()) {
        let root = json!({"type": "object", "properties": {"x": schema}});
        let accepted = Structural::compile(&root).unwrap().validate(&json!({"x": value}), None).errors.is_empty();
        prop_assert!(!accepted || fits(&schema, &value), "{schema} accepts {value}");
    }

    #[test]
    fn updates_accept_unchanged_and_valid_objects(schema in schema(), old in value(), new in value()) {
        let root = json!({"type": "object", "properties": {"x": schema}});
        let schema = Structural::compile(&root).unwrap();
        let (old, new) = (json!({"x": old}), json!({"x": new}));
        let created = schema.validate(&new, None);
        prop_assert!(schema.validate(&new, Some(&new)).errors.is_empty());
        if created.errors.is_empty() {
            prop_assert!(schema.validate(&new, Some(&old)).errors.is_empty());
        }
    }

    #[test]
    fn pruning_and_defaulting_are_idempotent(schema in schema(), value in value()) {
        let root = json!({"type": "object", "properties": {"x": schema}});
        let schema = Structural::compile(&root).unwrap();
        let mut object = json!({"x": value, "y": 1});
        schema.prune(&mut object);
        schema.drop_nulls(&mut object);
        let pruned = object.clone();
        prop_assert!(schema.prune(&mut object).is_empty());
        schema.drop_nulls(&mut object);
        prop_assert_eq!(&object, &pruned);
        schema.default(&mut object).unwrap();
        let defaulted = object.clone();
        schema.default(&mut object).unwrap();
        prop_assert_eq!(object, defaulted);
    }

    #[test]
    fn evaluating_any_path_terminates(path in r"(\.[a-d*]|\.\.|\[[0-9:*,'a-d-]{0,5}\]|\[\?\(@\.[a-d](==|<|>=)?['1a]{0,3}\)\]|.){0,8}", value in value()) {
        if let Ok(path) = JsonPath::parse(&path) {
            let _ = path.find(&value);
        }
    }
}
