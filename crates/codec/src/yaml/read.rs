//! Builds a value from the events of a document.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle};
use nave_machinery::limits::{self, Budget, LimitError, MAX_BODY_BYTES, MAX_DEPTH, cost};
use nave_machinery::{Map, Status, Value};
use serde_json::map::Entry;

use super::resolve::scalar;
use crate::{
    DecodedDocument,
    json::{self, MAX_REPORTED, MAX_REPORTED_BYTES},
};

/// Maximum memory of anchored values and of their expansion by aliases, as estimated by [`Budget`]. Equal to the
/// maximum size of a body.
const MAX_ALIASED_BYTES: usize = MAX_BODY_BYTES;

/// Error of decoding a YAML document.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// The document is not YAML.
    #[error("yaml: line {line}: {reason}")]
    Syntax {
        /// Line number, starting at 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// The document is not UTF-8.
    #[error("yaml: invalid UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// The document is too deep or too large.
    #[error("yaml: {0}")]
    Limit(#[from] LimitError),
}

impl YamlError {
    fn syntax(mark: Marker, reason: impl Into<String>) -> Self {
        Self::Syntax { line: mark.line(), reason: reason.into() }
    }

    /// Returns the response to a request whose body has this error.
    pub fn into_status(self) -> Status {
        match self {
            Self::Limit(limit) => limit.into_status(),
            other => Status::bad_request(other.to_string()),
        }
    }
}

/// Decodes the first document; an empty input is null. The last of duplicate fields wins. Reports all duplicates in one
/// message, as Go's parser does.
pub fn decode(bytes: &[u8]) -> Result<DecodedDocument, YamlError> {
    let text = std::str::from_utf8(bytes).map_err(|error| YamlError::NotUtf8(error.valid_up_to()))?;
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    // One more than the limit, so that the builder rejects deeper values with its own message.
    options.flow_nesting_limit = MAX_DEPTH + 1;
    options.block_nesting_limit = MAX_DEPTH + 1;
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| YamlError::syntax(*error.marker(), error.info()))?;
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        builder.take(event, span.start)?;
    }
    let duplicates = match builder.duplicates.as_slice() {
        [] => Vec::new(),
        found => vec![format!("yaml: unmarshal errors:\n  {}", found.join("\n  "))],
    };
    Ok(DecodedDocument { value: builder.done.map_or(Value::Null, |node| node.value), duplicates })
}

/// A complete value, its memory and its depth.
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

/// An incomplete collection.
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
        /// The fields merged by `<<`. The object's own fields take precedence.
        merged: Map,
        /// The name of the field whose value is next.
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
                let node =
                    Node::scalar(scalar(&text, style, tag.as_deref()).ok_or_else(|| {
                        YamlError::syntax(mark, format!("json: unsupported value: {text}"))
                    })?);
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
                    return Err(YamlError::syntax(mark, "anchor contains itself"));
                };
                let bytes = node.bytes + cost::ITEM;
                if self.aliased.charge(bytes).is_err() {
                    return Err(YamlError::syntax(mark, EXCESSIVE_ALIASING));
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
            return Err(YamlError::syntax(mark, "a list or an object cannot be the name of a field"));
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
            // Counts anchored values too, because nested anchors would multiply them.
            if self.aliased.charge(node.bytes + cost::ITEM).is_err() {
                return Err(YamlError::syntax(mark, EXCESSIVE_ALIASING));
            }
            self.anchors.insert(anchor, node.clone());
        }
        self.put(node, mark)
    }

    /// Returns whether the next value is the name of a field.
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

/// Marks the merge key `<<`. YAML text cannot contain `\0`.
const MERGE: &str = "\0<<";

/// Adds the fields of an object, or of a list of objects, that are not yet present.
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
        _ => Err(YamlError::syntax(mark, "map merge requires map or sequence of maps as the value")),
    }
}

/// Converts a scalar key to a field name.
fn key_text(value: &Value, mark: Marker) -> Result<String, YamlError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(String::from_utf8_lossy(&json::encode(value)).into_owned()),
        Value::Null => Ok("null".to_owned()),
        Value::Array(_) | Value::Object(_) => {
            Err(YamlError::syntax(mark, "a list or an object cannot be the name of a field"))
        }
    }
}
