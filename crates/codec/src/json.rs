//! JSON, read as kube-apiserver reads it and written for the wire.
//!
//! Reading is one pass: the value is built, duplicate fields are noted with their paths and the depth is bounded
//! on the way. What Go does with numbers is done here: an integer that fits 64 signed bits stays one, everything
//! else is a double.
//!
//! Go writes `<`, `>` and `&` in strings as `\u003c`, `\u003e` and `\u0026`; the text means the same, and here
//! they are written as they are.

use std::{fmt, io};

use nave_machinery::{Map, Value};
use serde::{
    Serialize,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::ser::{CompactFormatter, Formatter};

use crate::Decoded;

/// How deep objects and lists may nest. kube-apiserver stops at 10,000; a value of this depth can be walked by
/// recursion (cloned, compared, patched, dropped) on any thread's stack.
pub const MAX_DEPTH: usize = 512;

/// How many duplicate fields are reported, as in kube-apiserver's decoder.
pub(crate) const MAX_REPORTED: usize = 100;

/// Why bytes are not a JSON document that the API takes.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The document ends early, or is empty.
    #[error("unexpected end of JSON input")]
    UnexpectedEnd,
    /// Objects and lists nest deeper than [`MAX_DEPTH`].
    #[error("exceeded max depth")]
    TooDeep,
    /// The document is not UTF-8.
    #[error("invalid UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// The document is not JSON at this place.
    #[error("invalid character {character} at line {line} column {column}: {reason}")]
    Syntax {
        /// The character there, in quotes.
        character: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes.
        column: usize,
        /// What the parser wanted.
        reason: String,
    },
}

/// Reads one JSON document; anything but white space after it is an error. Of duplicate fields the last one wins.
pub fn decode(bytes: &[u8]) -> Result<Decoded, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8(error.valid_up_to()))?;
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    let seed = Node { path: &Path::Root, depth: 0, duplicates: &mut duplicates };
    let value = seed.deserialize(&mut deserializer).map_err(|error| explain(text, &error))?;
    deserializer.end().map_err(|error| explain(text, &error))?;
    Ok(Decoded { value, duplicates })
}

/// Whether `bytes` are one JSON document within the limits, without building it.
pub(crate) fn check(bytes: &[u8]) -> Result<(), JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8(error.valid_up_to()))?;
    // Skipping a value knows no depth and no range of numbers; where the text may be too deep or have a number that
    // is too large, the slow road decides.
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) if nesting(bytes) <= MAX_DEPTH && !may_overflow(bytes) => Ok(()),
        _ => decode(bytes).map(drop),
    }
}

/// An upper bound of how deep objects and lists nest: brackets in strings count too.
fn nesting(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'{' || byte == b'[').count()
}

/// Whether there may be a number beyond the range of doubles: one with an exponent, or with hundreds of digits. What
/// looks so within a string counts too.
fn may_overflow(bytes: &[u8]) -> bool {
    let exponent = bytes.windows(2).any(|pair| pair[0].is_ascii_digit() && matches!(pair[1], b'e' | b'E'));
    exponent
        || bytes
            .chunk_by(|one, next| one.is_ascii_digit() && next.is_ascii_digit())
            .any(|run| run.len() > 300)
}

/// Writes `value` in its compact form.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    encode_into(value, &mut out);
    out
}

/// Appends the compact form of `value` to `out`.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let mut serializer = serde_json::Serializer::with_formatter(out, GoNumbers);
    // Neither a `Vec` nor a `Value` can fail; a type that cannot be JSON is a mistake in the program.
    let written = value.serialize(&mut serializer);
    debug_assert!(written.is_ok(), "a value that has no JSON form");
}

/// Writes a double as Go does: `1` and not `1.0`, an exponent from 1e21 and below 1e-6.
pub(crate) fn write_double(out: &mut (impl io::Write + ?Sized), value: f64) -> io::Result<()> {
    let size = value.abs();
    if size == 0.0 {
        // One zero only: a sign would not survive being read as an integer.
        return out.write_all(b"0");
    }
    if size >= 1e21 {
        // Rust leaves out the plus sign of the exponent.
        let text = format!("{value:e}").replacen('e', "e+", 1);
        return out.write_all(text.as_bytes());
    }
    if size < 1e-6 {
        return write!(out, "{value:e}");
    }
    write!(out, "{value}")
}

fn explain(text: &str, error: &serde_json::Error) -> JsonError {
    let message = error.to_string();
    if message.starts_with(TOO_DEEP) {
        return JsonError::TooDeep;
    }
    if error.is_eof() {
        return JsonError::UnexpectedEnd;
    }
    let (line, column) = (error.line(), error.column());
    let at = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    let rest = text.get((at + column).saturating_sub(1)..).unwrap_or_default();
    let character = rest.chars().next().map_or_else(|| "end".to_owned(), |found| format!("{found:?}"));
    let reason = message.split(" at line ").next().unwrap_or_default().to_owned();
    JsonError::Syntax { character, line, column, reason }
}

