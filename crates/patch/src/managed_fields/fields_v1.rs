//! Sets of fields as `fieldsV1`: a tree of maps, in which `.` stands for the field itself.

use nave_machinery::limits::MAX_DEPTH;
use nave_machinery::{Map, Value};

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

    /// Writes `fieldsV1`.
    ///
    /// # Errors
    /// An object with it would be deeper than one may be.
    pub fn into_fields_v1(self) -> Result<Value, FieldsError> {
        if self.depth() + LEVELS_ABOVE >= MAX_DEPTH {
            return Err(FieldsError::TooDeep);
        }
        Ok(Value::Object(write(self, false)))
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

fn write(set: FieldSet, is_member: bool) -> Map {
    let itself = is_member.then(|| (SELF.to_owned(), Value::Object(Map::new())));
    let below = set.into_nodes().map(|node| {
        let below = if node.children.is_empty() { Map::new() } else { write(node.children, node.member) };
        (node.element.serialized(), Value::Object(below))
    });
    itself.into_iter().chain(below).collect()
}
