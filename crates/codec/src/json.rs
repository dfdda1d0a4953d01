//! JSON decoding as in kube-apiserver, and encoding for the wire.
//!
//! Decoding builds the value, collects duplicate fields with their paths and limits the depth, in one pass. Numbers are
//! read as in Go: an integer that fits into 64 signed bits stays an integer, any other number becomes a double.
//!
//! Go encodes `<`, `>` and `&` in strings as `\u003c`, `\u003e` and `\u0026`. This encoder does not escape them, which
//! is equivalent JSON, except where clients compare the bytes ([`encode_as_go_into`]).

mod indent;
mod managed_fields;
mod strict;
mod write;

use std::collections::HashSet;
use std::{fmt, io};

use nave_machinery::limits::{self, Budget, LimitError, MAX_DEPTH, cost};
use nave_machinery::{Map, Status, Value};
use serde::{
    Serialize,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::map::Entry;
use serde_json::ser::{CompactFormatter, Formatter};

pub use self::indent::indented;
pub use self::managed_fields::{encode_managed_fields_into, encode_object_into};
pub use self::strict::strict_errors;
use self::write::plain_len;
pub use self::write::{encode_text_into, encode_value_into};
use crate::{DecodedDocument, syntax};

/// Maximum number of reported duplicate fields, as in kube-apiserver's decoder.
pub(crate) const MAX_REPORTED: usize = 100;

/// Maximum length of a reported path or name, in bytes: a name can be as long as the body.
pub(crate) const MAX_REPORTED_BYTES: usize = 512;

/// Number of digits up to which an integer is certainly in the range of doubles.
const MAX_SAFE_DIGITS: usize = 300;

/// Error of decoding a JSON document.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The document ends early or is empty.
    #[error("unexpected end of JSON input")]
    UnexpectedEnd,
    /// The document is too deep or too large.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The document is not UTF-8 from this byte on.
    #[error("invalid UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// The document is not JSON; contains the reason.
    #[error("{0}")]
    Syntax(String),
}

impl JsonError {
    /// Returns the response to a request whose body has this error.
    pub fn into_status(self) -> Status {
        match self {
            Self::Limit(limit) => limit.into_status(),
            other => Status::bad_request(other.to_string()),
        }
    }
}

/// Parses JSON that this server has encoded, without limits. UTF-8 is checked once for the whole text, which takes a tenth
/// of the time of a check for each string.
///
/// # Errors
/// The bytes are not JSON.
pub fn parse_own(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Decodes one JSON document; only white space may follow. The last of duplicate fields wins.
pub fn decode(bytes: &[u8]) -> Result<DecodedDocument, JsonError> {
    decode_within(bytes, MAX_DEPTH, &mut Budget::default())
}

/// Decodes a document within another one, with the remaining depth and memory.
pub(crate) fn decode_within(
    bytes: &[u8],
    depth: usize,
    budget: &mut Budget,
) -> Result<DecodedDocument, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8(error.valid_up_to()))?;
    let mut reading = Reading { budget, exceeded: None, duplicates: Vec::new(), reported: HashSet::new() };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    let seed = Node { path: &Path::Root, depth, reading: &mut reading };
    let read = seed.deserialize(&mut deserializer);
    if let Some(limit) = reading.exceeded {
        return Err(limit.into());
    }
    let value = read.map_err(|error| explain(text, &error))?;
    deserializer.end().map_err(|error| explain(text, &error))?;
    Ok(DecodedDocument { value, duplicates: reading.duplicates })
}

/// Checks that `bytes` are one JSON document with at most `depth` levels, without building it.
///
/// # Errors
/// They are not.
pub fn check(bytes: &[u8], depth: usize) -> Result<(), JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8(error.valid_up_to()))?;
    if is_tree_of_maps(bytes, depth) {
        return Ok(());
    }
    // `IgnoredAny` checks neither the depth nor the range of numbers.
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => match Scan::new(bytes) {
            scan if scan.depth > depth => Err(LimitError::TooDeep.into()),
            scan if scan.may_overflow => decode_within(bytes, depth, &mut Budget::default()).map(drop),
            _ => Ok(()),
        },
        Err(_) => decode_within(bytes, depth, &mut Budget::default()).map(drop),
    }
}

