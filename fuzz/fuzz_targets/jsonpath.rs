//! JSON paths of printer columns, regular expressions in Go's syntax, and string formats.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nave_machinery::{Value, go_regex, time};
use nave_structural::formats::Format;
use nave_structural::jsonpath::JsonPath;
use nave_structural::{PrinterColumn, SelectablePath};
use serde_json::json;

static OBJECT: LazyLock<Value> = LazyLock::new(|| {
    let conditions = json!([{"type": "Ready", "status": "True", "n": 1}, {"type": "Other", "status": "False", "n": 2.5}]);
    json!({"a": {"b": [1, 2, [3, {"c": "d"}]], "conditions": conditions}, "when": "2026-01-01T00:00:00Z", "none": null})
});

const FORMATS: [&str; 26] = [
    "bsonobjectid", "uri", "email", "hostname", "ipv4", "ipv6", "cidr", "mac", "uuid", "uuid3", "uuid4", "uuid5", "isbn",
    "isbn10", "isbn13", "creditcard", "ssn", "hexcolor", "rgbcolor", "byte", "date", "duration", "datetime", "date-time",
    "k8s-short-name", "k8s-long-name",
];

fuzz_target!(|input: (&str, &str)| {
    let (path, text) = input;
    if let Ok(parsed) = JsonPath::parse(path) {
        let _ = parsed.find(&OBJECT);
    }
    for kind in ["string", "integer", "number", "boolean", "date"] {
        if let Ok(column) = PrinterColumn::new(kind, path) {
            let _ = column.cell(&OBJECT, time::now());
        }
    }
    if let Ok(field) = SelectablePath::parse(path) {
        let _ = field.value(&OBJECT);
    }
    if let Ok(regex) = go_regex::compile(path) {
        let _ = regex.is_match(text);
    }
    for format in FORMATS {
        let _ = Format::supported(format, "").map(|format| format.matches(text));
    }
});
