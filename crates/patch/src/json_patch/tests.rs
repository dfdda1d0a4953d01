use proptest::prelude::*;
use serde_json::json;

use super::*;

fn patched(mut target: Value, patch: &Value) -> Result<Value, PatchError> {
    apply(&mut target, patch).map(|()| target)
}

#[test]
fn applies_each_operation() {
    let cases = [
        (json!({"a": 1}), json!({"op": "add", "path": "/b", "value": 2}), json!({"a": 1, "b": 2})),
        (json!([1, 3]), json!({"op": "add", "path": "/1", "value": 2}), json!([1, 2, 3])),
        (json!([1]), json!({"op": "add", "path": "/-", "value": 2}), json!([1, 2])),
        (json!([1, 2]), json!({"op": "replace", "path": "/-1", "value": 9}), json!([1, 9])),
        (json!({"a": 1}), json!({"op": "remove", "path": "/a"}), json!({})),
        (
            json!({"a/b": {"~": 1}}),
            json!({"op": "replace", "path": "/a~1b/~0", "value": 2}),
            json!({"a/b": {"~": 2}}),
        ),
        (
            json!({"a": {"x": 1}, "b": {}}),
            json!({"op": "move", "from": "/a/x", "path": "/b/y"}),
            json!({"a": {}, "b": {"y": 1}}),
        ),
        (json!({"a": [1]}), json!({"op": "copy", "from": "/a/0", "path": "/a/-"}), json!({"a": [1, 1]})),
        (json!({"a": 1}), json!({"op": "test", "path": "/a", "value": 1}), json!({"a": 1})),
        (json!({"a": 1}), json!({"op": "test", "path": "/b", "value": null}), json!({"a": 1})),
        (json!({"a": 1}), json!({"op": "replace", "path": "", "value": {"b": 2}}), json!({"b": 2})),
        (json!({"a": 1}), json!({"op": "test", "path": "", "value": {"a": 1}}), json!({"a": 1})),
        // Upstream's library accepts these.
        (json!({}), json!({"op": "replace", "path": "/a", "value": 1}), json!({"a": 1})),
        (json!({}), json!({"op": "add", "path": "/a"}), json!({"a": null})),
        (json!({}), json!({"op": "copy", "from": "/a", "path": "/b"}), json!({"b": null})),
        (json!([1, 2]), json!({"op": "add", "path": "/-1", "value": 3}), json!([1, 2, 3])),
        (json!([1, 2]), json!({"op": "add", "path": "/-3", "value": 3}), json!([3, 1, 2])),
        (json!([1, 2]), json!({"op": "replace", "path": "/01", "value": 3}), json!([1, 3])),
        (json!([1, 2]), json!({"op": "replace", "path": "/+1", "value": 3}), json!([1, 3])),
        (json!([1, 2]), json!({"op": "remove", "path": "/-0"}), json!([2])),
        (json!({"a": 1}), json!({"op": "remove", "path": "x/a"}), json!({})),
        (json!([1, {}]), json!({"op": "move", "from": "/0", "path": "/0/x"}), json!([{"x": 1}])),
    ];
    for (target, operation, wanted) in cases {
        assert_eq!(patched(target, &json!([operation])), Ok(wanted), "{operation}");
    }
}

