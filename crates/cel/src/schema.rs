//! Types and sizes from OpenAPI schemas. Upstream: `apiserver/pkg/cel/common/schemas.go`.

mod escape;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::cost::{Bounds, SizeEstimator};
use crate::kinds::{ObjectType, Type};
pub use escape::{escape_property, is_reserved, unescape_property};

/// Maximum size of a request in bytes.
const MAX_REQUEST: u64 = 3 << 20;
/// Minimum and maximum lengths in JSON of strings, durations, dates and times.
const MIN_STRING: u64 = 2;
const MIN_DURATION: u64 = 3;
const MAX_DURATION: u64 = 32;
const DATE_SIZE: u64 = 12;
const MIN_DATE_TIME: u64 = 21;
const MAX_DATE_TIME: u64 = 38;

/// The declaration of a value by a schema.
#[derive(Clone, Debug)]
pub struct Decl {
    pub(crate) kind: DeclKind,
    pub(crate) nullable: bool,
    /// Maximum number of code points, items or entries.
    pub(crate) max_size: Option<u64>,
    /// The length of the shortest possible JSON.
    pub(crate) min_json: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum DeclKind {
    Object(Box<ObjectDecl>),
    Map(Box<Decl>),
    List {
        items: Box<Decl>,
        list_type: ListType,
    },
    String,
    Bytes,
    Duration,
    Date,
    DateTime,
    Bool,
    Int,
    Double,
    IntOrString,
    /// A value of an unknown type, kept unchanged.
    Preserved,
}

#[derive(Clone, Debug)]
pub(crate) enum ListType {
    Atomic,
    Set,
    /// A list of type `map`, with the names of the keys.
    Map(Vec<String>),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectDecl {
    /// Properties by JSON name. Expressions cannot select properties of unsupported types.
    properties: BTreeMap<String, Property>,
    pub(crate) has_properties: bool,
}

#[derive(Clone, Debug)]
struct Property {
    decl: Decl,
    /// True if expressions can select the property.
    typed: bool,
}

impl ObjectDecl {
    /// Returns whether the schema declares the fields of all resources.
    fn has_metadata(&self) -> bool {
        let is_text = |object: &Self, name: &str| {
            object.property(name).is_some_and(|decl| matches!(decl.kind, DeclKind::String))
        };
        let names = self.property("metadata").is_some_and(|decl| match &decl.kind {
            DeclKind::Object(metadata) => is_text(metadata, "name") && is_text(metadata, "generateName"),
            _ => false,
        });
        names && is_text(self, "kind") && is_text(self, "apiVersion")
    }

    pub(crate) fn property(&self, name: &str) -> Option<&Decl> {
        self.properties.get(name).map(|property| &property.decl)
    }
}

impl Decl {
    /// Reads a schema. Returns `None` if expressions cannot use values of the schema.
    pub fn from_schema(schema: &Json, is_resource_root: bool) -> Option<Self> {
        let (decl, typed) = read(schema, is_resource_root, 0)?;
        typed.then_some(decl)
    }

    /// Returns the type. The names of nested objects start with `name`.
    pub fn to_type(&self, name: &str) -> Type {
        match &self.kind {
            DeclKind::Object(object) => {
                let mut fields = BTreeMap::new();
                for (json_name, property) in &object.properties {
                    if let Some(field) = escape_property(json_name).filter(|_| property.typed) {
                        let ty = property.decl.to_type(&format!("{name}.{field}"));
                        fields.insert(Arc::from(&*field), ty);
                    }
                }
                Type::Object(Arc::new(ObjectType { name: name.into(), fields }))
            }
            DeclKind::Map(values) => Type::map(Type::String, values.to_type(&format!("{name}.@elem"))),
            DeclKind::List { items, .. } => Type::list(items.to_type(&format!("{name}.@idx"))),
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Duration => Type::Duration,
            DeclKind::Date | DeclKind::DateTime => Type::Timestamp,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::IntOrString | DeclKind::Preserved => Type::Dyn,
        }
    }

