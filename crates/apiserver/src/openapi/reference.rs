//! Compares the documents with recordings of kube-apiserver 1.36, if available; ignores descriptions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use nave_machinery::{Map, Value};
use serde_json::json;

use super::{Coverage, Documentation, GroupVersion, OpenApi, Registry};

/// Allowed differences: a prefix of the JSON pointer, `+` for ours or `-` for theirs, and the reason after `#`.
const ALLOWED: &str = include_str!("reference_differences.txt");

fn recorded(name: &str) -> Option<Value> {
    let root = std::env::var_os("NAVE_REFERENCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference"),
        PathBuf::from,
    );
    let path = root.join(name);
    let Ok(bytes) = std::fs::read(&path) else {
        println!("SKIPPED: there is no {}", path.display());
        return None;
    };
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn openapi() -> OpenApi {
    OpenApi::new(&Arc::new(Registry::builtin(nave_schema::builtin())))
}

/// Reduces a document to its structure: removes descriptions and the digests in the names of shared parameters, and
/// sorts lists that are sets.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let prose = |name: &str, value: &Value| name == "description" && value.is_string();
            let fields = map.iter().filter(|(name, value)| !prose(name, value));
            let fields: Map = fields.map(|(name, value)| (name.clone(), field(name, value))).collect();
            Value::Object(fields)
        }
        Value::Array(values) => values.iter().map(bare).collect(),
        other => other.clone(),
    }
}

fn field(name: &str, value: &Value) -> Value {
    let value = bare(value);
    match (name, value) {
        ("parameters", Value::Object(shared)) => field(name, &shared.values().cloned().collect()),
        (
            "required" | "enum" | "x-kubernetes-group-version-kind" | "parameters",
            Value::Array(mut values),
        ) => {
            values.sort_by_key(Value::to_string);
            Value::Array(values)
        }
        ("$ref", Value::String(text)) => match text.strip_prefix("#/parameters/") {
            Some(shared) => json!(shared.split('-').next()),
            None => json!(text),
        },
        (_, value) => value,
    }
}

fn differences(at: &str, ours: Option<&Value>, theirs: Option<&Value>, out: &mut BTreeSet<String>) {
    match (ours, theirs) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            for name in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
                let at = format!("{at}/{}", name.replace('/', "~1"));
                differences(&at, ours.get(name), theirs.get(name), out);
            }
        }
        (Some(ours), Some(theirs)) if ours != theirs => {
            out.insert(format!("{at} + {ours}"));
            out.insert(format!("{at} - {theirs}"));
        }
        (Some(ours), None) => drop(out.insert(format!("{at} + {ours}"))),
        (None, Some(theirs)) => drop(out.insert(format!("{at} - {theirs}"))),
        _ => {}
    }
}

fn compare(name: &str, ours: &Value, theirs: &Value) {
    let mut found = BTreeSet::new();
    differences("", Some(&bare(ours)), Some(&bare(theirs)), &mut found);
    let allowed: Vec<&str> = ALLOWED
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .collect();
    let used = |prefix: &&str| found.iter().any(|line| line.starts_with(prefix));
    let idle: Vec<_> = allowed.iter().filter(|prefix| !used(prefix)).collect();
    let new: Vec<_> =
        found.iter().filter(|line| !allowed.iter().any(|prefix| line.starts_with(prefix))).collect();
    for line in &new {
        println!("{}", line.chars().take(300).collect::<String>());
    }
    assert!(new.is_empty(), "{name}: {} differences that are not allowed", new.len());
    assert!(idle.is_empty(), "{name}: allowed differences that no longer exist: {idle:?}");
}

#[test]
fn version_2_is_as_recorded() {
    let Some(theirs) = recorded("openapi-v2-structure.json") else { return };
    let ours = openapi().make_v2(&Coverage::Everything, &Documentation::new());
    compare("v2", &ours, &theirs);
}

#[test]
fn version_3_is_as_recorded() {
    let Some(theirs) = recorded("openapi-v3-apps-v1-structure.json") else { return };
    compare("v3", &openapi().make(&Coverage::Version(GroupVersion::new("apps", "v1"))), &theirs);
}

#[test]
fn the_index_is_as_recorded() {
    let Some(theirs) = recorded("openapi-v3-index.json") else { return };
    let theirs: Map =
        theirs.as_array().unwrap().iter().map(|path| (path.as_str().unwrap().to_owned(), json!(1))).collect();
    let ours: Map = openapi().v3.keys().map(|path| (path.clone(), json!(1))).collect();
    compare("index", &json!(ours), &json!(theirs));
}