#[test]
fn distinguishes_malformed_and_inapplicable_patches() {
    let unfit = [
        json!({"op": "test", "path": "/a", "value": 2}),
        json!({"op": "remove", "path": "/none"}),
        json!({"op": "replace", "path": "/none/x", "value": 1}),
        json!({"op": "replace", "path": "/l/1", "value": 1}),
        json!({"op": "replace", "path": "/l/-2", "value": 1}),
        json!({"op": "replace", "path": "/l/-", "value": 1}),
        json!({"op": "copy", "from": "/none/x", "path": "/a"}),
        json!({"op": "test", "path": "/l/1"}),
        json!({"op": "add", "path": "/none/x", "value": 1}),
        json!({"op": "add", "path": "/l/5", "value": 1}),
        json!({"op": "add", "path": "/l/x", "value": 1}),
        json!({"op": "move", "from": "/o", "path": "/o/x"}),
        // Only `replace` and `test` can name the whole document.
        json!({"op": "add", "path": "", "value": {}}),
        json!({"op": "remove", "path": ""}),
        json!({"op": "copy", "from": "", "path": "/a"}),
        json!({"op": "move", "from": "/a", "path": ""}),
        json!({"op": "replace", "path": "", "value": 1}),
        json!({"op": "replace", "path": ""}),
        json!({"op": 1, "path": "/a"}),
        json!({"op": "remove", "path": 1}),
        json!({"op": "zap", "path": "/a"}),
        json!({"op": "remove", "path": "a"}),
        json!({"op": "remove"}),
        json!({}),
        json!(null),
    ];
    for operation in unfit {
        let outcome = patched(json!({"a": 1, "l": [1], "o": {}}), &json!([operation]));
        assert_eq!(outcome.unwrap_err().into_status().code, 422, "{operation}");
    }
    for (patch, why) in [
        (json!({"op": "x"}), "object into Go value of type jsonpatch.Patch"),
        (json!("x"), "string into Go value of type jsonpatch.Patch"),
        (json!([1]), "number into Go value of type jsonpatch.Operation"),
    ] {
        let status = patched(json!({}), &patch).unwrap_err().into_status();
        assert_eq!((status.code, status.message), (400, format!("json: cannot unmarshal {why}")), "{patch}");
    }
    for (patch, why) in [
        (json!({"op": "x"}), "object into Go value of type []handlers.jsonPatchOp"),
        (json!("x"), "string into Go value of type []handlers.jsonPatchOp"),
        (json!([1]), "number into Go value of type handlers.jsonPatchOp"),
        (json!([{"op": 1}]), "number into Go struct field jsonPatchOp.op of type string"),
        (json!([{"path": []}]), "array into Go struct field jsonPatchOp.path of type string"),
    ] {
        let status = check_strict(&patch).unwrap_err().into_status();
        let wanted = format!("error decoding patch: json: cannot unmarshal {why}");
        assert_eq!((status.code, status.message), (400, wanted), "{patch}");
    }
    for nothing in [json!(null), json!([])] {
        assert_eq!(patched(json!({"a": 1}), &nothing), Ok(json!({"a": 1})));
    }
    let unknown = json!([{"op": "add", "x": 1}, {"path": "", "from": "", "value": 1}, 5, {"y\"": 1}]);
    assert_eq!(unknown_fields(&unknown), [r#"unknown field "[0].x""#, r#"unknown field "[3].y\"""#]);
}

#[test]
fn limits_the_growth_of_the_object() {
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["xxxxxxxxxxxxxxxx"]})];
    operations.extend((0..60).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})));
    assert_eq!(patched(json!({}), &Value::Array(operations)).unwrap_err().into_status().code, 422);
    let many = vec![json!({"op": "test", "path": "/x"}); MAX_OPERATIONS + 1];
    assert_eq!(patched(json!({}), &Value::Array(many)).unwrap_err().into_status().code, 413);
}

/// A short JSON text with many values.
#[test]
fn limits_the_memory_of_copies() {
    let copy = json!({"op": "copy", "from": "/a", "path": "/b/-"});
    let target = json!({"a": vec![json!({"": 0}); 10_000], "b": []});
    let error = patched(target, &Value::Array(vec![copy; 40])).unwrap_err();
    assert_eq!(error, PatchError::Limit(LimitError::TooLarge));
}

/// Tries every way to deepen an object. Neither the result nor an intermediate state exceeds the limit.
#[test]
fn limits_the_depth_of_the_object() {
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!({"a": inner}));
    let path = |depth: usize| "/a".repeat(depth);
    let half = MAX_DEPTH / 2;
    let target = json!({"a": nested(half), "b": nested(half), "c": {}});
    let doubling =
        (0..20).map(|at| json!({"op": "copy", "from": "/c", "path": path((1 << at).min(MAX_DEPTH))}));
    let too_deep = [
        json!([{"op": "add", "path": path(half + 1), "value": nested(half)}]),
        json!([{"op": "replace", "path": path(half + 1), "value": nested(half)}]),
        json!([{"op": "copy", "from": "/b", "path": path(half + 1)}]),
        json!([{"op": "move", "from": "/b", "path": path(half + 1)}]),
        json!([{"op": "replace", "path": "", "value": nested(MAX_DEPTH + 1)}]),
        json!([{"op": "add", "path": path(half + 1), "value": nested(half)}, {"op": "remove", "path": "/a"}]),
        Value::Array(vec![json!({"op": "copy", "from": "/a", "path": path(half)}); 2]),
        Value::Array(
            std::iter::once(json!({"op": "copy", "from": "/a", "path": "/c/a"})).chain(doubling).collect(),
        ),
    ];
    for patch in too_deep {
        let error = patched(target.clone(), &patch).unwrap_err();
        assert_eq!(error, PatchError::Limit(LimitError::TooDeep), "{patch}");
    }
    let deepest = [
        json!([{"op": "add", "path": path(half + 1), "value": nested(half - 1)}]),
        json!([{"op": "move", "from": "/b", "path": path(half)}]),
        json!([{"op": "replace", "path": "", "value": nested(MAX_DEPTH)}]),
    ];
    for patch in deepest {
        let object = patched(target.clone(), &patch).unwrap();
        assert_eq!(limits::check(&object), Ok(()), "{patch}");
    }
}

