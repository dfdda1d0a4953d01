//! Patches of each type, applied to objects that make the patches expensive.

use std::hint::black_box;

use nave_codec::json;
use nave_machinery::limits::MAX_DEPTH;
use nave_machinery::{Status, Value};
use nave_patch::{PatchError, json_patch, merge, strategic};
use nave_schema::builtin;
use serde_json::json;

use crate::measure::{Bound, Case, Job};

/// Patches whose cost is limited by the number of operations, copied bytes or moved values, not by the patch size.
const LIMITED: [&str; 8] = [
    "the front of a list",
    "removals from the front",
    "moves in a list",
    "moves of a list",
    "copies of a list",
    "copies of small objects",
    "copies that double",
    "copies over copies",
];

/// An object and a patch, together of about the given size, in bytes.
type Shape = (&'static str, fn(usize) -> (Value, Value));

pub(crate) fn json() -> Vec<Case> {
    let shapes: [Shape; 15] = [
        ("fields", |size| {
            (json!({}), operations(size, |at| json!({"op": "add", "path": format!("/k{at}"), "value": 0})))
        }),
        ("the front of a list", |size| {
            let list = json!({"a": vec![0; size / 4]});
            (list, operations(size / 2, |_| json!({"op": "add", "path": "/a/0", "value": 0})))
        }),
        ("removals from the front", |size| {
            let list = json!({"a": vec![0; size / 4]});
            (list, operations(size / 2, |_| json!({"op": "remove", "path": "/a/0"})))
        }),
        ("moves in a list", |size| {
            let list = json!({"a": vec![0; size / 4]});
            (list, operations(size / 2, |_| json!({"op": "move", "from": "/a/0", "path": "/a/-"})))
        }),
        ("moves of a list", |size| {
            let list = json!({"a": vec![0; size / 4], "b": {"c": {}}});
            let there = json!({"op": "move", "from": "/a", "path": "/b/c/a"});
            let back = json!({"op": "move", "from": "/b/c/a", "path": "/a"});
            (list, operations(size / 2, move |at| if at % 2 == 0 { there.clone() } else { back.clone() }))
        }),
        ("copies of a list", |size| {
            let list = json!({"a": vec![0; size / 4], "b": []});
            (list, operations(size / 2, |_| json!({"op": "copy", "from": "/a", "path": "/b/-"})))
        }),
        ("copies of small objects", |size| {
            let list = json!({"a": vec![json!({"": 0}); size / 16], "b": []});
            (list, operations(size / 2, |_| json!({"op": "copy", "from": "/a", "path": "/b/-"})))
        }),
        ("copies that double", |size| {
            (json!({"a": "x"}), operations(size, |_| json!({"op": "copy", "from": "", "path": "/a"})))
        }),
        ("copies over copies", |size| {
            let text = json!({"a": "x".repeat(size / 2)});
            (text, operations(size / 2, |_| json!({"op": "copy", "from": "/a", "path": "/b"})))
        }),
        ("tests of a list", |size| {
            let list = json!({"a": vec![0; size / 4]});
            (list, operations(size / 2, |_| json!({"op": "test", "path": "/a", "value": [0]})))
        }),
        ("one test of a list", |size| {
            let list = json!(vec![0; size / 4]);
            (json!({"a": list}), json!([{"op": "test", "path": "/a", "value": list}]))
        }),
        ("replacements", |size| {
            let list = json!({"a": vec![0; size / 4]});
            (list, operations(size / 2, |_| json!({"op": "replace", "path": "/a/-1", "value": [1]})))
        }),
        ("long paths", |size| {
            let deep = deep(MAX_DEPTH - 10);
            (
                deep,
                operations(size, |_| json!({"op": "add", "path": "/a".repeat(MAX_DEPTH - 10), "value": 0})),
            )
        }),
        ("a path of slashes", |size| {
            (json!({}), json!([{"op": "add", "path": "/".repeat(size), "value": 0}]))
        }),
        ("paths of escapes", |size| {
            (
                json!({}),
                operations(size, |_| json!({"op": "test", "path": format!("/{}", "~1~0".repeat(100))})),
            )
        }),
    ];
    cases("json patch", &shapes, json_patch::apply)
}

pub(crate) fn merge() -> Vec<Case> {
    let shapes: [Shape; 5] = [
        ("fields", |size| (fields(size / 2, 0, &json!(0)), fields(size / 2, 5, &json!(1)))),
        ("removals", |size| (fields(size / 2, 0, &json!(0)), fields(size / 2, 0, &Value::Null))),
        ("objects", |size| {
            (fields(size / 2, 0, &json!({"a": {}})), fields(size / 2, 0, &json!({"a": {"b": 1}})))
        }),
        ("lists", |size| (json!({"a": vec![0; size / 4]}), json!({"a": vec![1; size / 4]}))),
        ("deep", |size| {
            (fields(size / 2, 0, &deep(MAX_DEPTH - 9)), fields(size / 2, 0, &deep(MAX_DEPTH - 8)))
        }),
    ];
    cases("merge patch", &shapes, merge::apply)
}

pub(crate) fn strategic() -> Vec<Case> {
    let shapes: [Shape; 17] = [
        ("containers", |size| (pod(&containers(size / 2, 0)), pod(&containers(size / 2, 0)))),
        ("containers backwards", |size| {
            (pod(&containers(size / 2, 0)), pod(&reversed(containers(size / 2, 0))))
        }),
        ("other containers", |size| (pod(&containers(size / 2, 0)), pod(&containers(size / 2, 1_000_000)))),
        ("the same container", |size| {
            (pod(&containers(size / 2, 0)), pod(&repeated(size / 2, &json!({"name": "c0"}))))
        }),
        ("the same container twice", |size| {
            (pod(&repeated(size / 2, &json!({"name": "c"}))), pod(&repeated(size / 2, &json!({"name": "c"}))))
        }),
        ("deletions of containers", |size| {
            let delete = |at: usize| json!({"name": format!("c{at}"), "$patch": "delete"});
            (pod(&containers(size / 2, 0)), pod(&numbered(size / 2, delete)))
        }),
        ("replacements of containers", |size| {
            let replace = |at: usize| json!({"name": format!("c{at}"), "$patch": "replace"});
            (pod(&containers(size / 2, 0)), pod(&numbered(size / 2, replace)))
        }),
        ("an order of containers", |size| {
            let mut patch = pod(&reversed(containers(size / 3, 0)));
            patch["spec"]["$setElementOrder/containers"] = reversed(containers(size / 3, 0));
            (pod(&containers(size / 3, 0)), patch)
        }),
        ("an order of other containers", |size| {
            let patch = json!({"spec": {"$setElementOrder/containers": containers(size / 2, 7)}});
            (pod(&containers(size / 2, 0)), patch)
        }),
        ("variables of a container", |size| {
            let env = |from: usize| json!([{"name": "c", "env": containers(size / 2, from)}]);
            (pod(&env(0)), pod(&env(10)))
        }),
        ("orders of many containers", |size| {
            let item = |at: usize| json!({"name": format!("c{at}"), "$setElementOrder/env": [{"name": "a"}], "env": [{"name": "a"}]});
            (pod(&containers(size / 2, 0)), pod(&numbered(size / 2, item)))
        }),
        ("finalizers", |size| (finalizers(&texts(size / 2, 0)), finalizers(&texts(size / 2, 10)))),
        ("finalizers backwards", |size| {
            (finalizers(&texts(size / 2, 0)), finalizers(&reversed(texts(size / 2, 0))))
        }),
        ("an order of finalizers", |size| {
            let patch = json!({"metadata": {"$setElementOrder/finalizers": reversed(texts(size / 2, 0))}});
            (finalizers(&texts(size / 2, 0)), patch)
        }),
        ("deletions of finalizers", |size| {
            let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": texts(size / 2, 0)}});
            (finalizers(&texts(size / 2, 0)), patch)
        }),
        ("kept fields", |size| {
            let mut patch = fields(size / 3, 0, &json!(1));
            patch["$retainKeys"] = numbered(size / 3, |at| json!(format!("k{at}")));
            (
                json!({"metadata": {"labels": fields(size / 3, 0, &json!(0))}}),
                json!({"metadata": {"labels": patch}}),
            )
        }),
        ("keys that are objects", |size| {
            let item = |at: usize| json!({"name": {"a": [at]}});
            (pod(&numbered(size / 2, item)), pod(&reversed(numbered(size / 2, item))))
        }),
    ];
    let id = builtin().find("io.k8s.api.core.v1.Pod").unwrap();
    cases("strategic merge patch", &shapes, move |target, patch| {
        strategic::apply(builtin(), id, target, patch)
    })
}

fn cases(
    kind: &str,
    shapes: &[Shape],
    apply: impl Fn(&mut Value, &Value) -> Result<(), PatchError> + Copy + 'static,
) -> Vec<Case> {
    let case = |(name, shape): &Shape| {
        let shape = *shape;
        let work = move |size: usize| {
            let (object, patch) = shape(size);
            let (object, patch) = (json::encode(&object), json::encode(&patch));
            Job::new(object.len() + patch.len(), move || match patched(&object, &patch, apply) {
                Ok(object) => drop(black_box(json::encode(&object))),
                Err(status) => drop(black_box(json::encode(&status.to_value()))),
            })
        };
        let bound = if LIMITED.contains(name) { Bound::Limited } else { Bound::Linear };
        Case { name: format!("{kind}/{name}"), bound, work: Box::new(work) }
    };
    shapes.iter().map(case).collect()
}

fn patched(
    object: &[u8],
    patch: &[u8],
    apply: impl Fn(&mut Value, &Value) -> Result<(), PatchError>,
) -> Result<Value, Status> {
    let mut object = json::decode(object).map_err(json::JsonError::into_status)?.value;
    let patch = json::decode(patch).map_err(json::JsonError::into_status)?.value;
    apply(&mut object, &patch).map_err(PatchError::into_status)?;
    Ok(object)
}

fn operations(size: usize, operation: impl Fn(usize) -> Value) -> Value {
    let each = json::encode(&operation(1000)).len() + 1;
    (0..(size / each).clamp(1, json_patch::MAX_OPERATIONS)).map(operation).collect()
}

fn numbered(size: usize, item: impl Fn(usize) -> Value) -> Value {
    let each = json::encode(&item(1000)).len() + 1;
    (0..(size / each).max(1)).map(item).collect()
}

fn fields(size: usize, from: usize, value: &Value) -> Value {
    let each = json::encode(value).len() + 9;
    (from..from + (size / each).max(1)).map(|at| (format!("k{at}"), value.clone())).collect()
}

fn containers(size: usize, from: usize) -> Value {
    numbered(size, |at| json!({"name": format!("c{}", at + from)}))
}

fn texts(size: usize, from: usize) -> Value {
    numbered(size, |at| json!(format!("f{}", at + from)))
}

fn repeated(size: usize, item: &Value) -> Value {
    numbered(size, |_| item.clone())
}

fn reversed(mut list: Value) -> Value {
    list.as_array_mut().unwrap().reverse();
    list
}

fn pod(containers: &Value) -> Value {
    json!({"spec": {"containers": containers}})
}

fn finalizers(list: &Value) -> Value {
    json!({"metadata": {"finalizers": list}})
}

fn deep(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!({"a": inner}))
}