/// Returns whether `text` is a document of maps only, without white space and with at most `depth` levels, as in
/// `fieldsV1`. This takes a tenth of the time of the general check; a false result needs that check.
fn is_tree_of_maps(text: &[u8], depth: usize) -> bool {
    let mut level = 0usize;
    let mut rest = text;
    while let [b'{', after @ ..] = rest {
        level += 1;
        if level > depth {
            return false;
        }
        let mut named = after;
        if let [b'}', ..] = after {
            rest = after;
            while let [b'}', after @ ..] = rest {
                level -= 1;
                rest = after;
                if level == 0 {
                    return rest.is_empty();
                }
            }
            let [b',', after @ ..] = rest else { return false };
            named = after;
        }
        let [b'"', name @ ..] = named else { return false };
        let Some(value) = after_name(name) else { return false };
        rest = value;
    }
    false
}

/// Returns the text after a name, its closing quote and the colon; `None` if the name is invalid or has escapes other
/// than `\"` and `\\`.
fn after_name(name: &[u8]) -> Option<&[u8]> {
    let mut rest = name;
    loop {
        let (_, special) = rest.split_at(plain_len(rest));
        match special {
            [b'"', b':', after @ ..] => return Some(after),
            [b'\\', b'"' | b'\\', after @ ..] => rest = after,
            _ => return None,
        }
    }
}

/// Properties of a well-formed document that `IgnoredAny` does not check.
struct Scan {
    /// Number of levels.
    depth: usize,
    /// True if a number may exceed the range of doubles: it has an exponent or hundreds of digits.
    may_overflow: bool,
}

impl Scan {
    fn new(document: &[u8]) -> Self {
        let mut scan = Self { depth: 0, may_overflow: false };
        let (mut depth, mut digits) = (0usize, 0usize);
        let mut rest = document.iter();
        while let Some(&byte) = rest.next() {
            match byte {
                b'"' => {
                    skip_string(&mut rest);
                    continue;
                }
                b'0'..=b'9' => {
                    digits += 1;
                    scan.may_overflow |= digits > MAX_SAFE_DIGITS;
                    continue;
                }
                b'{' | b'[' => {
                    depth += 1;
                    scan.depth = scan.depth.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                b'e' | b'E' => scan.may_overflow |= digits > 0,
                _ => {}
            }
            digits = 0;
        }
        scan
    }
}

/// Skips the rest of a string and its closing quote.
fn skip_string(rest: &mut std::slice::Iter<'_, u8>) {
    while let Some(&byte) = rest.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(rest.next()),
            _ => {}
        }
    }
}

/// Encodes `value` in compact form.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    encode_into(value, &mut out);
    out
}

/// Appends the compact form of `value` to `out`.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let mut serializer = serde_json::Serializer::with_formatter(out, GoNumbers);
    // Writing a `Value` into a `Vec` cannot fail; a type without a JSON form is a bug.
    let written = value.serialize(&mut serializer);
    debug_assert!(written.is_ok(), "a value that has no JSON form");
}

/// Appends the compact form of `value` to `out` with the bytes that Go writes for the same value: sorted keys, and `<`,
/// `>`, `&` and two line separators escaped. Controllers compare these bytes with those that they would write, such as
/// the data of controller revisions.
pub fn encode_as_go_into(value: &Value, out: &mut Vec<u8>) {
    let mut serializer = serde_json::Serializer::with_formatter(out, GoText);
    let written = value.serialize(&mut serializer);
    debug_assert!(written.is_ok(), "a value that has no JSON form");
}

/// Formats a double as Go: `1` instead of `1.0`, an exponent from 1e21 and below 1e-6.
pub(crate) fn write_double(out: &mut (impl io::Write + ?Sized), value: f64) -> io::Result<()> {
    let size = value.abs();
    if size == 0.0 {
        // Writes negative zero as `0`, because reading an integer would lose the sign.
        return out.write_all(b"0");
    }
    if size >= 1e21 {
        // Rust omits the plus sign of the exponent.
        let text = format!("{value:e}").replacen('e', "e+", 1);
        return out.write_all(text.as_bytes());
    }
    if size < 1e-6 {
        return write!(out, "{value:e}");
    }
    write!(out, "{value}")
}

