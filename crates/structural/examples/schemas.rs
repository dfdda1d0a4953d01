//! Benchmarks memory and time of many schemas: `cargo run --release -p nave-structural --example schemas [count]`.
//!
//! Each schema is different and has about 50 KB of JSON with descriptions, as the schemas of real operators have.

#![allow(clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use nave_machinery::Value;
use nave_structural::Structural;
use serde_json::json;

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(2000);
    let bytes = schema(0).to_string().len();
    let before = resident();
    let mut compiling = Duration::ZERO;
    let mut compile = |n| {
        let schema = schema(n);
        let start = Instant::now();
        let compiled = Structural::compile(&schema);
        compiling += start.elapsed();
        compiled.ok()
    };
    let schemas: Vec<Structural> = (0..count).filter_map(&mut compile).collect();
    let used = resident().saturating_sub(before);
    println!("{} schemas of {bytes} bytes: {used} KiB resident, compiled in {compiling:?}", schemas.len());

    let object = object();
    let start = Instant::now();
    let errors: usize = schemas.iter().map(|schema| schema.validate(&object, None).errors.len()).sum();
    println!(
        "{} validations of {} bytes: {:?}, {errors} errors",
        schemas.len(),
        object.to_string().len(),
        start.elapsed()
    );
    let start = Instant::now();
    for schema in &schemas {
        let mut copy = object.clone();
        assert!(schema.prune(&mut copy).is_empty());
        assert!(schema.default(&mut copy).is_ok());
    }
    println!("{} copies pruned and defaulted: {:?}", schemas.len(), start.elapsed());
}

/// A schema with 27 groups of ten fields.
fn schema(n: usize) -> Value {
    let words = "Describes the field at length, as the documentation of an operator does for its users.";
    let field = |group: usize, field: usize| {
        let name = format!("field{group}x{field}Of{n}");
        let schema = match field % 5 {
            0 => json!({"type": "string", "description": words, "minLength": 1, "pattern": "^[a-z]+$"}),
            1 => json!({"type": "integer", "description": words, "format": "int32", "default": group}),
            2 => json!({"type": "array", "description": words, "items": {"type": "string"}}),
            3 => {
                json!({"description": words, "x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})
            }
            _ => json!({"type": "object", "description": words, "additionalProperties": {"type": "string"}}),
        };
        (name, schema)
    };
    let group = |group: usize| {
        let fields: serde_json::Map<_, _> = (0..10).map(|n| field(group, n)).collect();
        (format!("group{group}"), json!({"type": "object", "description": words, "properties": fields}))
    };
    let mut groups: serde_json::Map<_, _> = (0..27).map(group).collect();
    groups.insert("items".to_owned(), json!({"type": "array", "items": {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "maxLength": 63}, "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    }}}));
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": groups}}})
}

fn object() -> Value {
    let items: Vec<Value> = (1..100).map(|n| json!({"name": format!("name-{n}"), "port": n})).collect();
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "spec": {"group1": {}, "items": items}})
}

/// Resident memory in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4
}
