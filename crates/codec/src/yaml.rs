//! YAML, as sigs.k8s.io/yaml reads and writes it: one document, resolved by the rules of YAML 1.1 that Go's parser
//! keeps.
//!
//! | plain text | value |
//! | --- | --- |
//! | nothing, `~`, `null`, `Null`, `NULL` | null |
//! | `true`, `yes`, `on`, `false`, `no`, `off` (also `True`, `TRUE`, …) | a boolean |
//! | `12`, `0x1F`, `0o17`, `017`, `0b11`, `1_000`, `-3` | an integer, or a double beyond 64 bits |
//! | `1.5`, `1e3`, `.5` | a double |
//! | anything else, and all that is quoted | a string |
//!
//! Keys that are not strings become their text. Merge keys (`<<`) work. Not a number and infinity, which JSON does
//! not have, are errors. Depth, memory and what aliases add are bounded.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use nave_machinery::limits::{self, Budget, LimitError, MAX_BODY_BYTES, MAX_DEPTH, cost};
use nave_machinery::{Map, Status, Value};
use serde_json::map::Entry;

use crate::{
    Decoded,
    json::{self, MAX_REPORTED, MAX_REPORTED_BYTES},
};

/// How many bytes of values anchors may hold and aliases may add, as [`Budget`] estimates them: no more than a body
/// without aliases could bring as text.
const MAX_ALIASED_BYTES: usize = MAX_BODY_BYTES;

/// Why bytes are not a YAML document that the API takes.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// Not YAML.
    #[error("yaml: line {line}: {reason}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Not UTF-8.
    #[error("yaml: invalid UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// Too deep, or too many values.
    #[error("yaml: {0}")]
    Limit(#[from] LimitError),
}

impl YamlError {
    fn at(mark: Marker, reason: impl Into<String>) -> Self {
        Self::Syntax { line: mark.line(), reason: reason.into() }
    }

    /// The answer to a request with such a body.
    pub fn into_status(self) -> Status {
        match self {
            Self::Limit(limit) => limit.into_status(),
            other => Status::bad_request(other.to_string()),
        }
    }
}

/// Reads the first document; no document is null. Of duplicate fields the last one wins; they are reported together
/// in one sentence, as Go's parser does.
pub fn decode(bytes: &[u8]) -> Result<Decoded, YamlError> {
    let text = std::str::from_utf8(bytes).map_err(|error| YamlError::NotUtf8(error.valid_up_to()))?;
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    // The builder refuses what is deeper than the limit, in its own words.
    options.flow_nesting_limit = MAX_DEPTH + 1;
    options.block_nesting_limit = MAX_DEPTH + 1;
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| YamlError::at(*error.marker(), error.info()))?;
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        builder.take(event, span.start)?;
    }
    let duplicates = match builder.duplicates.as_slice() {
        [] => Vec::new(),
        found => vec![format!("yaml: unmarshal errors:\n  {}", found.join("\n  "))],
    };
    Ok(Decoded { value: builder.done.map_or(Value::Null, |node| node.value), duplicates })
}

/// Writes `value` as a block style document, keys sorted.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write(value, 0, Position::Document, &mut out);
    out
}

/// A finished value, the memory it takes and the levels of collections in it.
#[derive(Clone)]
struct Node {
    value: Value,
    bytes: usize,
    depth: usize,
}

impl Node {
    fn scalar(value: Value) -> Self {
        let bytes = if let Value::String(text) = &value { cost::text(text.len()) } else { 0 };
        Self { value, bytes, depth: 0 }
    }
}

/// A collection that is not complete.
struct Open {
    anchor: usize,
    bytes: usize,
    depth: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Value>),
    Object {
        fields: Map,
        /// What `<<` brought: fields that the object's own ones win over.
        merged: Map,
        /// The name of the field whose value comes next.
        key: Option<String>,
    },
}

struct Builder {
    open: Vec<Open>,
    done: Option<Node>,
    anchors: HashMap<usize, Node>,
    budget: Budget,
    aliased: Budget,
    duplicates: Vec<String>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            done: None,
            anchors: HashMap::new(),
            budget: Budget::default(),
            aliased: Budget::new(MAX_ALIASED_BYTES),
            duplicates: Vec::new(),
        }
    }
}

