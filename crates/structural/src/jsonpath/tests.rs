use serde_json::json;

use super::*;

fn object() -> Value {
    json!({
        "kind": "T", "n": 3, "f": 1.5, "yes": true, "none": null, "text": "ab", "a.b": "dotted",
        "list": [1, 2, 3, 4, 5],
        "conditions": [
            {"type": "Ready", "status": "True", "n": 1},
            {"type": "Synced", "status": "False", "n": 2, "extra": "x"},
        ],
        "map": {"x": {"name": "first"}, "y": {"name": "second", "inner": {"name": "third"}}},
    })
}

fn find(path: &str) -> Result<Vec<Value>, String> {
    let path = JsonPath::parse(path).map_err(|why| format!("parse: {why}"))?;
    let object = object();
    let found = path.find(&object).map_err(|why| why.to_string())?;
    Ok(found.into_iter().map(Cow::into_owned).collect())
}

#[test]
fn paths_find_values() {
    for (path, expected) in [
        (".kind", json!(["T"])),
        ("$.kind", json!(["T"])),
        (".", json!([])),
        (".missing.deeper", json!([])),
        (".kind.below", json!([])),
        (".none", json!([null])),
        (".none.below", json!([])),
        (r".a\.b", json!(["dotted"])),
        ("['kind']", json!(["T"])),
        (".map['x'].name", json!(["first"])),
        (".map.x['name']", json!(["first"])),
        (".map.*.name", json!(["first", "second"])),
        ("..name", json!(["first", "second", "third"])),
        (".map..name", json!(["first", "second", "third"])),
        (".list[0]", json!([1])),
        (".list[-1]", json!([5])),
        (".list[-2:]", json!([4, 5])),
        (".list[1:3]", json!([2, 3])),
        (".list[:2]", json!([1, 2])),
        (".list[::2]", json!([1, 3, 5])),
        (".list[1:1]", json!([])),
        (".list[*]", json!([1, 2, 3, 4, 5])),
        (".list[0,2]", json!([1, 3])),
        (".conditions[*].type", json!(["Ready", "Synced"])),
        (".conditions[*]['type','n']", json!(["Ready", "Synced", 1, 2])),
        (r#".conditions[?(@.type=="Ready")].status"#, json!(["True"])),
        (".conditions[?(@.type=='Ready')].status", json!(["True"])),
        (r#".conditions[?(@.type == "Ready")].status"#, json!(["True"])),
        (r#".conditions[?(@.type!="Ready")].status"#, json!(["False"])),
        (r#".conditions[?(@.type==")")].status"#, json!([])),
        (".conditions[?(@.n>1)].type", json!(["Synced"])),
        (".conditions[?(@.n>=1)].type", json!(["Ready", "Synced"])),
        (".conditions[?(@.n<=1)].type", json!(["Ready"])),
        (".conditions[?(@.extra)].type", json!(["Synced"])),
        (".conditions[?(@.missing=='x')].type", json!([])),
        (".list[?(@>3)]", json!([4, 5])),
        (".text.*", json!([97, 98])),
        (".kind} tail {.n", json!(["T"])),
    ] {
        assert_eq!(find(path), Ok(serde_json::from_value(expected).unwrap()), "{path}");
    }
}

#[test]
fn errors_have_upstream_messages() {
    for (path, expected) in [
        (".a[?(@.b", "parse: unterminated filter"),
        (".a[?(@.b)", "parse: unclosed array expect ]"),
        (".a[0", "parse: unterminated array"),
        (".a[x]", "parse: invalid array index x"),
        (".a[1:2:3:4]", "parse: invalid array index 1:2:3:4"),
        ("....a", "parse: invalid multiple recursive descent"),
        (".a#", ""),
        ("#", "parse: unrecognized character in action: U+0023 '#'"),
        ("'a", "parse: unterminated quoted string"),
        ("{.a", "parse: unrecognized character in action: U+007B '{'"),
        (".list[9]", "array index out of bounds: index 9, length 5"),
        (".list[3:2]", "starting index 3 is greater than ending index 2"),
        (".list[::-1]", "step must be > 0"),
        (".kind[0]", "the value is not array or slice"),
        (".kind[?(@.a)]", "the value is not array or slice and cannot be filtered"),
        (".conditions[?(@.n=='1')]", "incompatible types for comparison"),
        (".conditions[?(@.n=<1)]", "unrecognized filter operator =<"),
        (".conditions[?(@.n==1.0)]", "incompatible types for comparison"),
        ("kind", "unrecognized identifier kind"),
    ] {
        let found = find(path);
        if expected.is_empty() {
            assert_eq!(found, Ok(Vec::new()), "{path}");
        } else {
            assert_eq!(found, Err(expected.to_owned()), "{path}");
        }
    }
}

#[test]
fn evaluation_and_nesting_are_bounded() {
    let deep = (0..90).fold(json!({"a": 1}), |inner, _| json!({"a": inner, "b": [1, 2, 3]}));
    let path = JsonPath::parse(&"..a".repeat(12)).unwrap();
    assert_eq!(path.find(&deep), Err(JsonPathError::new("the path visits too many values")));
    let nested = (0..40).fold("@".to_owned(), |inner, _| format!("@[?({inner})]"));
    assert!(JsonPath::parse(&nested).is_err());
    assert!(JsonPath::parse(&format!(".{}", "a".repeat(70_000))).is_err());
}

#[test]
fn constants_are_borrowed() {
    let constant = "A".repeat(60_000);
    let path = JsonPath::parse(&format!(".l[*]\"{constant}\"")).unwrap();
    let object = json!({"l": vec![0; 40_000]});
    let found = path.find(&object).unwrap();
    assert_eq!(found.len(), 40_000);
    assert!(found.iter().all(|value| matches!(value, Cow::Borrowed(_))));
}
