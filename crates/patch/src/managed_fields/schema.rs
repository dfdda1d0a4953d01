//! Types for structured merge diff, derived from the types of `nave-schema` (upstream: `structured-merge-diff/schema`
//! and `kube-openapi/pkg/schemaconv`).

use std::borrow::Cow;

use nave_machinery::{Map, Value};
use nave_schema::{ListTopology, Scalar, SchemaSet, Shape, StructType, TypeId};
use nave_structural::{Additional, Kind as SchemaKind, ListType as SchemaList, Node, Structural};

use super::field_name::FieldName;
use super::path::PathElement;

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub enum TypeRef<'s> {
    /// A struct.
    Struct(&'s SchemaSet, TypeId),
    /// The type of a field or of a list item.
    Shape(&'s SchemaSet, &'s Shape),
    /// A struct whose fields are merged, although its type is atomic.
    Granular(&'s SchemaSet, TypeId),
    /// A type from the schema of a custom resource.
    Custom(CustomType<'s>),
    /// An unknown type, merged by the kind of the value: maps by key, lists atomically. Used for custom resources
    /// without a schema.
    Deduced,
    /// An atomic value of any type.
    Untyped,
}

/// The kind of a value. Some types allow several kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Map,
    Scalar,
    List,
}

/// A struct or a map.
#[derive(Clone, Copy)]
pub(super) struct MapType<'s> {
    pub is_atomic: bool,
    entries: Entries<'s>,
}

#[derive(Clone, Copy)]
enum Entries<'s> {
    Fields(&'s SchemaSet, &'s StructType),
    Custom(CustomType<'s>),
    Any(TypeRef<'s>),
}

/// A list.
#[derive(Clone, Copy)]
pub(super) struct ListType<'s> {
    pub items: TypeRef<'s>,
    pub relation: Relation<'s>,
}

/// How the items of a list are identified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation<'s> {
    Atomic,
    Set,
    Keys(&'s [String]),
}

impl<'s> TypeRef<'s> {
    /// Returns the type of the objects of a custom resource with this schema.
    pub fn custom(schema: &'s Structural) -> Self {
        Self::Custom(CustomType::new(schema.root(), false))
    }

    /// Returns whether the type allows values of several kinds.
    fn allows_all_kinds(self) -> bool {
        match self {
            Self::Shape(_, Shape::Any) | Self::Deduced | Self::Untyped => true,
            Self::Custom(custom) => custom.kind().is_none(),
            _ => false,
        }
    }

    /// Returns the kind of a value of this type. A null value, or a value of a kind that the type does not allow, has
    /// the first kind of the type.
    pub(super) fn kind(self, value: Option<&Value>) -> Kind {
        match self {
            Self::Struct(..) | Self::Granular(..) | Self::Shape(_, Shape::Struct(_) | Shape::Map { .. }) => {
                Kind::Map
            }
            Self::Shape(_, Shape::List { .. }) => Kind::List,
            Self::Shape(_, Shape::Scalar(_)) => Kind::Scalar,
            Self::Custom(custom) => custom.kind().unwrap_or_else(|| kind_of(value)),
            Self::Shape(_, Shape::Any) | Self::Deduced | Self::Untyped => kind_of(value),
        }
    }

    /// Returns whether two values of the type have different kinds. If the type has several kinds, null differs from
    /// all of them.
    pub(super) fn kinds_differ(self, a: &Value, b: &Value) -> bool {
        self.allows_all_kinds() && (self.kind(Some(a)) != self.kind(Some(b)) || a.is_null() != b.is_null())
    }