impl Builder {
    fn take(&mut self, event: Event<'_>, mark: Marker) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merge = self.wants_key() && text == "<<" && style == ScalarStyle::Plain;
                if merge {
                    return self.put(Node::scalar(Value::from(MERGE)), mark);
                }
                let node = Node::scalar(scalar(&text, style, tag.as_deref(), mark)?);
                self.budget.charge(node.bytes)?;
                self.finished(node, anchor, mark)
            }
            Event::SequenceStart(_, anchor, _) => self.start(anchor, Kind::List(Vec::new()), mark),
            Event::MappingStart(_, anchor, _) => {
                self.start(anchor, Kind::Object { fields: Map::new(), merged: Map::new(), key: None }, mark)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(mark),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(YamlError::at(mark, "anchor contains itself"));
                };
                let bytes = node.bytes + cost::ITEM;
                if self.aliased.charge(bytes).is_err() {
                    return Err(YamlError::at(mark, EXCESSIVE_ALIASING));
                }
                self.budget.charge(bytes)?;
                let node = node.clone();
                self.put(node, mark)
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, anchor: usize, kind: Kind, mark: Marker) -> Result<(), YamlError> {
        if self.wants_key() {
            return Err(YamlError::at(mark, "a list or an object cannot be the name of a field"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(LimitError::TooDeep.into());
        }
        self.open.push(Open { anchor, bytes: 0, depth: 1, kind });
        Ok(())
    }

    fn end(&mut self, mark: Marker) -> Result<(), YamlError> {
        let Some(Open { anchor, bytes, depth, kind }) = self.open.pop() else { return Ok(()) };
        let value = match kind {
            Kind::List(items) => Value::Array(items),
            Kind::Object { fields, mut merged, .. } if !merged.is_empty() => {
                merged.extend(fields);
                Value::Object(merged)
            }
            Kind::Object { fields, .. } => Value::Object(fields),
        };
        self.finished(Node { value, bytes, depth }, anchor, mark)
    }

    fn finished(&mut self, node: Node, anchor: usize, mark: Marker) -> Result<(), YamlError> {
        if anchor != 0 {
            // What is kept for aliases counts too, or anchors within anchors would multiply it.
            if self.aliased.charge(node.bytes + cost::ITEM).is_err() {
                return Err(YamlError::at(mark, EXCESSIVE_ALIASING));
            }
            self.anchors.insert(anchor, node.clone());
        }
        self.put(node, mark)
    }

    /// Whether the next value is the name of a field.
    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: Kind::Object { key: None, .. }, .. }))
    }

    fn put(&mut self, node: Node, mark: Marker) -> Result<(), YamlError> {
        if self.open.len() + node.depth > MAX_DEPTH {
            return Err(LimitError::TooDeep.into());
        }
        let Some(open) = self.open.last_mut() else {
            self.done = Some(node);
            return Ok(());
        };
        open.depth = open.depth.max(node.depth + 1);
        let slot = match &mut open.kind {
            Kind::List(items) => {
                items.push(node.value);
                cost::ITEM
            }
            Kind::Object { fields, merged, key } => match key.take() {
                None => {
                    *key = Some(key_text(&node.value, mark)?);
                    0
                }
                Some(name) if name == MERGE => {
                    merge(merged, node.value, mark)?;
                    0
                }
                Some(name) => {
                    let first = if fields.is_empty() { cost::OBJECT } else { 0 };
                    match fields.entry(name) {
                        Entry::Vacant(place) => {
                            place.insert(node.value);
                        }
                        Entry::Occupied(mut place) => {
                            if self.duplicates.len() < MAX_REPORTED {
                                let name = format_args!("{:?}", place.key());
                                let name = limits::clipped(name, MAX_REPORTED_BYTES);
                                self.duplicates
                                    .push(format!("line {}: key {name} already set in map", mark.line()));
                            }
                            place.insert(node.value);
                        }
                    }
                    first + cost::FIELD
                }
            },
        };
        open.bytes += slot + node.bytes;
        self.budget.charge(slot)?;
        Ok(())
    }
}

const EXCESSIVE_ALIASING: &str = "document contains excessive aliasing";

/// Stands for the key `<<`; no text in YAML has this character.
const MERGE: &str = "\0<<";

