//! Managed fields that make writes expensive: thousands of entries, large sets, and keys that are long, deep or can be
//! written in many ways.

#![allow(clippy::needless_pass_by_value, reason = "parts of objects are given as literals")]

use std::hint::black_box;
use std::rc::Rc;

use nave_codec::json;
use nave_machinery::{Map, Status, Value, meta};
use nave_patch::managed_fields::{ApplyError, FieldManager, FieldSet, TypeRef, Versions};
use nave_schema::{TypeId, builtin};
use serde_json::json;

use crate::measure::{Case, Job};

/// A write: the stored object and the body, together of about the given size, in bytes.
type Shape = (&'static str, fn(usize) -> (Value, Value));

pub(crate) fn updates() -> Vec<Case> {
    let shapes: [Shape; 9] = [
        ("a large set and many small", |size| {
            (map(json!([]), &["a"]), map(large_and_small("Update", size), &["b"]))
        }),
        ("a change and many updaters", |size| {
            let entries = large_and_small("Update", size / 3);
            (map(entries.clone(), &["a"]), map(entries, &keys(size / 40)))
        }),
        ("a change and many appliers", |size| {
            let entries = large_and_small("Apply", size / 3);
            (map(entries.clone(), &["a"]), map(entries, &keys(size / 40)))
        }),
        ("removals from many appliers", |size| {
            let entries = large_and_small("Apply", size / 3);
            (map(entries.clone(), &keys(size / 40)), map(entries, &["a"]))
        }),
        ("many ways to write a key", |size| {
            let spaces = |at: usize| " ".repeat(at % 50) + &"\n".repeat(at / 50);
            let way = |at: usize| (format!("k:{{\"a\":{}1}}", spaces(at)), owned(at..at + 1));
            let mut ways: Map = (0..size / 200).map(way).collect();
            ways.insert("k:{\"a\":1}".to_owned(), owned(0..size / 40));
            sent(ways)
        }),
        ("numbers of one amount", |size| {
            let number = |at: usize| (format!("v:{}.{at:09}e-20", 1u64 << 60), json!({}));
            sent((0..size / 50).map(number).collect())
        }),
        ("lists in keys", |size| sent(key(format!("v:[{}0]", "[],".repeat(size / 3))))),
        ("objects in keys", |size| sent(key(format!("v:[{}0]", "{\"\":0},".repeat(size / 10))))),
        ("long names on the way", |size| {
            let below = owned(0..size / 40);
            let deep =
                (0..40).fold(below, |below, _| json!({ format!("f:{}", "x".repeat(size / 100)): below }));
            sent(key_of(deep))
        }),
    ];
    cases("update", &shapes, |manager, live, mut body| {
        manager.update(Some(live), &mut body, "m");
        Ok(body)
    })
}

pub(crate) fn applies() -> Vec<Case> {
    let shapes: [Shape; 5] = [
        ("conflicts", |size| {
            (map(large_and_small("Apply", size / 2), &["a"]), without_entries(&keys(size / 20)))
        }),
        ("conflicts under a long name", |size| {
            let names: Vec<String> = (0..size / 100).map(|at| format!("e{at}")).collect();
            let owned: Map = names
                .iter()
                .map(|name| (format!("k:{{\"name\":\"{name}\"}}"), json!({"f:value": {}})))
                .collect();
            let long = "n".repeat(size / 4);
            let fields =
                json!({"f:spec": {"f:containers": {format!("k:{{\"name\":\"{long}\"}}"): {"f:env": owned}}}});
            let pod = |value: &str, entries: Value| {
                let env: Vec<Value> =
                    names.iter().map(|name| json!({"name": name, "value": value})).collect();
                pod(&json!([{"name": long, "env": env}]), entries)
            };
            (pod("1", json!([entry("one", "Apply", 0, fields)])), pod("2", Value::Null))
        }),
        ("what others own too", |size| {
            let keys = keys(size / 40);
            (map(large_and_small("Apply", size / 2), &keys), without_entries(&keys))
        }),
        ("what is given up", |size| {
            let mut entries = large_and_small("Apply", size / 2);
            entries[0]["manager"] = json!("m");
            (map(entries, &keys(size / 40)), without_entries(&keys(size / 80)))
        }),
        ("errors under a long name", |size| {
            let fields: Map = (0..size / 20).map(|at| (format!("x{at}"), json!(0))).collect();
            let containers = json!([{"name": "n".repeat(size / 2), "env": [fields]}]);
            (pod(&json!([]), Value::Null), pod(&containers, Value::Null))
        }),
    ];
    cases("apply", &shapes, |manager, live, body| {
        manager.apply(Some(live), &body, "m", false).map_err(ApplyError::into_status)
    })
}

type Write = fn(FieldManager<'_>, &Value, Value) -> Result<Value, Status>;

fn cases(verb: &str, shapes: &[Shape], write: Write) -> Vec<Case> {
    let case = |(name, make): &Shape| {
        let make = *make;
        Case::linear(format!("managed fields/{verb}/{name}"), move |size| {
            let (live, body) = make(size);
            let (live, body) = (Rc::new(live), json::encode(&body));
            let total = json::encode(&*live).len() + body.len();
            Job::new(total, move || match written(&live, &body, write) {
                Ok(object) => drop(black_box(json::encode(&object))),
                Err(status) => {
                    let text = json::encode(&status.to_value());
                    assert!(text.len() < 1 << 20, "an answer of {} bytes", text.len());
                }
            })
        })
    };
    shapes.iter().map(case).collect()
}

fn written(live: &Value, body: &[u8], write: Write) -> Result<Value, Status> {
    let body = json::decode(body).map_err(json::JsonError::into_status)?.value;
    let kind = meta::kind(live);
    let versions = Core(builtin().find(&format!("io.k8s.api.core.v1.{kind}")).unwrap());
    let (subresource, now) = ("", "2026-01-02T03:04:05Z");
    let manager =
        FieldManager { versions: &versions, api_version: "v1", kind, subresource, now, empty: &json!({}) };
    write(manager, live, body)
}

struct Core(TypeId);

impl Versions for Core {
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>> {
        (api_version == "v1").then_some(TypeRef::Struct(builtin(), self.0))
    }

    fn convert(&self, object: &Value, _: &str) -> Result<Value, String> {
        Ok(object.clone())
    }

    fn reset_fields(&self, _: &str) -> Option<&FieldSet> {
        None
    }
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("k{at}")).collect()
}

fn map(entries: Value, keys: &[impl AsRef<str>]) -> Value {
    let data: Map = keys.iter().map(|key| (key.as_ref().to_owned(), json!("x"))).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": entries}, "data": data})
}

fn without_entries(keys: &[String]) -> Value {
    map(Value::Null, keys)
}

fn pod(containers: &Value, entries: Value) -> Value {
    let metadata = json!({"name": "a", "managedFields": entries});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}})
}