fn explain(text: &str, error: &serde_json::Error) -> JsonError {
    if error.is_eof() {
        return JsonError::UnexpectedEnd;
    }
    // If well-formed JSON cannot be decoded, it contains a number out of range.
    let reason = syntax::first_error(text.as_bytes());
    JsonError::Syntax(
        reason.unwrap_or_else(|| error.to_string().split(" at line ").next().unwrap_or_default().to_owned()),
    )
}

/// The path to a value, kept on the stack during decoding.
pub(crate) enum Path<'a> {
    /// The document itself.
    Root,
    /// A field of the parent object.
    Field(&'a Path<'a>, &'a str),
    /// An item of the parent list.
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The state of decoding a document.
struct Reading<'b> {
    budget: &'b mut Budget,
    /// The limit that was exceeded, which ends the decoding.
    exceeded: Option<LimitError>,
    duplicates: Vec<String>,
    /// The reported duplicates, for lookup.
    reported: HashSet<String>,
}

impl Reading<'_> {
    fn charge<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.budget.charge(bytes).map_err(|limit| self.exceed(limit))
    }

    fn exceed<E: serde::de::Error>(&mut self, limit: LimitError) -> E {
        self.exceeded = Some(limit);
        E::custom(limit)
    }

    /// Records a duplicate field at a position of the list, unless it is already recorded or [`MAX_REPORTED`] is
    /// reached.
    fn report(&mut self, position: usize, path: &Path<'_>) {
        if self.duplicates.len() >= MAX_REPORTED {
            return;
        }
        let path = limits::clipped(path, MAX_REPORTED_BYTES);
        if !self.reported.contains(&path) {
            self.duplicates.insert(position, format!("duplicate field {path:?}"));
            self.reported.insert(path);
        }
    }
}

/// Decodes the value at `path`, with at most `depth` levels.
struct Node<'a, 'b> {
    path: &'a Path<'a>,
    depth: usize,
    reading: &'a mut Reading<'b>,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::from(value as f64), Value::from))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.reading.charge(cost::text(value.len()))?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.reading.charge(cost::text(value.len()))?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(self.reading.exceed(LimitError::TooDeep));
        };
        let mut list = Vec::new();
        loop {
            let path = Path::Item(self.path, list.len());
            let item = Node { path: &path, depth, reading: self.reading };
            let Some(value) = items.next_element_seed(item)? else { return Ok(Value::Array(list)) };
            self.reading.charge(cost::ITEM)?;
            list.push(value);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(self.reading.exceed(LimitError::TooDeep));
        };
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            // A duplicate field is reported before the duplicates within its value.
            let reported = self.reading.duplicates.len();
            let value = fields.next_value_seed(Node { path: &path, depth, reading: self.reading })?;
            if object.is_empty() {
                self.reading.charge(cost::OBJECT)?;
            }
            let name_cost = cost::text(name.len());
            match object.entry(name) {
                Entry::Vacant(place) => {
                    self.reading.charge(cost::FIELD + name_cost)?;
                    place.insert(value);
                }
                Entry::Occupied(mut place) => {
                    self.reading.report(reported, &Path::Field(self.path, place.key()));
                    place.insert(value);
                }
            }
        }
        Ok(Value::Object(object))
    }
}

/// Formats compact JSON with doubles as in Go.
struct GoNumbers;

impl Formatter for GoNumbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_double(writer, value)
    }

    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        CompactFormatter.write_null(writer)
    }
}

/// Formats compact JSON with doubles and strings as in Go.
struct GoText;

