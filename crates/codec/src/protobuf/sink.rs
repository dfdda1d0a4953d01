//! Outputs of the decoder: JSON text, or a value.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nave_machinery::limits::{Budget, LimitError, cost};
use nave_machinery::{Map, Value};

use super::ProtobufError;
use crate::json;

/// Receives a document in order, piece by piece. The sequence of calls is always a well-formed document.
pub(super) trait Sink {
    fn open_object(&mut self);
    fn close_object(&mut self);
    fn open_list(&mut self);
    fn close_list(&mut self);
    /// Writes the name of the next value, from a schema.
    fn name(&mut self, name: &str);
    /// Writes the name of the next value, from the data.
    fn key(&mut self, key: &str);
    fn null(&mut self);
    fn bool(&mut self, value: bool);
    fn int(&mut self, value: i64);
    fn double(&mut self, value: f64);
    fn text(&mut self, value: &str);
    fn bytes(&mut self, value: &[u8]);
    /// Writes the JSON text of `field`, with at most `depth` levels.
    fn json(&mut self, field: &str, text: &[u8], depth: usize) -> Result<(), ProtobufError>;
}

/// Appends JSON text.
pub(super) struct JsonSink<'o> {
    out: &'o mut Vec<u8>,
    /// True if a comma is needed before the next value.
    comma: bool,
}

impl<'o> JsonSink<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, comma: false }
    }

    #[inline]
    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    fn open(&mut self, bracket: u8) {
        self.separate();
        self.out.push(bracket);
        self.comma = false;
    }

    fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.comma = true;
    }

    fn quoted(&mut self, text: &str) {
        self.out.push(b'"');
        if is_plain(text.as_bytes()) {
            self.out.extend_from_slice(text.as_bytes());
        } else {
            self.escaped(text);
        }
        self.out.push(b'"');
    }

    #[cold]
    fn escaped(&mut self, text: &str) {
        let mut written = 0;
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            if !needs_escape(byte) {
                continue;
            }
            self.out.extend_from_slice(&text.as_bytes()[written..at]);
            written = at + 1;
            let short = match byte {
                b'"' => b'"',
                b'\\' => b'\\',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0x08 => b'b',
                0x0c => b'f',
                _ => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                    self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                    continue;
                }
            };
            self.out.extend_from_slice(&[b'\\', short]);
        }
        self.out.extend_from_slice(&text.as_bytes()[written..]);
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Returns whether `text` needs no escapes in JSON. Checks all bytes without branches, so that the compiler can
/// vectorize it.
fn is_plain(text: &[u8]) -> bool {
    !text.iter().fold(false, |found, &byte| found | needs_escape(byte))
}

impl Sink for JsonSink<'_> {
    fn open_object(&mut self) {
        self.open(b'{');
    }

    fn close_object(&mut self) {
        self.close(b'}');
    }

    fn open_list(&mut self) {
        self.open(b'[');
    }

    fn close_list(&mut self) {
        self.close(b']');
    }

    fn name(&mut self, name: &str) {
        self.out.reserve(name.len() + 4);
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.comma = false;
    }

    fn key(&mut self, key: &str) {
        self.separate();
        self.quoted(key);
        self.out.push(b':');
        self.comma = false;
    }

    fn null(&mut self) {
        self.separate();
        self.out.extend_from_slice(b"null");
    }

    fn bool(&mut self, value: bool) {
        self.separate();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn int(&mut self, value: i64) {
        self.separate();
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn double(&mut self, value: f64) {
        if !value.is_finite() {
            return self.null();
        }
        self.separate();
        let written = json::write_double(self.out, value);
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
    }

    fn text(&mut self, value: &str) {
        self.separate();
        self.quoted(value);
    }

    fn bytes(&mut self, value: &[u8]) {
        self.separate();
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + value.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(value, &mut self.out[start..]);
        debug_assert!(written.is_ok(), "the buffer has the exact size");
        self.out.push(b'"');
    }

    fn json(&mut self, field: &str, text: &[u8], depth: usize) -> Result<(), ProtobufError> {
        // Checks the text, which is emitted unchanged: invalid JSON would corrupt the whole document.
        json::check(text, depth).map_err(|error| ProtobufError::not_json(field, &error))?;
        self.separate();
        self.out.extend_from_slice(text.trim_ascii());
        Ok(())
    }
}

/// Builds a value within a budget. After the budget is exhausted, ignores all input, and [`ValueSink::finish`] fails.
pub(super) struct ValueSink {
    done: Value,
    open: Vec<Open>,
    budget: Budget,
    exceeded: Option<LimitError>,
}

/// An incomplete object or list.
enum Open {
    Object(Map, String),
    List(Vec<Value>),
}

impl ValueSink {
    pub(super) fn new(budget: Budget) -> Self {
        Self { done: Value::Null, open: Vec::new(), budget, exceeded: None }
    }

    pub(super) fn finish(self) -> Result<Value, LimitError> {
        self.exceeded.map_or(Ok(self.done), Err)
    }

    /// Takes bytes from the budget; returns false if it is exhausted.
    fn charge(&mut self, bytes: usize) -> bool {
        if self.exceeded.is_none() {
            self.exceeded = self.budget.charge(bytes).err();
        }
        self.exceeded.is_none()
    }

    fn put(&mut self, value: Value) {
        let slot = match self.open.last() {
            Some(Open::Object(fields, name)) => {
                let node = if fields.is_empty() { cost::OBJECT } else { 0 };
                node + cost::FIELD + cost::text(name.len())
            }
            Some(Open::List(_)) => cost::ITEM,
            None => 0,
        };
        if !self.charge(slot) {
            return;
        }
        match self.open.last_mut() {
            Some(Open::Object(fields, name)) => {
                fields.insert(std::mem::take(name), value);
            }
            Some(Open::List(items)) => items.push(value),
            None => self.done = value,
        }
    }

    fn put_text(&mut self, len: usize, text: impl FnOnce() -> String) {
        if self.charge(cost::text(len)) {
            self.put(Value::String(text()));
        }
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some(Open::Object(fields, _)) => self.put(Value::Object(fields)),
            Some(Open::List(items)) => self.put(Value::Array(items)),
            None => {}
        }
    }
}

impl Sink for ValueSink {
    fn open_object(&mut self) {
        self.open.push(Open::Object(Map::new(), String::new()));
    }

    fn close_object(&mut self) {
        self.close();
    }

    fn open_list(&mut self) {
        self.open.push(Open::List(Vec::new()));
    }

    fn close_list(&mut self) {
        self.close();
    }

    fn name(&mut self, name: &str) {
        self.key(name);
    }

    fn key(&mut self, key: &str) {
        if let Some(Open::Object(_, name)) = self.open.last_mut() {
            key.clone_into(name);
        }
    }

    fn null(&mut self) {
        self.put(Value::Null);
    }

    fn bool(&mut self, value: bool) {
        self.put(Value::Bool(value));
    }

    fn int(&mut self, value: i64) {
        self.put(Value::from(value));
    }

    fn double(&mut self, value: f64) {
        self.put(Value::from(value));
    }

    fn text(&mut self, value: &str) {
        self.put_text(value.len(), || value.to_owned());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.put_text(value.len().div_ceil(3) * 4, || STANDARD.encode(value));
    }

    fn json(&mut self, field: &str, text: &[u8], depth: usize) -> Result<(), ProtobufError> {
        if self.exceeded.is_some() {
            return Ok(());
        }
        let decoded = json::decode_within(text, depth, &mut self.budget);
        self.put(decoded.map_err(|error| ProtobufError::not_json(field, &error))?.value);
        Ok(())
    }
}
