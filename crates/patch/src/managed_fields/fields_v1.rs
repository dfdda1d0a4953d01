//! Sets of fields as `fieldsV1`: a tree of maps, in which `.` stands for the field itself. For its two forms in a value
//! see [`nave_machinery::managed_fields`].

use nave_machinery::Value;
use nave_machinery::limits::MAX_DEPTH;

use super::path::{ElementError, PathElement};
use super::set::{FieldSet, Node};

/// The member that stands for the field itself where there are others below it.
const SELF: &str = ".";

/// The levels of an object above `fieldsV1`: the object, its metadata, the list and the entry.
const LEVELS_ABOVE: usize = 4;

/// Why `fieldsV1` is no set of fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// It is not a tree of maps.
    #[error("fieldsV1 holds something that is not a map")]
    NotAMap,
    /// A path element that cannot be read.
    #[error("parsing key as path element: {0}")]
    Element(String),
    /// It nests deeper than an object may.
    #[error("fieldsV1 is too deep")]
    TooDeep,
}

impl FieldSet {
    /// Reads `fieldsV1`; `null` is the empty set.
    ///
    /// # Errors
    /// What is no tree of path elements, or too deep.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, FieldsError> {
        let (set, _) = read(fields, MAX_DEPTH)?;
        Ok(set)
    }

    /// Reads the JSON text of `fieldsV1`.
    ///
    /// # Errors
    /// Text that is not JSON, or not a tree of path elements, or too deep.
    pub fn from_fields_v1_text(text: &str) -> Result<Self, FieldsError> {
        let tree = serde_json::from_str(text).map_err(|error| FieldsError::Element(error.to_string()))?;
        Self::from_fields_v1(&tree)
    }

    /// Returns `fieldsV1` as JSON text, with the fields in the order of paths (upstream: `Set.ToJSON`).
    ///
    /// # Errors
    /// An object with it would be deeper than one may be.
    pub fn to_fields_v1_text(&self) -> Result<String, FieldsError> {
        if self.depth() + LEVELS_ABOVE >= MAX_DEPTH {
            return Err(FieldsError::TooDeep);
        }
        let mut text = String::with_capacity(256);
        write(self, false, &mut text);
        Ok(text)
    }

    /// Returns `fieldsV1` as a tree of maps.
    ///
    /// # Errors
    /// An object with it would be deeper than one may be.
    pub fn to_fields_v1(&self) -> Result<Value, FieldsError> {
        let text = self.to_fields_v1_text()?;
        serde_json::from_str(&text).map_err(|error| FieldsError::Element(error.to_string()))
    }
}

/// Returns what is below, and whether the field itself is in the set.
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

fn write(set: &FieldSet, is_member: bool, text: &mut String) {
    text.push('{');
    if is_member {
        text.push_str("\".\":{}");
    }
    for (at, node) in set.nodes().iter().enumerate() {
        if at > 0 || is_member {
            text.push(',');
        }
        node.element.push_serialized(text);
        text.push(':');
        if node.children.is_empty() {
            text.push_str("{}");
        } else {
            write(&node.children, node.member, text);
        }
    }
    text.push('}');
}
