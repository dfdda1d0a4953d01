//! Compiles a schema in JSON (`JSONSchemaProps`) to nodes (upstream: `NewStructural`).

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use nave_machinery::{Map, Value};

use crate::formats::Format;
use crate::node::{Additional, Bound, KeptPatterns, Kind, ListType, Node, NodeRef, Pattern, Property, Rules};

/// Maximum nesting depth of a schema. A definition cannot contain a deeper schema, because objects have at most 100
/// levels.
const MAX_DEPTH: usize = 100;

/// Maximum number of nodes of a schema; a definition of 3 MiB cannot have many more.
const MAX_NODES: usize = 200_000;

/// Error of compiling a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A keyword has no meaning in structural schemas.
    #[error("OpenAPIV3Schema '{0}' is not supported")]
    Unsupported(&'static str),
    /// `items` is a list of schemas.
    #[error("OpenAPIV3Schema 'items' must be a schema, but is an array")]
    ItemsArray,
    /// `x-kubernetes-preserve-unknown-fields` is `false`.
    #[error("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined")]
    PreserveFalse,
    /// The type is unknown.
    #[error("unknown type {0:?}")]
    UnknownType(String),
    /// The schema is not an object.
    #[error("a schema must be an object")]
    NotAnObject,
    /// The schema is nested too deeply.
    #[error("the schema is nested too deeply")]
    TooDeep,
    /// The schema has too many parts.
    #[error("the schema has too many parts")]
    TooLarge,
}

/// Compiles the schema of a resource. Marks the root as an embedded resource, as upstream does.
pub(crate) fn root(schema: &Value) -> Result<NodeRef, CompileError> {
    Compiler::default().node(schema, Place::Root, 0)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Structure,
    /// Below `allOf`, `anyOf`, `oneOf` or `not`.
    Logic,
}

impl Place {
    fn below(self) -> Self {
        if self == Self::Logic { Self::Logic } else { Self::Structure }
    }
}

#[derive(Default)]
struct Compiler {
    names: HashSet<Arc<str>>,
    nodes: HashSet<ByContent>,
    count: usize,
    kept: Arc<KeptPatterns>,
}

/// A node, hashed and compared by content.
struct ByContent(NodeRef);

impl PartialEq for ByContent {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl Eq for ByContent {}

impl Hash for ByContent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.0).hash(state);
    }
}

impl Borrow<Node> for ByContent {
    fn borrow(&self) -> &Node {
        &self.0
    }
}

impl Compiler {
    fn node(&mut self, schema: &Value, place: Place, depth: usize) -> Result<NodeRef, CompileError> {
        let fields = schema.as_object().ok_or(CompileError::NotAnObject)?;
        self.count += 1;
        if depth > MAX_DEPTH {
            return Err(CompileError::TooDeep);
        }
        if self.count > MAX_NODES {
            return Err(CompileError::TooLarge);
        }
        refuse_unsupported(fields)?;
        let below = place.below();
        let mut node = Node {
            kind: kind(fields)?,
            nullable: flag(fields, "nullable"),
            preserve_unknown: match fields.get("x-kubernetes-preserve-unknown-fields") {
                Some(Value::Bool(false)) => return Err(CompileError::PreserveFalse),
                value => value == Some(&Value::Bool(true)),
            },
            embedded_resource: place == Place::Root || flag(fields, "x-kubernetes-embedded-resource"),
            int_or_string: flag(fields, "x-kubernetes-int-or-string"),
            atomic_map: text(fields, "x-kubernetes-map-type") == Some("atomic"),
            list: Self::list_type(fields),
            properties: self.properties(fields, below, depth)?,
            additional: self.additional(fields, below, depth)?,
            items: self.items(fields, below, depth)?,
            default: present(fields, "default").map(|value| Box::new(value.clone())),
            rules: self.rules(fields, depth)?,
            ..Node::default()
        };
        summarize(&mut node);
        Ok(self.shared(node))
    }

    fn shared(&mut self, node: Node) -> NodeRef {
        if let Some(known) = self.nodes.get(&node) {
            return known.0.clone();
        }
        let shared = NodeRef(Arc::new(node));
        self.nodes.insert(ByContent(shared.clone()));
        shared
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.names.insert(Arc::clone(&shared));
        shared
    }

    fn names(&mut self, fields: &Map, field: &str) -> Box<[Arc<str>]> {
        let list = fields.get(field).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(|name| self.name(name)).collect()
    }

    fn properties(
        &mut self,
        fields: &Map,
        place: Place,
        depth: usize,
    ) -> Result<Box<[Property]>, CompileError> {
        let Some(properties) = fields.get("properties").and_then(Value::as_object) else {
            return Ok(Box::default());
        };
        let mut compiled = Vec::with_capacity(properties.len());
        for (name, schema) in properties {
            compiled.push(Property { name: self.name(name), node: self.node(schema, place, depth + 1)? });
        }
        compiled.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(compiled.into())
    }

