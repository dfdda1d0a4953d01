//! The compiled form of a schema: nodes that share equal parts.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use nave_machinery::Value;
use nave_machinery::go_regex::{self, Regex};

use crate::formats::Format;

/// One schema: of an object or a property, or a value validation inside `allOf`, `anyOf`, `oneOf` or `not`.
///
/// Omits descriptions, titles and examples. Equal nodes of a schema are stored once.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Node {
    /// The type. `None` allows any type; with [`Self::int_or_string`], integers and strings.
    pub kind: Option<Kind>,
    /// True if `null` is allowed.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`; always true for the root of a resource.
    pub embedded_resource: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// True if this node or a node below it has a default.
    pub(crate) has_defaults: bool,
    /// True if a node below this one is an embedded resource.
    pub(crate) has_embedded: bool,
    /// True if this node or a node below it is a list of type set or map.
    pub(crate) has_list_rules: bool,
    /// `x-kubernetes-list-type` with its keys.
    pub list: ListType,
    /// The properties, sorted by name.
    pub properties: Box<[Property]>,
    /// `additionalProperties`.
    pub additional: Additional,
    /// The schema of the items of a list.
    pub items: Option<NodeRef>,
    /// The default.
    pub default: Option<Box<Value>>,
    /// The value validations, if any.
    pub(crate) rules: Option<Box<Rules>>,
}

impl Node {
    /// Returns the schema of a property.
    pub fn property(&self, name: &str) -> Option<&Node> {
        let at = self.properties.binary_search_by(|known| (*known.name).cmp(name)).ok()?;
        self.properties.get(at).map(|property| &*property.node)
    }

    /// Returns the schema of `additionalProperties`, if any.
    pub fn additional_schema(&self) -> Option<&Node> {
        match &self.additional {
            Additional::Schema(node) => Some(node),
            _ => None,
        }
    }

    /// Returns the size of the JSON of the defaults of this node and of the nodes below it.
    pub(crate) fn size_of_defaults(&self) -> usize {
        if !self.has_defaults {
            return 0;
        }
        let own = self.default.as_ref().map_or(0, |default| default.to_string().len());
        let properties = self.properties.iter().map(|property| &*property.node);
        let below = properties.chain(self.items.as_deref()).chain(self.additional_schema());
        own + below.map(Self::size_of_defaults).sum::<usize>()
    }

    /// Returns the schema of the field `name`: of the property if declared, otherwise of `additionalProperties`.
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        self.property(name).or_else(|| self.additional_schema())
    }

    /// Returns whether the schema sets `additionalProperties`.
    pub(crate) fn allows_additional(&self) -> bool {
        self.additional != Additional::Unset
    }
}

/// A property of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Property {
    /// The name of the field.
    pub name: Arc<str>,
    /// The schema of its value.
    pub node: NodeRef,
}

/// A shared node, compared by identity.
#[derive(Clone, Debug)]
pub struct NodeRef(pub(crate) Arc<Node>);

impl Deref for NodeRef {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

impl PartialEq for NodeRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for NodeRef {}

impl Hash for NodeRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    /// Returns the type with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// Returns the name of the type in schemas.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListType {
    /// Not set, which is equivalent to `atomic`.
    #[default]
    Unset,
    /// `atomic`: the list is one value.
    Atomic,
    /// `set`: unique items.
    Set,
    /// `map`: objects with unique values of these keys.
    Map(Box<[String]>),
}

/// `additionalProperties`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Additional {
    /// Not set: other fields are unknown.
    #[default]
    Unset,
    /// `false`.
    Forbidden,
    /// `true`: any values.
    Any,
    /// Values of this schema.
    Schema(NodeRef),
}

/// The value validations of a node.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    pub(crate) format: Option<Format>,
    pub(crate) maximum: Option<Bound>,
    pub(crate) minimum: Option<Bound>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) exclusive_minimum: bool,
    pub(crate) unique_items: bool,
    pub(crate) multiple_of: Option<Bound>,
    pub(crate) max_length: Option<i64>,
    pub(crate) min_length: Option<i64>,
    pub(crate) max_items: Option<i64>,
    pub(crate) min_items: Option<i64>,
    pub(crate) max_properties: Option<i64>,
    pub(crate) min_properties: Option<i64>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) enumeration: Box<[Value]>,
    pub(crate) required: Box<[Arc<str>]>,
    pub(crate) all_of: Box<[NodeRef]>,
    pub(crate) any_of: Box<[NodeRef]>,
    pub(crate) one_of: Box<[NodeRef]>,
    pub(crate) not: Option<NodeRef>,
}

/// A bound of a number, stored as bits so that it can be compared and hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bound(u64);

impl Bound {
    pub(crate) fn new(value: f64) -> Self {
        Self(value.to_bits())
    }

    pub(crate) fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// A regular expression, compiled when it is used.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) text: Arc<str>,
    compiled: OnceLock<Regex>,
    kept: Arc<KeptPatterns>,
}

/// The memory of the patterns of a schema that are kept after their first use.
#[derive(Debug, Default)]
pub(crate) struct KeptPatterns {
    bytes: AtomicUsize,
}

/// Maximum size in bytes of the compiled patterns that a schema keeps. Patterns beyond it are compiled for each use.
const MAX_KEPT_BYTES: usize = 4 << 20;

impl KeptPatterns {
    /// Counts a pattern. Returns false if it must not be kept.
    fn admit(&self, regex: &Regex) -> bool {
        let bytes = regex.bytes();
        let fits = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_KEPT_BYTES;
        if !fits {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Pattern {
    pub(crate) fn new(text: Arc<str>, kept: &Arc<KeptPatterns>) -> Self {
        Self { text, compiled: OnceLock::new(), kept: Arc::clone(kept) }
    }

    /// Returns whether a text has a match, or the reason why that is unknown.
    pub(crate) fn is_match(&self, text: &str) -> Result<bool, String> {
        if let Some(regex) = self.compiled.get() {
            return regex.is_match(text).map_err(|why| why.to_string());
        }
        let regex = go_regex::compile(&self.text).map_err(|why| why.to_string())?;
        let found = regex.is_match(text).map_err(|why| why.to_string());
        if self.kept.admit(&regex) {
            // Another thread may have compiled the pattern, too.
            let _ = self.compiled.set(regex);
        }
        found
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_kept_within_a_limit_of_memory() {
        let kept = Arc::new(KeptPatterns::default());
        let patterns: Vec<Pattern> =
            (0..1000).map(|index| Pattern::new(format!(r"^\pL{{1000}}{index}$").into(), &kept)).collect();
        for pattern in &patterns {
            assert_eq!(pattern.is_match("é"), Ok(false));
            assert_eq!(pattern.is_match("é"), Ok(false));
        }
        let bytes: usize = patterns.iter().filter_map(|it| it.compiled.get()).map(Regex::bytes).sum();
        assert!((MAX_KEPT_BYTES / 2..=MAX_KEPT_BYTES).contains(&bytes), "{bytes}");
        assert!(Pattern::new("(".into(), &kept).is_match("é").unwrap_err().contains("missing closing )"));
    }
}
