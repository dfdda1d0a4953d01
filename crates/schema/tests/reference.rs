//! Checks that `normalize` leaves objects written by a kube-apiserver unchanged. Skipped, with a message, if the
//! recordings are missing.

use std::fs;
use std::path::PathBuf;

use nave_schema::normalize::{Mode, normalize};
use nave_schema::{TypeId, builtin};
use serde_json::Value;

#[test]
fn full_objects_do_not_change() {
    let Ok(entries) = fs::read_dir(folder().join("wire-vectors")) else {
        return println!("skipped: no wire-vectors in {} (NAVE_REFERENCE)", folder().display());
    };
    let mut changed = Vec::new();
    let paths = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"));
    let mut seen = 0;
    for path in paths {
        let object: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        // The recording is from 1.35; 1.36 removed the field.
        let object = without(object, "workloadRef");
        let by_name =
            || builtin().find(&format!("io.k8s.apimachinery.pkg.apis.meta.{}", name.strip_prefix("core.")?));
        let Some(id) = type_of(&object).or_else(by_name) else {
            changed.push(format!("{name}: no type"));
            continue;
        };
        seen += 1;
        changed.extend(change(&name, id, &object));
    }
    assert!(seen > 80, "{seen} vectors");
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

#[test]
fn responses_do_not_change() {
    let names = ["../conformance/expected.json", "bootstrap-rbac.json", "bootstrap-objects.json"];
    let mut changed = Vec::new();
    for name in names {
        let path = folder().join(name);
        let Ok(text) = fs::read_to_string(&path) else {
            println!("skipped: no {} (NAVE_REFERENCE)", path.display());
            continue;
        };
        // Placeholders for times in the recordings.
        let text = text.replace("\"<set>\"", TIME).replace("\"<time>\"", TIME);
        answers(&serde_json::from_str(&text).unwrap(), name, &mut changed);
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

fn answers(value: &Value, at: &str, changed: &mut Vec<String>) {
    // A reference also has apiVersion and kind.
    if let Some(id) = type_of(value).filter(|_| !at.ends_with("Ref") && !is_summary(value)) {
        changed.extend(change(at, id, value));
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                answers(value, &format!("{at}/{key}"), changed);
            }
        }
        Value::Array(list) => {
            for (n, value) in list.iter().enumerate() {
                answers(value, &format!("{at}/{n}"), changed);
            }
        }
        _ => {}
    }
}

/// Returns whether the recording contains only a summary: the kind and, for an error, code and reason.
fn is_summary(value: &Value) -> bool {
    let kept = ["kind", "apiVersion", "code", "reason"];
    value.as_object().is_some_and(|fields| fields.keys().all(|field| kept.contains(&field.as_str())))
}

fn change(name: &str, id: TypeId, object: &Value) -> Option<String> {
    let mut normal = object.clone();
    match normalize(builtin(), id, &mut normal, Mode::Report) {
        Err(error) => Some(format!("{name}: {error}")),
        Ok(found) if !found.unknown.is_empty() => {
            Some(format!("{name}: unknown {}", found.unknown.join(" ")))
        }
        Ok(_) => (normal != *object).then(|| format!("{name}:{}", difference("", object, &normal))),
    }
}

fn without(value: Value, name: &str) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, _)| key != name);
            kept.map(|(key, value)| (key, without(value, name))).collect()
        }
        Value::Array(list) => list.into_iter().map(|value| without(value, name)).collect(),
        value => value,
    }
}

/// Returns the paths that differ.
fn difference(at: &str, left: &Value, right: &Value) -> String {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<_> = left.keys().chain(right.keys()).collect();
            keys.sort();
            keys.dedup();
            let part = |key: &String| {
                let (left, right) = (left.get(key), right.get(key));
                match (left, right) {
                    (Some(left), Some(right)) => difference(&format!("{at}.{key}"), left, right),
                    (Some(left), None) => format!(" -{at}.{key}={left}"),
                    (None, right) => format!(" +{at}.{key}={}", right.unwrap_or(&Value::Null)),
                }
            };
            keys.into_iter().map(part).collect()
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            left.iter().zip(right).map(|(left, right)| difference(&format!("{at}[]"), left, right)).collect()
        }
        _ if left == right => String::new(),
        _ => format!(" {at}: {left} became {right}"),
    }
}

/// Returns the built-in type of an object, from its apiVersion and kind.
fn type_of(object: &Value) -> Option<TypeId> {
    let (version, kind) = (object.get("apiVersion")?.as_str()?, object.get("kind")?.as_str()?);
    let (group, version) = version.split_once('/').unwrap_or(("core", version));
    let group = group.split('.').next()?;
    let packages = [
        format!("api.{group}"),
        "apimachinery.pkg.apis.meta".to_owned(),
        "apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
        "kube-aggregator.pkg.apis.apiregistration".to_owned(),
    ];
    let mut names = packages.iter().map(|package| format!("io.k8s.{package}.{version}.{kind}"));
    names.find_map(|name| builtin().find(&name))
}

fn folder() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference");
    std::env::var_os("NAVE_REFERENCE").map_or_else(|| beside.into(), PathBuf::from)
}

const TIME: &str = "\"2026-01-02T03:04:05Z\"";