/// Adds the fields of an object, or of a list of objects, that are not there yet.
fn merge(merged: &mut Map, value: Value, mark: Marker) -> Result<(), YamlError> {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                merged.entry(name).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) if items.iter().all(Value::is_object) => {
            items.into_iter().try_for_each(|item| merge(merged, item, mark))
        }
        _ => Err(YamlError::at(mark, "map merge requires map or sequence of maps as the value")),
    }
}

/// The name of a field whose key is any scalar.
fn key_text(value: &Value, mark: Marker) -> Result<String, YamlError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(String::from_utf8_lossy(&json::encode(value)).into_owned()),
        Value::Null => Ok("null".to_owned()),
        Value::Array(_) | Value::Object(_) => {
            Err(YamlError::at(mark, "a list or an object cannot be the name of a field"))
        }
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, mark: Marker) -> Result<Value, YamlError> {
    let forced_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str") || !tag.is_yaml_core_schema());
    if forced_text || (style != ScalarStyle::Plain && tag.is_none()) {
        return Ok(Value::from(text));
    }
    let value =
        resolve(text).ok_or_else(|| YamlError::at(mark, format!("json: unsupported value: {text}")))?;
    match (tag, &value) {
        (Some(tag), Value::Number(number)) if tag.is_yaml_core_schema_tag("float") => {
            Ok(Value::from(number.as_f64()))
        }
        _ => Ok(value),
    }
}

/// The value of plain text; `None` for numbers that JSON does not have.
fn resolve(text: &str) -> Option<Value> {
    let Some(first) = text.bytes().next() else { return Some(Value::Null) };
    let value = match first {
        b'~' | b'n' | b'N' if matches!(text, "~" | "null" | "Null" | "NULL") => Value::Null,
        b't' | b'T' | b'f' | b'F' | b'y' | b'Y' | b'n' | b'N' | b'o' | b'O' => match text {
            "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
                Value::Bool(true)
            }
            "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
                Value::Bool(false)
            }
            _ => Value::from(text),
        },
        b'0'..=b'9' | b'+' | b'-' | b'.' => {
            if matches!(
                text.trim_start_matches(['+', '-']),
                ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
            ) {
                return None;
            }
            number(text).unwrap_or_else(|| Value::from(text))
        }
        _ => Value::from(text),
    };
    Some(value)
}

/// The number that plain text is, if it is one.
fn number(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    let radix = |prefix: &str, radix: u32| {
        let digits = digits.strip_prefix(prefix)?;
        // `from_str_radix` would take a second sign.
        let whole = digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(digits)?;
        i128::from_str_radix(whole, radix).ok()
    };
    let integer = radix("0x", 16)
        .or_else(|| radix("0b", 2))
        .or_else(|| radix("0o", 8))
        .or_else(|| if digits.len() > 1 { radix("0", 8) } else { None })
        .or_else(|| radix("", 10));
    if let Some(integer) = integer {
        let integer = if negative { -integer } else { integer };
        return Some(i64::try_from(integer).map_or_else(|_| Value::from(integer as f64), Value::from));
    }
    let is_double = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.bytes().any(|byte| byte.is_ascii_digit());
    let double: f64 = is_double.then(|| plain.parse().ok())??;
    double.is_finite().then(|| Value::from(double))
}

/// Where a value is written: what stands before it on the line.
#[derive(Clone, Copy, PartialEq)]
enum Position {
    Document,
    Field,
    Item,
}

fn write(value: &Value, indent: usize, position: Position, out: &mut Vec<u8>) {
    if indent > MAX_INDENT {
        if position != Position::Document {
            out.push(b' ');
        }
        flow(value, out);
        out.push(b'\n');
        return;
    }
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            if position == Position::Field {
                out.push(b'\n');
            }
            for (at, (name, value)) in fields.iter().enumerate() {
                // The first field of an item stands on the line of its dash.
                if at > 0 || position != Position::Item {
                    pad(indent, out);
                }
                key(name, indent, out);
                out.push(b':');
                // A list is not indented below its field.
                let deeper = if value.is_array() { indent } else { indent + 2 };
                write(value, deeper, Position::Field, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            if position == Position::Field {
                out.push(b'\n');
            }
            for (at, item) in items.iter().enumerate() {
                if at > 0 || position != Position::Item {
                    pad(indent, out);
                }
                out.push(b'-');
                let holds_values = matches!(item, Value::Object(fields) if !fields.is_empty())
                    || matches!(item, Value::Array(items) if !items.is_empty());
                if holds_values && indent + 2 <= MAX_INDENT {
                    out.push(b' ');
                }
                write(item, indent + 2, Position::Item, out);
            }
        }
        leaf => {
            if position != Position::Document {
                out.push(b' ');
            }
            match leaf {
                Value::String(value) if is_block(value) => block(value, indent.max(2), out),
                Value::String(value) => text(value, out),
                _ => json::encode_into(leaf, out),
            }
            out.push(b'\n');
        }
    }
}