    /// Returns the size of the value at a path. Values without a size have the size 0, as upstream.
    pub(crate) fn size_at(&self, path: &[String]) -> Option<Bounds> {
        let Some((first, rest)) = path.split_first() else {
            return Some(Bounds { min: 0, max: self.max_size.unwrap_or(0) });
        };
        match (&self.kind, first.as_str()) {
            (DeclKind::List { items, .. }, "@items" | "@values") => items.size_at(rest),
            (DeclKind::Map(values), "@items" | "@values") => values.size_at(rest),
            (DeclKind::Map(_), "@keys") if rest.is_empty() => Some(Bounds::fixed(0)),
            (DeclKind::Object(object), name) if !is_reserved(name) => {
                let name = unescape_property(name)?;
                let property = object.properties.get(&*name).filter(|property| property.typed)?;
                property.decl.size_at(rest)
            }
            _ => None,
        }
    }
}

/// Sizes from the schemas of variables.
#[derive(Debug, Default)]
pub struct DeclSizes<'d>(pub Vec<(&'static str, &'d Decl)>);

impl SizeEstimator for DeclSizes<'_> {
    fn estimate_size(&self, path: &[String], _: &Type) -> Option<Bounds> {
        let (root, rest) = path.split_first()?;
        self.0.iter().find(|(name, _)| name == root)?.1.size_at(rest)
    }
}

const MAX_DEPTH: usize = 120;

/// Reads a schema. The flag is true if expressions can use values of the schema.
fn read(schema: &Json, is_resource: bool, depth: usize) -> Option<(Decl, bool)> {
    if depth > MAX_DEPTH {
        return None;
    }
    let flag = |name: &str| schema.get(name).and_then(Json::as_bool).unwrap_or_default();
    let number =
        |name: &str| schema.get(name).and_then(Json::as_i64).map(|it| u64::try_from(it).unwrap_or(0));
    let nullable = flag("nullable");
    let decl =
        |kind: DeclKind, max_size: Option<u64>, min_json: u64| Decl { kind, nullable, max_size, min_json };
    if flag("x-kubernetes-int-or-string") {
        // A code point has up to four bytes.
        let max = number("maxLength").map_or(MAX_REQUEST - 2, |max| max.saturating_mul(4));
        return Some((decl(DeclKind::IntOrString, Some(max), 1), true));
    }
    let embedded = flag("x-kubernetes-embedded-resource");
    let with_meta = embedded || is_resource;
    match schema.get("type").and_then(Json::as_str).unwrap_or_default() {
        "array" => {
            let (items, typed) = read(schema.get("items")?, false, depth + 1)?;
            let max = number("maxItems").unwrap_or((MAX_REQUEST - 2) / (items.min_json + 1));
            let list_type = match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
                Some("set") => ListType::Set,
                Some("map") => {
                    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
                    let keys = keys.into_iter().flatten().filter_map(|key| key.as_str().map(str::to_owned));
                    ListType::Map(keys.collect())
                }
                _ => ListType::Atomic,
            };
            Some((decl(DeclKind::List { items: Box::new(items), list_type }, Some(max), 2), typed))
        }
        "object" => object(schema, with_meta, nullable, depth),
        "string" => Some((string(schema, nullable), true)),
        "boolean" => Some((decl(DeclKind::Bool, None, 4), true)),
        "number" => Some((decl(DeclKind::Double, None, 1), true)),
        "integer" => Some((decl(DeclKind::Int, None, 1), true)),
        // Expressions cannot select a value of unknown type. The value only matters when an enclosing object is
        // compared.
        _ if flag("x-kubernetes-preserve-unknown-fields") => {
            Some((decl(DeclKind::Preserved, None, 1), false))
        }
        _ => None,
    }
}

fn object(schema: &Json, with_meta: bool, nullable: bool, depth: usize) -> Option<(Decl, bool)> {
    let number =
        |name: &str| schema.get(name).and_then(Json::as_i64).map(|it| u64::try_from(it).unwrap_or(0));
    if let Some(values) = schema.get("additionalProperties").filter(|it| it.is_object()) {
        let (values, typed) = read(values, false, depth + 1)?;
        let max = number("maxProperties").unwrap_or((MAX_REQUEST - 2) / (values.min_json + 6));
        let kind = DeclKind::Map(Box::new(values));
        return Some((Decl { kind, nullable, max_size: Some(max), min_json: 2 }, typed));
    }
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    let mut object = ObjectDecl::default();
    let mut min_json = 2;
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        object.has_properties = true;
        for (name, property) in properties {
            let Some((decl, typed)) = read(property, false, depth + 1) else { continue };
            let has_default = property.get("default").is_some_and(|it| !it.is_null());
            if typed && required.contains(&name.as_str()) && !has_default {
                min_json += name.len() as u64 + decl.min_json + 4;
            }
            object.properties.insert(name.clone(), Property { decl, typed });
        }
    }
    if with_meta && !object.has_metadata() {
        object.has_properties = true;
        for (name, decl) in metadata() {
            object.properties.insert(name.to_owned(), Property { decl, typed: true });
        }
    }
    let kind = DeclKind::Object(Box::new(object));
    Some((Decl { kind, nullable, max_size: None, min_json }, true))
}

/// Returns the fields of all resources.
fn metadata() -> [(&'static str, Decl); 3] {
    let text = || Decl {
        kind: DeclKind::String,
        nullable: false,
        max_size: Some(MAX_REQUEST - 2),
        min_json: MIN_STRING,
    };
    let names =
        ["name", "generateName"].map(|name| (name.to_owned(), Property { decl: text(), typed: true }));
    let object = ObjectDecl { properties: names.into(), has_properties: true };
    let metadata =
        Decl { kind: DeclKind::Object(Box::new(object)), nullable: false, max_size: None, min_json: 2 };
    [("kind", text()), ("apiVersion", text()), ("metadata", metadata)]
}

fn string(schema: &Json, nullable: bool) -> Decl {
    let max_length = schema.get("maxLength").and_then(Json::as_i64).map(|it| u64::try_from(it).unwrap_or(0));
    let (kind, max, min_json) = match schema.get("format").and_then(Json::as_str).unwrap_or_default() {
        "byte" => (DeclKind::Bytes, max_length.unwrap_or(MAX_REQUEST - 2), MIN_STRING),
        "duration" => (DeclKind::Duration, MAX_DURATION, MIN_DURATION),
        "date" => (DeclKind::Date, DATE_SIZE, DATE_SIZE),
        "date-time" => (DeclKind::DateTime, MAX_DATE_TIME, MIN_DATE_TIME),
        _ => {
            let values = schema.get("enum").and_then(Json::as_array).filter(|values| !values.is_empty());
            let max = match (max_length, values) {
                // A code point has up to four bytes.
                (Some(max), _) => max.saturating_mul(4),
                (None, Some(values)) => {
                    values.iter().filter_map(Json::as_str).map(|it| it.len() as u64).max().unwrap_or(0)
                }
                (None, None) => MAX_REQUEST - 2,
            };
            (DeclKind::String, max, MIN_STRING)
        }
    };
    Decl { kind, nullable, max_size: Some(max), min_json }
}
