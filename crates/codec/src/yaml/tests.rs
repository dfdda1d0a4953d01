use proptest::prelude::*;
use serde_json::json;

use nave_machinery::Value;
use nave_machinery::limits::{self, LimitError, MAX_DEPTH, cost};

use super::write::MAX_INDENT;
use super::*;
use crate::json;
use crate::json::tests::any_json;

fn read(text: &str) -> Value {
    decode(text.as_bytes()).unwrap().value
}

#[test]
fn decodes_documents() {
    assert_eq!(read("a: 1\nb:\n- x\n- {k: 2}\n---\nc: 3\n"), json!({"a": 1, "b": ["x", {"k": 2}]}));
    assert_eq!(read("1: a\ntrue: b\n1.5: c\n"), json!({"1": "a", "true": "b", "1.5": "c"}));
    assert_eq!(
        read("x: &a {k: 1, l: 2}\nw:\n  <<: *a\n  k: 3\nz: *a"),
        json!({
            "x": {"k": 1, "l": 2}, "w": {"k": 3, "l": 2}, "z": {"k": 1, "l": 2},
        })
    );
    assert_eq!(read("t: |\n  a\n  b\n"), json!({"t": "a\nb\n"}));
    assert_eq!(read(r#"{"a":"\u003c","b":[1,{}]}"#), json!({"a": "<", "b": [1, {}]}));
}

#[test]
fn reports_duplicate_fields_with_their_lines() {
    let decoded = decode(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap();
    assert_eq!(decoded.value, json!({"a": 3, "b": {"c": 2}}));
    assert_eq!(
        decoded.duplicates,
        [
            "yaml: unmarshal errors:\n  line 4: key \"c\" already set in map\n  line 5: key \"a\" already set in map"
        ]
    );
}

#[test]
fn rejects_alias_bombs_and_deep_documents() {
    let reason = |text: &str| decode(text.as_bytes()).unwrap_err().to_string();
    let laughs = (1..10).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(",")));
    let bomb = format!("a0: &a0 [x,x,x]\n{}", laughs.collect::<String>());
    assert!(reason(&bomb).contains("excessive aliasing"));
    assert!(reason("a: &a [*a]").contains("anchor"));
    let deeper = (1..40).map(|n| format!("a{n}: &a{n} [[[[*a{}]]]]", n - 1)).collect::<Vec<_>>().join("\n");
    assert!(reason(&format!("a0: &a0 [x]\n{deeper}")).contains("depth"));
    assert_eq!(read(&format!("{}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))), nested(MAX_DEPTH));
    assert!(
        reason(&format!("{}1{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1))).contains("depth")
    );
    for text in ["[".repeat(10_000), "{a: ".repeat(10_000), "- ".repeat(10_000), "? ".repeat(10_000)] {
        assert!(decode(text.as_bytes()).is_err());
    }
    assert!(matches!(decode(b"a: \xff"), Err(YamlError::NotUtf8(3))));
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

/// Each document would expand to gigabytes without the limit.
#[test]
fn limits_the_bytes_of_aliases() {
    let anchored =
        ["x".repeat(10_000), format!("[{}]", "1,".repeat(5_000)), format!("{{{}}}", "x".repeat(9_000))];
    for value in anchored {
        let uses = [
            "*a,".repeat(50_000),
            "k: *a,".repeat(50_000),
            "{k: *a},".repeat(50_000),
            "&b [*a],*b,".repeat(10_000),
        ];
        for aliases in uses {
            let list = format!("a: &a {value}\nb: [{aliases}]\n");
            let error = decode(list.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("excessive aliasing"), "{error}: {}", &aliases[..12]);
        }
    }
    let names = "- {*a : 0}\n".repeat(5_000);
    let error = decode(format!("- &a {}\n{names}", "x".repeat(100_000)).as_bytes()).unwrap_err();
    assert!(error.to_string().contains("excessive aliasing"), "{error}");
    let few = format!("a: &a {}\nb: [{}]\n", "x".repeat(1000), vec!["*a"; 1000].join(","));
    assert_eq!(read(&few)["b"][999].as_str().map(str::len), Some(1000));
}

#[test]
fn limits_memory_of_values() {
    for item in ["{a: 0}", "[0]", "x", "0", "{}", "? a"] {
        let text = format!("[{}]", vec![item; limits::MAX_TREE_BYTES / cost::ITEM + 1].join(","));
        let error = decode(text.as_bytes()).unwrap_err();
        assert!(matches!(error, YamlError::Limit(LimitError::TooLarge)), "{item}: {error}");
    }
}

#[test]
fn limits_indentation() {
    for depth in [10, 31, 32, 33, MAX_DEPTH - 2] {
        let items = Value::from(vec![0; 10_000]);
        let value = (0..depth).fold(items, |inner, at| match at % 3 {
            0 => json!([inner, []]),
            1 => json!({"a": inner, "b": {}}),
            _ => json!({"x".repeat(1200): inner, "lines": "a\nb\n"}),
        });
        let written = encode(&value);
        assert!(written.len() < 10_000 * (MAX_INDENT + 8) + 400_000, "{depth}: {}", written.len());
        assert_eq!(decode(&written).unwrap().value, value, "{depth}");
    }
}

#[test]
fn encodes_in_the_usual_style() {
    let value = json!({
        "apiVersion": "v1", "data": {"on": "yes", "n": "1", "t": "a\nb\n", "e": ""}, "empty": {}, "none": null,
        "items": [{"a": 1, "b": [2, [3]]}, [], "image: x", "k8s.gcr.io/pause:3.9"],
    });
    let text = concat!(
        "apiVersion: v1\ndata:\n  e: \"\"\n  \"n\": \"1\"\n  \"on\": \"yes\"\n  t: |\n    a\n    b\nempty: {}\n",
        "items:\n- a: 1\n  b:\n  - 2\n  - - 3\n- []\n- 'image: x'\n- k8s.gcr.io/pause:3.9\nnone: null\n",
    );
    assert_eq!(String::from_utf8(encode(&value)).unwrap(), text);
    assert_eq!(read(text), value);
}

#[test]
fn unprintable_characters_round_trip() {
    for c in
        ('\0'..='\u{ff}').chain(['\u{2028}', '\u{2029}', '\u{feff}', '\u{fffe}', '\u{ffff}', '\u{10ffff}'])
    {
        let text = format!("a{c}b");
        let value =
            json!({&text: [&text, {&text: &text}, c.to_string()], c.to_string(): {"x": format!("{c}\n{c}")}});
        let deep = (0..40).fold(value.clone(), |inner, _| json!([inner]));
        for value in [value, deep] {
            let written = encode(&value);
            assert_eq!(decode(&written).unwrap().value, value, "{:?}", String::from_utf8_lossy(&written));
        }
    }
}

#[test]
fn long_keys_round_trip() {
    for len in [999, 1001, 1100, 5000] {
        let value = json!({"a": [{"x".repeat(len): {"b": 1}}, {"\t".repeat(len): [1, 2]}], "z": "1"});
        assert_eq!(decode(&encode(&value)).unwrap().value, value, "{len}");
    }
}

#[test]
fn quotes_only_what_would_change() {
    for plain in [".", "502729c7-4601-4af3-95c7", "é", ":a", "-a", "--", "a#", "~a", "?a", "<a", "=a"] {
        assert_eq!(String::from_utf8(encode(&json!({"k": plain}))).unwrap(), format!("k: {plain}\n"));
    }
    for other in
        ["=", "<<", "---", "...", "-", "~", "2001-01-01", "1:20", "a #b", "- a", "? a", "a: b", "1e3", " a"]
    {
        let written = String::from_utf8(encode(&json!({"k": other}))).unwrap();
        assert!(written.ends_with("\"\n") || written.ends_with("'\n"), "{written}");
    }
}

proptest! {
    #[test]
    fn encoded_values_round_trip(value in any_json()) {
        let written = encode(&value);
        let again = decode(&written).unwrap();
        prop_assert!(again.duplicates.is_empty());
        prop_assert_eq!(json::encode(&again.value), json::encode(&value), "{}", String::from_utf8_lossy(&written));
    }

    #[test]
    fn lines_round_trip(lines in prop::collection::vec("[ a-c:#-]{0,5}", 1..5)) {
        let value = json!({"t": lines.join("\n"), "list": [lines.join("\n")]});
        let written = encode(&value);
        prop_assert_eq!(&decode(&written).unwrap().value, &value, "{}", String::from_utf8_lossy(&written));
    }

    #[test]
    fn decoding_never_panics(text in "[-a-c&*<:|>\\[\\]{}!?\"'#, \n\t0-9.]{0,64}") {
        let _ = decode(text.as_bytes());
    }
}

#[test]
fn resolves_plain_scalars_as_yaml_1_1() {
    for (text, value) in [
        ("", json!(null)),
        ("~", json!(null)),
        ("Null", json!(null)),
        ("yes", json!(true)),
        ("On", json!(true)),
        ("OFF", json!(false)),
        ("no", json!(false)),
        ("n", json!(false)),
        ("Y", json!(true)),
        ("yN", json!("yN")),
        ("'yes'", json!("yes")),
        ("\"no\"", json!("no")),
        ("!!str 1", json!("1")),
        ("12", json!(12)),
        ("-0x1F", json!(-31)),
        ("0o17", json!(15)),
        ("017", json!(15)),
        ("0b11", json!(3)),
        ("1_000", json!(1000)),
        ("09", json!(9)),
        ("9223372036854775808", json!(9_223_372_036_854_775_808_f64)),
        ("1.5", json!(1.5)),
        ("1e3", json!(1000)),
        ("420.0", json!(420)),
        ("4.2e2", json!(420)),
        ("-0.0", json!(0)),
        ("1e18", json!(1_000_000_000_000_000_000i64)),
        ("1e19", json!(1e19)),
        (".5", json!(0.5)),
        ("!!float 1", json!(1)),
        ("!!float 1.5", json!(1.5)),
        ("1.2.3", json!("1.2.3")),
        ("1Gi", json!("1Gi")),
        ("-", json!([null])),
        ("2026-01-01", json!("2026-01-01")),
        ("10:30", json!("10:30")),
    ] {
        assert_eq!(read(text), value, "{text}");
    }
    assert!(decode(b".inf").is_err() && decode(b"-.Inf").is_err() && decode(b".nan").is_err());
}