    fn additional(&mut self, fields: &Map, place: Place, depth: usize) -> Result<Additional, CompileError> {
        Ok(match present(fields, "additionalProperties") {
            None => Additional::Unset,
            Some(Value::Bool(false)) => Additional::Forbidden,
            Some(schema @ Value::Object(_)) => Additional::Schema(self.node(schema, place, depth + 1)?),
            Some(_) => Additional::Any,
        })
    }

    fn items(&mut self, fields: &Map, place: Place, depth: usize) -> Result<Option<NodeRef>, CompileError> {
        match present(fields, "items") {
            None => Ok(None),
            Some(Value::Array(_)) => Err(CompileError::ItemsArray),
            Some(schema) => self.node(schema, place, depth + 1).map(Some),
        }
    }

    fn list_type(fields: &Map) -> ListType {
        match text(fields, "x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => {
                let keys = fields.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                let keys = keys.into_iter().flatten().filter_map(Value::as_str);
                ListType::Map(keys.map(str::to_owned).collect())
            }
            Some(_) => ListType::Atomic,
            None => ListType::Unset,
        }
    }

    fn rules(&mut self, fields: &Map, depth: usize) -> Result<Option<Box<Rules>>, CompileError> {
        let bound = |name| fields.get(name).and_then(Value::as_f64).map(Bound::new);
        let count = |name| fields.get(name).and_then(Value::as_i64);
        let rules = Rules {
            format: text(fields, "format")
                .and_then(|name| Format::supported(name, text(fields, "type").unwrap_or_default())),
            maximum: bound("maximum"),
            minimum: bound("minimum"),
            exclusive_maximum: flag(fields, "exclusiveMaximum"),
            exclusive_minimum: flag(fields, "exclusiveMinimum"),
            unique_items: flag(fields, "uniqueItems"),
            multiple_of: bound("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            pattern: text(fields, "pattern").map(|text| Pattern::new(self.name(text), &self.kept)),
            enumeration: fields.get("enum").and_then(Value::as_array).cloned().unwrap_or_default().into(),
            required: self.names(fields, "required"),
            all_of: self.alternatives(fields, "allOf", depth)?,
            any_of: self.alternatives(fields, "anyOf", depth)?,
            one_of: self.alternatives(fields, "oneOf", depth)?,
            not: match present(fields, "not") {
                Some(schema) => Some(self.node(schema, Place::Logic, depth + 1)?),
                None => None,
            },
        };
        Ok((rules != Rules::default()).then(|| Box::new(rules)))
    }

    fn alternatives(
        &mut self,
        fields: &Map,
        name: &str,
        depth: usize,
    ) -> Result<Box<[NodeRef]>, CompileError> {
        let Some(schemas) = fields.get(name).and_then(Value::as_array) else { return Ok(Box::default()) };
        schemas.iter().map(|schema| self.node(schema, Place::Logic, depth + 1)).collect()
    }
}

/// Sets the flags that describe the subtree, so that walks can skip it.
fn summarize(node: &mut Node) {
    let below = node.properties.iter().map(|property| &property.node).chain(&node.items).chain(
        match &node.additional {
            Additional::Schema(child) => Some(child),
            _ => None,
        },
    );
    let (mut defaults, mut embedded, mut list_rules) = (false, false, false);
    for child in below {
        defaults |= child.has_defaults;
        embedded |= child.has_embedded || child.embedded_resource;
        list_rules |= child.has_list_rules;
    }
    node.has_defaults = defaults || node.default.is_some();
    node.has_embedded = embedded;
    node.has_list_rules = list_rules || matches!(node.list, ListType::Set | ListType::Map(_));
}

fn kind(fields: &Map) -> Result<Option<Kind>, CompileError> {
    match text(fields, "type") {
        None => Ok(None),
        Some(name) => Kind::parse(name).map(Some).ok_or_else(|| CompileError::UnknownType(name.to_owned())),
    }
}

/// The keywords that validation rejects and structural schemas cannot express, in upstream's order.
const UNSUPPORTED: [&str; 7] =
    ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"];

fn refuse_unsupported(fields: &Map) -> Result<(), CompileError> {
    for keyword in UNSUPPORTED {
        let is_set = match fields.get(keyword) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Object(map)) => !map.is_empty() || keyword == "additionalItems",
            Some(_) => true,
        };
        if is_set {
            let shown = if keyword == "$schema" { "schema" } else { keyword };
            return Err(CompileError::Unsupported(shown));
        }
    }
    Ok(())
}

/// Returns a field that is not `null`.
pub(crate) fn present<'a>(fields: &'a Map, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// Returns a string field that is not empty.
pub(crate) fn text<'a>(fields: &'a Map, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Returns whether a field is true.
pub(crate) fn flag(fields: &Map, name: &str) -> bool {
    fields.get(name) == Some(&Value::Bool(true))
}
