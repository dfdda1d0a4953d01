//! The `fieldsV1` encoding of sets: a tree of maps in which `.` is the field itself. [`nave_machinery::managed_fields`]
//! describes its two forms in a value.

use nave_machinery::limits::MAX_DEPTH;
use nave_machinery::{Map, Value};

use super::path::{ElementError, PathElement};
use super::set::{FieldSet, Node};

/// The key of the field itself, if the set has other fields below it.
const SELF: &str = ".";

/// The number of levels above `fieldsV1`: the object, its metadata, the list and the entry.
pub(super) const LEVELS_ABOVE: usize = 4;

/// The error of an invalid `fieldsV1`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// The value is not a tree of maps.
    #[error("fieldsV1 holds something that is not a map")]
    NotAMap,
    /// A path element is invalid.
    #[error("parsing key as path element: {0}")]
    Element(String),
    /// The set is nested deeper than an object may be.
    #[error("fieldsV1 is too deep")]
    TooDeep,
}

impl FieldSet {
    /// Decodes `fieldsV1`; `null` is the empty set.
    ///
    /// # Errors
    /// It is not a tree of path elements, or nested too deeply.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, FieldsError> {
        let (set, _) = read(fields, MAX_DEPTH)?;
        Ok(set)
    }

    /// Decodes the JSON text of `fieldsV1`.
    ///
    /// # Errors
    /// The text is not JSON, not a tree of path elements, or nested too deeply.
    pub fn from_fields_v1_text(text: &str) -> Result<Self, FieldsError> {
        let tree = serde_json::from_str(text).map_err(|error| FieldsError::Element(error.to_string()))?;
        Self::from_fields_v1(&tree)
    }

    /// Encodes the set as JSON text, with the fields in path order (upstream: `Set.ToJSON`).
    ///
    /// # Errors
    /// An object with this set would be nested too deeply.
    pub fn to_fields_v1_text(&self) -> Result<String, FieldsError> {
        if self.depth() + LEVELS_ABOVE >= MAX_DEPTH {
            return Err(FieldsError::TooDeep);
        }
        let mut text = String::with_capacity(1024);
        write(self, false, &mut text, &mut String::new());
        Ok(text)
    }

    /// Encodes the set as a tree of maps.
    ///
    /// # Errors
    /// An object with this set would be nested too deeply.
    pub fn to_fields_v1(&self) -> Result<Value, FieldsError> {
        if self.depth() + LEVELS_ABOVE >= MAX_DEPTH {
            return Err(FieldsError::TooDeep);
        }
        Ok(tree(self, false))
    }
}

/// Returns the set below a field and whether the set includes the field itself.
fn read(fields: &Value, depth: usize) -> Result<(FieldSet, bool), FieldsError> {
    let depth = depth.checked_sub(1).ok_or(FieldsError::TooDeep)?;
    let fields = match fields {
        Value::Object(fields) => fields,
        Value::Null => return Ok((FieldSet::default(), true)),
        _ => return Err(FieldsError::NotAMap),
    };
    let mut is_member = false;
    let mut nodes: Vec<Node> = Vec::with_capacity(fields.len());
    for (name, below) in fields {
        if name == SELF {
            is_member = true;
            continue;
        }
        let element = match PathElement::parse(name) {
            Ok(element) => element,
            Err(ElementError::UnknownKind) => continue,
            Err(ElementError::Malformed(why)) => return Err(FieldsError::Element(why)),
        };
        let (children, member) = read(below, depth)?;
        nodes.push(Node { element, member, children });
    }
    let set = FieldSet::from_nodes(nodes);
    let is_leaf = set.is_empty();
    Ok((set, is_member || is_leaf))
}

fn tree(set: &FieldSet, is_member: bool) -> Value {
    let own = is_member.then(|| (SELF.to_owned(), Value::Object(Map::new())));
    let below = set.nodes().iter().map(|node| {
        // The mark is needed only if there are other fields below.
        let is_marked = node.member && !node.children.is_empty();
        (node.element.serialized(), tree(&node.children, is_marked))
    });
    Value::Object(own.into_iter().chain(below).collect())
}

fn write(set: &FieldSet, is_member: bool, text: &mut String, scratch: &mut String) {
    text.push_str(if is_member { "{\".\":{}" } else { "{" });
    for (at, node) in set.nodes().iter().enumerate() {
        if at > 0 || is_member {
            text.push(',');
        }
        node.element.push_serialized(text, scratch);
        if node.children.is_empty() {
            text.push_str(":{}");
        } else {
            text.push(':');
            write(&node.children, node.member, text, scratch);
        }
    }
    text.push('}');
}