/// Each operation alone is cheap, but a patch may have 10,000.
#[test]
fn limits_the_cost_of_all_operations() {
    let list = json!({"a": vec![0; 300_000], "b": {"c": {}}});
    let front = json!({"op": "add", "path": "/a/0", "value": 0});
    let shift = json!({"op": "move", "from": "/a/0", "path": "/a/1"});
    let gone = json!({"op": "remove", "path": "/a/0"});
    let moved = [
        json!({"op": "move", "from": "/a", "path": "/b/c/a"}),
        json!({"op": "move", "from": "/b/c/a", "path": "/a"}),
    ];
    for operations in [
        vec![front; 1000],
        vec![shift; 1000],
        vec![gone; 1000],
        moved.iter().cycle().take(1000).cloned().collect(),
    ] {
        let error = patched(list.clone(), &Value::Array(operations)).unwrap_err();
        assert_eq!(error, PatchError::Limit(LimitError::TooLarge));
    }
}

proptest! {
    #[test]
    fn adding_then_removing_changes_nothing(name in "[a-c/~]{1,3}", value in any::<i32>()) {
        let path = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        let target = json!({"z": 1});
        let patch = json!([{"op": "add", "path": path, "value": value}, {"op": "remove", "path": path}]);
        prop_assert_eq!(patched(target.clone(), &patch).unwrap(), target);
    }

    #[test]
    fn applying_never_panics(op in "add|remove|replace|move|copy|test", path in "[-/a0-9~]{0,6}", from in "[-/a0-9~]{0,6}") {
        let operation = json!([{"op": op, "path": path, "from": from, "value": [1]}]);
        let _ = patched(json!({"a": [1, {"0": []}], "0": {"a": 1}}), &operation);
    }
}

/// RFC 6902, appendix A. `None` is an error.
#[test]
fn applies_the_examples_of_the_rfc() {
    let waldo = json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}});
    let moved = json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}});
    let grass = json!({"foo": ["all", "grass", "cows", "eat"]});
    let escaped = json!({"/": 9, "~1": 10});
    let cases = [
        (
            "A.1",
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux"}]),
            Some(json!({"baz": "qux", "foo": "bar"})),
        ),
        (
            "A.2",
            json!({"foo": ["bar", "baz"]}),
            json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
            Some(json!({"foo": ["bar", "qux", "baz"]})),
        ),
        (
            "A.3",
            json!({"baz": "qux", "foo": "bar"}),
            json!([{"op": "remove", "path": "/baz"}]),
            Some(json!({"foo": "bar"})),
        ),
        (
            "A.4",
            json!({"foo": ["bar", "qux", "baz"]}),
            json!([{"op": "remove", "path": "/foo/1"}]),
            Some(json!({"foo": ["bar", "baz"]})),
        ),
        (
            "A.5",
            json!({"baz": "qux", "foo": "bar"}),
            json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
            Some(json!({"baz": "boo", "foo": "bar"})),
        ),
        ("A.6", waldo, json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]), Some(moved)),
        (
            "A.7",
            grass,
            json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
            Some(json!({"foo": ["all", "cows", "eat", "grass"]})),
        ),
        (
            "A.8",
            json!({"baz": "qux", "foo": ["a", 2, "c"]}),
            json!([{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}]),
            Some(json!({"baz": "qux", "foo": ["a", 2, "c"]})),
        ),
        ("A.9", json!({"baz": "qux"}), json!([{"op": "test", "path": "/baz", "value": "bar"}]), None),
        (
            "A.10",
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/child", "value": {"grandchild": {}}}]),
            Some(json!({"foo": "bar", "child": {"grandchild": {}}})),
        ),
        (
            "A.11",
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]),
            Some(json!({"foo": "bar", "baz": "qux"})),
        ),
        ("A.12", json!({"foo": "bar"}), json!([{"op": "add", "path": "/baz/bat", "value": "qux"}]), None),
        // A.13, a duplicate `op`, is an error of field validation.
        (
            "A.14",
            escaped.clone(),
            json!([{"op": "test", "path": "/~01", "value": 10}]),
            Some(escaped.clone()),
        ),
        ("A.15", escaped, json!([{"op": "test", "path": "/~01", "value": "10"}]), None),
        (
            "A.16",
            json!({"foo": ["bar"]}),
            json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
            Some(json!({"foo": ["bar", ["abc", "def"]]})),
        ),
    ];
    for (section, target, patch, wanted) in cases {
        assert_eq!(patched(target, &patch).ok(), wanted, "{section}");
    }
}
