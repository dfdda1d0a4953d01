//! CEL expressions: parsing any text returns a result or an error; any checked expression evaluates or fails within its
//! limits.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nave_cel::{Activation, Ast, Decl, DeclSizes, Env, Type, Unlimited};
use serde_json::{Value, json};

const LIMIT: u64 = 20_000;

/// A schema with every kind of value.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let items = json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}});
    json!({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 20}, "n": {"type": "integer"}, "ratio": {"type": "number"},
        "on": {"type": "boolean"}, "blob": {"type": "string", "format": "byte"},
        "wait": {"type": "string", "format": "duration"}, "when": {"type": "string", "format": "date-time"},
        "port": {"x-kubernetes-int-or-string": true}, "maybe": {"type": "string", "nullable": true},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "list": {"type": "array", "maxItems": 5, "items": {"type": "integer"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 10}},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": items},
        "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }})
});

static OBJECT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "name": "web-ä☺", "n": 3, "ratio": 0.5, "on": true, "blob": "AAEC", "wait": "1h", "when": "2024-02-29T12:00:00Z",
        "port": "http", "maybe": null, "set": ["a", "b"], "list": [3, 1, 2], "labels": {"a": "1", "b": "2"},
        "items": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "raw": {"any": [1, null]},
    })
});

static DECL: LazyLock<Decl> = LazyLock::new(|| Decl::from_schema(&SCHEMA, true).expect("the schema has a type"));

static ENV: LazyLock<Env> = LazyLock::new(|| {
    Env::default()
        .with("self", DECL.to_type("selfType"))
        .with("claims", Type::map(Type::String, Type::Dyn))
        .with("x", Type::Dyn)
        .with_patch_types()
});

fuzz_target!(|text: &str| {
    let Ok(ast) = Ast::compile(text, &ENV) else { return };
    let _ = ast.estimate(&Unlimited);
    let _ = ast.estimate(&DeclSizes(vec![("self", &DECL)]));
    let _ = ast.reads("claims", "sub");
    let Ok(program) = ast.program() else { return };
    let claims = json!({"sub": "alice", "n": 7, "groups": ["dev", "ops"], "nested": {"a": [1, 2.5, null, true]}});
    let x = json!([{"a": {"b": "c"}}, 9_007_199_254_740_993u64, 1e300, "10Ki", "::1", "1.2.3"]);
    let activation = Activation::new().with("claims", &claims).with("x", &x).with_typed("self", &OBJECT, &DECL);
    let outcome = program.evaluate(&activation, LIMIT);
    let _ = outcome.json();
    // The evaluation of a program has no state.
    let again = program.evaluate(&activation, LIMIT);
    assert_eq!((outcome.cost, outcome.bool()), (again.cost, again.bool()), "{text}");
});