/// How far values are indented. Deeper ones are written in the flow style: indented, each small value would cost many
/// times its size.
const MAX_INDENT: usize = 60;

/// Writes a value on one line: JSON, with long names marked as keys.
fn flow(value: &Value, out: &mut Vec<u8>) {
    let separate = |at: usize, out: &mut Vec<u8>| {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
    };
    match value {
        Value::Object(fields) => {
            out.push(b'{');
            for (at, (name, value)) in fields.iter().enumerate() {
                separate(at, out);
                let start = out.len();
                quoted(name, out);
                if out.len() - start > SIMPLE_KEY_MAX {
                    out.splice(start..start, *b"? ");
                }
                out.extend_from_slice(b": ");
                flow(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                flow(item, out);
            }
            out.push(b']');
        }
        Value::String(value) => quoted(value, out),
        leaf => json::encode_into(leaf, out),
    }
}

/// The longest key, in bytes with its quotes, that is surely a simple one.
const SIMPLE_KEY_MAX: usize = 1000;

/// A field's name. YAML reads one of more than 1024 characters only where it is marked as a key.
fn key(name: &str, indent: usize, out: &mut Vec<u8>) {
    let start = out.len();
    text(name, out);
    if out.len() - start > SIMPLE_KEY_MAX {
        out.splice(start..start, *b"? ");
        out.push(b'\n');
        pad(indent, out);
    }
}

fn pad(indent: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + indent, b' ');
}

/// A string as plain text if that reads back as the same string, else in quotes: in single ones where only its marks
/// mislead, as clients' own library writes it, in double ones, as JSON has it, where its meaning would be another.
fn text(value: &str, out: &mut Vec<u8>) {
    if !means_itself(value) {
        quoted(value, out);
    } else if is_plain(value) {
        out.extend_from_slice(value.as_bytes());
    } else {
        out.push(b'\'');
        out.extend_from_slice(value.replace('\'', "''").as_bytes());
        out.push(b'\'');
    }
}