/// Returns a stored object and a body that has one entry with these fields below `data`.
fn sent(fields: Map) -> (Value, Value) {
    let entry = entry("one", "Update", 0, json!({ "f:data": fields }));
    (map(json!([]), &["a"]), map(json!([entry]), &["b"]))
}

fn key(text: String) -> Map {
    Map::from_iter([(text, json!({}))])
}

fn key_of(fields: Value) -> Map {
    Map::from_iter([("f:a".to_owned(), fields)])
}

fn owned(keys: std::ops::Range<usize>) -> Value {
    let fields: Map = keys.map(|at| (format!("f:k{at}"), json!({}))).collect();
    json!({ "f:data": fields })
}

fn entry(manager: &str, operation: &str, second: usize, fields: Value) -> Value {
    let time = format!("2026-01-01T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
    json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1",
        "fieldsV1": fields})
}

/// Returns one entry with a set of half of the size, and many entries with one field each.
fn large_and_small(operation: &str, size: usize) -> Value {
    let (large, small) = (size / 2 / 12, size / 2 / 180);
    let each =
        (0..small).map(|at| entry(&format!("m{at}"), operation, at + 1, owned(large + at..large + at + 1)));
    Value::Array([entry("large", operation, 0, owned(0..large))].into_iter().chain(each).collect())
}