impl Formatter for GoText {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_double(writer, value)
    }

    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        CompactFormatter.write_null(writer)
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let escaped = |character| matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut written = 0;
        for (position, character) in text.match_indices(escaped) {
            writer.write_all(text.as_bytes().get(written..position).unwrap_or_default())?;
            for character in character.chars() {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            }
            written = position + character.len();
        }
        writer.write_all(text.as_bytes().get(written..).unwrap_or_default())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn duplicates(text: &str) -> Vec<String> {
        decode(text.as_bytes()).unwrap().duplicates
    }

    #[test]
    fn reports_paths_of_duplicate_fields_and_the_last_wins() {
        let text = r#"{"a":1,"a":2,"spec":{"containers":[{"x":1},{"image":"a","image":"b"}]}}"#;
        let decoded = decode(text.as_bytes()).unwrap();
        assert_eq!(decoded.value, json!({"a": 2, "spec": {"containers": [{"x": 1}, {"image": "b"}]}}));
        assert_eq!(
            decoded.duplicates,
            [r#"duplicate field "a""#, r#"duplicate field "spec.containers[1].image""#]
        );
    }

    #[test]
    fn reports_a_duplicate_once_and_limits_their_number() {
        assert_eq!(
            duplicates(r#"{"a":{},"a":{"b\n":1,"b\n":2}}"#),
            [r#"duplicate field "a""#, r#"duplicate field "a.b\n""#]
        );
        assert_eq!(duplicates(r#"{"a":1,"a":2,"a":3}"#), [r#"duplicate field "a""#]);
        let many = (0..500).map(|n| format!("\"k{n}\":1,\"k{n}\":2")).collect::<Vec<_>>().join(",");
        assert_eq!(duplicates(&format!("{{{many}}}")).len(), MAX_REPORTED);
    }

    #[test]
    fn text_for_go_is_escaped() {
        let value = json!({"b": ["a && b > c", "<\u{2028}é\u{2029}>\n\""], "a<": 1000.0});
        let mut out = Vec::new();
        encode_as_go_into(&value, &mut out);
        let expected =
            r#"{"a\u003c":1000,"b":["a \u0026\u0026 b \u003e c","\u003c\u2028é\u2029\u003e\n\""]}"#;
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
        assert_eq!(decode(&out).unwrap().value, json!({"b": value["b"], "a<": 1000}));
    }

    #[test]
    fn limits_depth() {
        let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        let value = decode(&deep(MAX_DEPTH)).unwrap().value;
        assert_eq!(encode(&value.clone()), deep(MAX_DEPTH));
        assert!(matches!(decode(&deep(MAX_DEPTH + 1)), Err(JsonError::Limit(LimitError::TooDeep))));
        assert!(matches!(decode(&deep(10_000)), Err(JsonError::Limit(LimitError::TooDeep))));
        assert!(matches!(decode(&vec![b'['; 3 << 20]), Err(JsonError::Limit(LimitError::TooDeep))));
        assert!(matches!(
            decode(r#"{"a":"#.repeat(100_000).as_bytes()),
            Err(JsonError::Limit(LimitError::TooDeep))
        ));
    }

    #[test]
    fn check_limits_the_exact_depth() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let wide = format!("[{}]", vec!["{}"; 1000].join(","));
        let quoted = format!(r#"["{}\"{}",[]]"#, "[".repeat(1000), "{".repeat(1000));
        let cases = [(deep(7), 7), (wide, 2), (quoted, 2), (format!("[{},{}]", deep(3), deep(4)), 5)];
        for (text, depth) in cases {
            assert!(check(text.as_bytes(), depth).is_ok(), "{text}");
            let error = check(text.as_bytes(), depth - 1).unwrap_err();
            assert!(matches!(error, JsonError::Limit(LimitError::TooDeep)), "{text}");
        }
    }

    #[test]
    fn limits_memory_of_values() {
        for item in ["{\"\":0}", "[0]", "\"x\"", "0", "{}"] {
            let text = format!("[{}]", vec![item; limits::MAX_TREE_BYTES / cost::ITEM + 1].join(","));
            let error = decode(text.as_bytes()).unwrap_err();
            assert!(matches!(error, JsonError::Limit(LimitError::TooLarge)), "{item}");
        }
        // Duplicate fields replace each other.
        let text = format!("{{{}}}", vec!["\"a\":0"; 500_000].join(","));
        assert!(decode(text.as_bytes()).is_ok());
    }

    #[test]
    fn reported_names_are_short() {
        let long = "x".repeat(10_000);
        let many = (0..200).map(|at| format!("\"{at}\":1,\"{at}\":1")).collect::<Vec<_>>().join(",");
        let found = duplicates(&format!("{{\"{long}\":{{{many}}}}}"));
        assert!(!found.is_empty() && found.iter().all(|text| text.len() < 2 * MAX_REPORTED_BYTES));
    }

    #[test]
    fn decodes_and_encodes_numbers_as_go() {
        for (text, written) in [
            ("1", "1"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854776000"),
            ("18446744073709551616", "18446744073709552000"),
            ("1.0", "1"),
            ("1.50", "1.5"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1e3", "1000"),
            ("1e21", "1e+21"),
            ("0.000001", "0.000001"),
            ("1.5e-7", "1.5e-7"),
        ] {
            let value = decode(text.as_bytes()).unwrap().value;
            assert_eq!(String::from_utf8(encode(&value)).unwrap(), written, "{text}");
        }
        assert!(decode(b"1e999").is_err());
    }

    #[test]
    fn rejects_invalid_documents() {
        let message = |text: &[u8]| decode(text).unwrap_err().to_string();
        assert_eq!(message(b""), "unexpected end of JSON input");
        assert_eq!(message(b"{\"a\":"), "unexpected end of JSON input");
        assert_eq!(message(b"\"\xff\""), "invalid UTF-8 at byte 1");
        assert_eq!(message(b"nope"), "invalid character 'o' in literal null (expecting 'u')");
        assert_eq!(message(b"{} x"), "invalid character 'x' after top-level value");
        assert_eq!(
            message("{\n é}".as_bytes()),
            "invalid character 'Ã' looking for beginning of object key string"
        );
    }

    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e30f64..1e30).prop_map(|number| Value::from(number + 0.5)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| fields.into_iter().collect::<Value>()),
            ]
        })
    }

    #[test]
    fn check_rejects_the_same_documents_as_decode() {
        let digits = "9".repeat(400);
        for text in ["1", "[1e5]", "1e999", "-1e999", &digits, "{\"a\": 88e8888}", "\"1e999\"", "[", "nul"] {
            assert_eq!(check(text.as_bytes(), MAX_DEPTH).is_ok(), decode(text.as_bytes()).is_ok(), "{text}");
        }
    }

    fn tree_of_maps() -> impl Strategy<Value = Value> {
        Just(json!({})).prop_recursive(4, 20, 4, |below| {
            prop::collection::btree_map("[a\"\\\\é]{0,3}", below, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn decodes_what_serde_json_decodes(value in any_json()) {
            let text = serde_json::to_vec_pretty(&value).unwrap();
            let decoded = decode(&text).unwrap();
            prop_assert_eq!(&decoded.value, &value);
            prop_assert!(decoded.duplicates.is_empty());
        }

        #[test]
        fn encoded_values_round_trip(value in any_json()) {
            // Compares texts, because a whole double becomes an integer (Go writes no fraction).
            let written = encode(&value);
            prop_assert_eq!(encode(&decode(&written).unwrap().value), written);
        }

        #[test]
        fn trees_of_maps_are_found(tree in tree_of_maps(), depth in 1usize..5) {
            let text = serde_json::to_vec(&tree).unwrap();
            prop_assert_eq!(is_tree_of_maps(&text, depth), limits::is_within_depth(&tree, depth));
        }

        #[test]
        fn only_valid_documents_are_trees_of_maps(text in r#"\{("a(\\["\\a])?":)?[{}",:]{0,8}\}{0,3}"#) {
            let is_valid = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert!(is_valid || !is_tree_of_maps(text.as_bytes(), MAX_DEPTH), "{text}");
        }

        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let ours = decode(&bytes).is_ok();
            let parsed = serde_json::from_slice::<Value>(&bytes);
            prop_assert_eq!(ours, parsed.is_ok());
            prop_assert_eq!(parse_own(&bytes).ok(), parsed.ok());
        }
    }
}