/// A string in double quotes: JSON, with escapes for what YAML does not take for printable and for its line breaks.
fn quoted(value: &str, out: &mut Vec<u8>) {
    let start = out.len();
    json::encode_into(value, out);
    if !value.contains(is_unprintable) {
        return;
    }
    let plain = String::from_utf8_lossy(&out.split_off(start)).into_owned();
    for c in plain.chars() {
        if is_unprintable(c) {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// Whether a character has to be escaped in double quotes, besides those that JSON escapes.
fn is_unprintable(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether the text, taken for YAML, is this string and nothing else, whoever reads it; says no where it is not sure.
fn means_itself(value: &str) -> bool {
    let starts_as_number = value.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    // Some readers know dates and numbers to the base 60.
    let dated = starts_as_number && value.bytes().filter(|byte| *byte == b'-').count() >= 2;
    let sexagesimal = starts_as_number && value.contains(':');
    !value.is_empty()
        && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && !dated
        && !sexagesimal
        && resolve(value).is_some_and(|resolved| resolved.is_string())
}

/// Whether a string of printable characters may stand without quotes; says no where it is not sure.
fn is_plain(value: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b'#');
    let starts = value.bytes().next().is_some_and(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'(' | b'$' | b'^' | b'+')
    });
    let inner = |(at, byte): (usize, u8)| {
        let next_is_safe = value.as_bytes().get(at + 1).is_some_and(|next| safe(*next));
        safe(byte) || matches!(byte, b':' | b' ') && next_is_safe
    };
    starts && value.len() <= 256 && value.bytes().enumerate().all(inner)
}

/// Whether a string is better read as a block of lines.
fn is_block(value: &str) -> bool {
    value.trim_end_matches('\n').contains('\n')
        && !value.starts_with([' ', '\n', '\t'])
        && value.chars().all(|c| {
            c == '\n' || c == '\t' || (' '..'\u{7f}').contains(&c) || (c > '\u{a0}' && c.is_alphanumeric())
        })
}

fn block(value: &str, indent: usize, out: &mut Vec<u8>) {
    let body = value.trim_end_matches('\n');
    out.push(b'|');
    match value.len() - body.len() {
        0 => out.push(b'-'),
        1 => {}
        _ => out.push(b'+'),
    }
    for line in body.split('\n') {
        out.push(b'\n');
        if !line.is_empty() {
            pad(indent, out);
            out.extend_from_slice(line.as_bytes());
        }
    }
    for _ in body.len() + 1..value.len() {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::json::tests::any_json;

    fn read(text: &str) -> Value {
        decode(text.as_bytes()).unwrap().value
    }

    #[test]
    fn plain_scalars_are_resolved_as_in_yaml_1_1() {
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
            ("1e3", json!(1000.0)),
            (".5", json!(0.5)),
            ("!!float 1", json!(1.0)),
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

    #[test]
    fn documents() {
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
    fn duplicate_fields_are_reported_together_with_their_lines() {
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
    fn what_could_grow_without_bound_is_refused() {
        let reason = |text: &str| decode(text.as_bytes()).unwrap_err().to_string();
        let laughs =
            (1..10).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(",")));
        let bomb = format!("a0: &a0 [x,x,x]\n{}", laughs.collect::<String>());
        assert!(reason(&bomb).contains("excessive aliasing"));
        assert!(reason("a: &a [*a]").contains("anchor"));
        let deeper =
            (1..40).map(|n| format!("a{n}: &a{n} [[[[*a{}]]]]", n - 1)).collect::<Vec<_>>().join("\n");
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

    /// Each of them would produce gigabytes, whatever the anchored value is and however the aliases are used.
    #[test]
    fn aliases_of_large_values_are_counted_in_bytes() {
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
    fn values_are_counted_and_not_only_bytes() {
        for item in ["{a: 0}", "[0]", "x", "0", "{}", "? a"] {
            let text = format!("[{}]", vec![item; limits::MAX_TREE_BYTES / cost::ITEM + 1].join(","));
            let error = decode(text.as_bytes()).unwrap_err();
            assert!(matches!(error, YamlError::Limit(LimitError::TooLarge)), "{item}: {error}");
        }
    }

    #[test]
    fn deep_values_are_not_indented_without_bound() {
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
    fn writes_what_people_expect() {
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
    fn characters_that_are_not_printable_read_back_wherever_they_stand() {
        for c in ('\0'..='\u{ff}').chain([
            '\u{2028}',
            '\u{2029}',
            '\u{feff}',
            '\u{fffe}',
            '\u{ffff}',
            '\u{10ffff}',
        ]) {
            let text = format!("a{c}b");
            let value = json!({&text: [&text, {&text: &text}, c.to_string()], c.to_string(): {"x": format!("{c}\n{c}")}});
            let deep = (0..40).fold(value.clone(), |inner, _| json!([inner]));
            for value in [value, deep] {
                let written = encode(&value);
                assert_eq!(decode(&written).unwrap().value, value, "{:?}", String::from_utf8_lossy(&written));
            }
        }
    }

    #[test]
    fn a_long_key_reads_back() {
        for len in [999, 1001, 1100, 5000] {
            let value = json!({"a": [{"x".repeat(len): {"b": 1}}, {"\t".repeat(len): [1, 2]}], "z": "1"});
            assert_eq!(decode(&encode(&value)).unwrap().value, value, "{len}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_writes(value in any_json()) {
            let written = encode(&value);
            let again = decode(&written).unwrap();
            prop_assert!(again.duplicates.is_empty());
            prop_assert_eq!(json::encode(&again.value), json::encode(&value), "{}", String::from_utf8_lossy(&written));
        }

        #[test]
        fn reads_back_lines(lines in prop::collection::vec("[ a-c:#-]{0,5}", 1..5)) {
            let value = json!({"t": lines.join("\n"), "list": [lines.join("\n")]});
            let written = encode(&value);
            prop_assert_eq!(&decode(&written).unwrap().value, &value, "{}", String::from_utf8_lossy(&written));
        }

        #[test]
        fn no_text_panics(text in "[-a-c&*<:|>\\[\\]{}!?\"'#, \n\t0-9.]{0,64}") {
            let _ = decode(text.as_bytes());
        }
    }
}