    /// Returns the map type, if the type allows maps.
    pub(super) fn map(self) -> Option<MapType<'s>> {
        let (is_atomic, entries) = match self {
            Self::Struct(set, id) | Self::Shape(set, &Shape::Struct(id)) => {
                let ty = set.get(id);
                (ty.atomic, Entries::Fields(set, ty))
            }
            Self::Granular(set, id) => (false, Entries::Fields(set, set.get(id))),
            Self::Shape(set, Shape::Map { values, atomic }) => {
                (*atomic, Entries::Any(Self::Shape(set, values)))
            }
            Self::Custom(custom) if matches!(custom.kind(), None | Some(Kind::Map)) => {
                (custom.node.atomic_map, Entries::Custom(custom))
            }
            Self::Deduced => (false, Entries::Any(Self::Deduced)),
            Self::Untyped | Self::Shape(_, Shape::Any) => (true, Entries::Any(Self::Untyped)),
            Self::Custom(_) | Self::Shape(_, Shape::List { .. } | Shape::Scalar(_)) => return None,
        };
        Some(MapType { is_atomic, entries })
    }

    /// Returns the list type, if the type allows lists.
    pub(super) fn list(self) -> Option<ListType<'s>> {
        match self {
            Self::Shape(set, Shape::List { items, topology }) => {
                let relation = match topology {
                    ListTopology::Atomic => Relation::Atomic,
                    ListTopology::Set => Relation::Set,
                    ListTopology::Map(keys) => Relation::Keys(keys),
                };
                Some(ListType { items: Self::Shape(set, items), relation })
            }
            Self::Deduced | Self::Untyped | Self::Shape(_, Shape::Any) => {
                Some(ListType { items: Self::Untyped, relation: Relation::Atomic })
            }
            Self::Custom(custom) if matches!(custom.kind(), None | Some(Kind::List)) => {
                Some(ListType { items: custom.items(), relation: custom.relation() })
            }
            Self::Struct(..) | Self::Granular(..) | Self::Shape(..) | Self::Custom(_) => None,
        }
    }

    /// Returns the scalar type; `None` if the type allows any scalar or is not a scalar.
    pub(super) fn scalar(self) -> Option<Scalar> {
        match self {
            Self::Shape(_, Shape::Scalar(scalar)) => Some(*scalar),
            Self::Custom(custom) => custom.scalar(),
            _ => None,
        }
    }

    /// Returns whether values of the type are a single field. A type with several kinds is treated as a map.
    pub(super) fn is_atomic(self) -> bool {
        match (self.map(), self.list()) {
            (Some(map), _) => map.is_atomic,
            (None, Some(list)) => list.relation == Relation::Atomic,
            (None, None) => false,
        }
    }

    /// Returns the type of the value that a path element leads to.
    pub(super) fn child(self, element: &PathElement) -> Option<Self> {
        match element {
            PathElement::Field(name) => self.map()?.entry(name.as_str()),
            _ => Some(self.list()?.items),
        }
    }

    /// Returns whether a path element is a field of a struct, not an entry of a map.
    pub(super) fn declares(self, element: &PathElement) -> bool {
        let PathElement::Field(name) = element else { return false };
        self.map().is_some_and(|map| map.declares(name.as_str()))
    }
}

impl<'s> MapType<'s> {
    /// Returns the type of a field or a map entry; `None` for an undeclared field of a struct.
    pub(super) fn entry(self, name: &str) -> Option<TypeRef<'s>> {
        self.field_of(name).or_else(|| self.values())
    }

    /// Returns the type of a struct's field.
    pub(super) fn field_of(self, name: &str) -> Option<TypeRef<'s>> {
        match self.entries {
            Entries::Fields(set, ty) => ty.field(name).map(|field| match field.shape {
                Shape::Struct(id) if field.granular => TypeRef::Granular(set, id),
                _ => TypeRef::Shape(set, &field.shape),
            }),
            Entries::Custom(custom) => custom.field(name),
            Entries::Any(_) => None,
        }
    }

    /// Returns the type of undeclared fields, if the type allows any.
    pub(super) fn values(self) -> Option<TypeRef<'s>> {
        match self.entries {
            Entries::Fields(..) => None,
            Entries::Custom(custom) => custom.values(),
            Entries::Any(values) => Some(values),
        }
    }

    /// Returns whether the struct declares a field.
    pub(super) fn declares(self, name: &str) -> bool {
        self.field_of(name).is_some()
    }

    /// Returns the default of a declared field. As in upstream's schema, the default of a text or a number that is encoded
    /// even when it is empty is the empty one.
    fn default(self, name: &str) -> Option<Cow<'s, Value>> {
        match self.entries {
            Entries::Fields(_, ty) => {
                let field = ty.field(name)?;
                let declared = field.default.as_ref().map(|default| Cow::Borrowed(&default.0));
                declared.or_else(|| match field.shape {
                    Shape::Scalar(Scalar::String) if field.always => Some(Cow::Owned("".into())),
                    Shape::Scalar(Scalar::Int32 | Scalar::Int64) if field.always => {
                        Some(Cow::Owned(0.into()))
                    }
                    _ => None,
                })
            }
            Entries::Custom(custom) => custom.node.property(name)?.default.as_deref().map(Cow::Borrowed),
            Entries::Any(_) => None,
        }
    }
}