const TOO_DEEP: &str = "exceeded max depth";

/// The way to a value, kept on the stack while reading.
pub(crate) enum Path<'a> {
    /// The document itself.
    Root,
    /// A field of the object before it.
    Field(&'a Path<'a>, &'a str),
    /// An item of the list before it.
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

/// Notes a duplicate field, unless it has been noted or there are too many.
fn report(duplicates: &mut Vec<String>, path: &Path<'_>) {
    if duplicates.len() >= MAX_REPORTED {
        return;
    }
    let text = format!("duplicate field \"{path}\"");
    if !duplicates.contains(&text) {
        duplicates.push(text);
    }
}

/// Reads the value at `path`.
struct Node<'a> {
    path: &'a Path<'a>,
    depth: usize,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
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

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        if self.depth >= MAX_DEPTH {
            return Err(A::Error::custom(TOO_DEEP));
        }
        let mut list = Vec::new();
        loop {
            let path = Path::Item(self.path, list.len());
            let item = Node { path: &path, depth: self.depth + 1, duplicates: self.duplicates };
            match items.next_element_seed(item)? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        if self.depth >= MAX_DEPTH {
            return Err(A::Error::custom(TOO_DEEP));
        }
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            let node = Node { path: &path, depth: self.depth + 1, duplicates: self.duplicates };
            let value = fields.next_value_seed(node)?;
            if object.contains_key(&name) {
                report(self.duplicates, &Path::Field(self.path, &name));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// The compact form with Go's text for doubles.
struct GoNumbers;

impl Formatter for GoNumbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_double(writer, value)
    }

    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        CompactFormatter.write_null(writer)
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
    fn duplicate_fields_are_found_with_their_paths_and_the_last_wins() {
        let text = r#"{"a":1,"a":2,"spec":{"containers":[{"x":1},{"image":"a","image":"b"}]}}"#;
        let decoded = decode(text.as_bytes()).unwrap();
        assert_eq!(decoded.value, json!({"a": 2, "spec": {"containers": [{"x": 1}, {"image": "b"}]}}));
        assert_eq!(
            decoded.duplicates,
            [r#"duplicate field "a""#, r#"duplicate field "spec.containers[1].image""#]
        );
    }

    #[test]
    fn a_duplicate_is_reported_once_and_their_number_is_bounded() {
        assert_eq!(duplicates(r#"{"a":1,"a":2,"a":3}"#), [r#"duplicate field "a""#]);
        let many = (0..500).map(|n| format!("\"k{n}\":1,\"k{n}\":2")).collect::<Vec<_>>().join(",");
        assert_eq!(duplicates(&format!("{{{many}}}")).len(), MAX_REPORTED);
    }

    #[test]
    fn depth_is_bounded_and_the_deepest_value_can_be_handled() {
        let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        let value = decode(&deep(MAX_DEPTH)).unwrap().value;
        assert_eq!(encode(&value.clone()), deep(MAX_DEPTH));
        assert!(matches!(decode(&deep(MAX_DEPTH + 1)), Err(JsonError::TooDeep)));
        assert!(matches!(decode(&deep(10_000)), Err(JsonError::TooDeep)));
        assert!(matches!(decode(&vec![b'['; 3 << 20]), Err(JsonError::TooDeep)));
        assert!(matches!(decode(r#"{"a":"#.repeat(100_000).as_bytes()), Err(JsonError::TooDeep)));
    }

    #[test]
    fn numbers_are_read_and_written_as_in_go() {
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
    fn what_is_not_a_document_is_refused() {
        let message = |text: &[u8]| decode(text).unwrap_err().to_string();
        assert_eq!(message(b""), "unexpected end of JSON input");
        assert_eq!(message(b"{\"a\":"), "unexpected end of JSON input");
        assert_eq!(message(b"\"\xff\""), "invalid UTF-8 at byte 1");
        assert_eq!(message(b"nope"), "invalid character 'o' at line 1 column 2: expected ident");
        assert_eq!(message(b"{} x"), "invalid character 'x' at line 1 column 4: trailing characters");
        assert_eq!(
            message("{\n é}".as_bytes()),
            "invalid character 'é' at line 2 column 2: key must be a string"
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
    fn a_check_refuses_what_decoding_does() {
        let digits = "9".repeat(400);
        for text in ["1", "[1e5]", "1e999", "-1e999", &digits, "{\"a\": 88e8888}", "\"1e999\"", "[", "nul"] {
            assert_eq!(check(text.as_bytes()).is_ok(), decode(text.as_bytes()).is_ok(), "{text}");
        }
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
        fn reads_back_what_it_writes(value in any_json()) {
            // A whole double becomes an integer where Go's text has no fraction: compared as text.
            let written = encode(&value);
            prop_assert_eq!(encode(&decode(&written).unwrap().value), written);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let ours = decode(&bytes).is_ok();
            prop_assert_eq!(ours, serde_json::from_slice::<Value>(&bytes).is_ok());
        }
    }
}