impl ListType<'_> {
    /// Returns the path element of a list item.
    ///
    /// # Errors
    /// The item cannot be identified.
    pub(super) fn element(self, item: &Value) -> Result<PathElement, String> {
        match (self.relation, item) {
            (Relation::Atomic, _) => Err("invalid indexing of non-associative list".to_owned()),
            (Relation::Keys(keys), Value::Object(fields)) => self.key(keys, fields),
            (Relation::Keys(_), Value::Null) => {
                Err("associative list with keys may not have a null element".to_owned())
            }
            (Relation::Keys(_), _) => {
                Err("associative list with keys may not have non-map elements".to_owned())
            }
            (Relation::Set, Value::Object(_)) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            (Relation::Set, Value::Array(_)) => {
                Err("not supported: associative list with lists as elements".to_owned())
            }
            (Relation::Set, Value::Null) => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            (Relation::Set, scalar) => Ok(PathElement::Value(scalar.clone())),
        }
    }

    /// Returns the keys of the item. A missing key has its default, or is omitted if it has no default.
    fn key(self, keys: &[String], fields: &Map) -> Result<PathElement, String> {
        let map = self.items.map();
        let mut key = Vec::with_capacity(keys.len());
        for name in keys {
            let value = fields.get(name).map(Cow::Borrowed).or_else(|| map?.default(name));
            if let Some(value) = value {
                key.push((FieldName::new(name), value.into_owned()));
            }
        }
        if key.is_empty() {
            return Err(format!(
                "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default values for any key fields)"
            ));
        }
        key.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        Ok(PathElement::Key(key))
    }
}

/// Returns the kind of a value whose type allows all kinds.
fn kind_of(value: Option<&Value>) -> Kind {
    match value {
        None | Some(Value::Null | Value::Object(_)) => Kind::Map,
        Some(Value::Array(_)) => Kind::List,
        Some(_) => Kind::Scalar,
    }
}

/// A node of a structural schema.
#[derive(Clone, Copy, Debug)]
pub struct CustomType<'s> {
    node: &'s Node,
    /// True below a node that preserves unknown fields.
    preserves: bool,
}

impl<'s> CustomType<'s> {
    fn new(node: &'s Node, preserves: bool) -> Self {
        Self { node, preserves: preserves || node.preserve_unknown }
    }

    /// Returns the kind of values that the schema allows; `None` if it allows all kinds.
    fn kind(self) -> Option<Kind> {
        if self.node.int_or_string {
            return None;
        }
        Some(match self.node.kind? {
            SchemaKind::Object => Kind::Map,
            SchemaKind::Array => Kind::List,
            _ => Kind::Scalar,
        })
    }

    /// Returns the type of a declared field.
    fn field(self, name: &str) -> Option<TypeRef<'s>> {
        match self.meta_field(name) {
            Some(ty) => Some(ty),
            None => self.node.property(name).map(|node| TypeRef::Custom(Self::new(node, self.preserves))),
        }
    }

    /// Returns the type of a metadata field, because the schema does not describe metadata.
    fn meta_field(self, name: &str) -> Option<TypeRef<'s>> {
        const TEXT: &Shape = &Shape::Scalar(Scalar::String);
        if !self.node.embedded_resource {
            return None;
        }
        let schemas: &'static SchemaSet = nave_schema::builtin();
        match name {
            "apiVersion" | "kind" => Some(TypeRef::Shape(schemas, TEXT)),
            "metadata" => schemas.find(OBJECT_META).map(|id| TypeRef::Struct(schemas, id)),
            _ => None,
        }
    }

    /// Returns the type of undeclared fields, if the schema allows any.
    fn values(self) -> Option<TypeRef<'s>> {
        match &self.node.additional {
            Additional::Schema(node) => Some(TypeRef::Custom(Self::new(node, self.preserves))),
            Additional::Any => Some(TypeRef::Deduced),
            Additional::Forbidden => None,
            Additional::Unset => {
                let is_free = self.node.properties.is_empty() && !self.node.embedded_resource;
                (self.preserves || is_free).then_some(TypeRef::Deduced)
            }
        }
    }

    /// Returns the type of the items of a list.
    fn items(self) -> TypeRef<'s> {
        match self.node.items.as_deref() {
            Some(node) => TypeRef::Custom(Self::new(node, self.preserves)),
            None => TypeRef::Untyped,
        }
    }

    fn relation(self) -> Relation<'s> {
        match &self.node.list {
            SchemaList::Unset | SchemaList::Atomic => Relation::Atomic,
            SchemaList::Set => Relation::Set,
            SchemaList::Map(keys) => Relation::Keys(keys),
        }
    }

    /// Returns the scalar type; `None` if the schema allows any.
    fn scalar(self) -> Option<Scalar> {
        match self.node.kind.filter(|_| !self.node.int_or_string)? {
            SchemaKind::Integer => Some(Scalar::Int64),
            SchemaKind::Number => Some(Scalar::Double),
            SchemaKind::Boolean => Some(Scalar::Bool),
            SchemaKind::String => Some(Scalar::String),
            SchemaKind::Object | SchemaKind::Array => None,
        }
    }
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
