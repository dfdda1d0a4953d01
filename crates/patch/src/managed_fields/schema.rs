//! Types as structured merge diff sees them, over the types of `nave-schema` (upstream: `structured-merge-diff/schema`
//! and `kube-openapi/pkg/schemaconv`).

use nave_machinery::{Map, Value};
use nave_schema::{Field, ListTopology, Scalar, SchemaSet, Shape, StructType, TypeId};

use super::path::PathElement;

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub enum TypeRef<'s> {
    /// A struct.
    Struct(&'s SchemaSet, TypeId),
    /// What a field holds, or an item of it.
    Shape(&'s SchemaSet, &'s Shape),
    /// A type that follows from the value: maps are granular, lists are one value. Custom resources without a schema
    /// have it.
    Deduced,
    /// Anything, as one value.
    Untyped,
}

/// What a value of a type is, one of the alternatives that the type allows.
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
    Any(TypeRef<'s>),
}

/// A list.
#[derive(Clone, Copy)]
pub(super) struct ListType<'s> {
    pub items: TypeRef<'s>,
    pub relation: Relation<'s>,
}

/// How the items of a list are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation<'s> {
    Atomic,
    Set,
    Keys(&'s [String]),
}

impl<'s> TypeRef<'s> {
    /// What a value of this type is. Null, and what is of no kind that the type allows, is of the first that it allows.
    pub(super) fn kind(self, value: Option<&Value>) -> Kind {
        match self {
            Self::Struct(..) | Self::Shape(_, Shape::Struct(_) | Shape::Map { .. }) => Kind::Map,
            Self::Shape(_, Shape::List { .. }) => Kind::List,
            Self::Shape(_, Shape::Scalar(_)) => Kind::Scalar,
            Self::Shape(_, Shape::Any) | Self::Deduced | Self::Untyped => match value {
                None | Some(Value::Null | Value::Object(_)) => Kind::Map,
                Some(Value::Array(_)) => Kind::List,
                Some(_) => Kind::Scalar,
            },
        }
    }

    /// Returns whether two values of the type are of different kinds. Null is of no kind where a type allows several.
    pub(super) fn kinds_differ(self, a: &Value, b: &Value) -> bool {
        match self {
            Self::Shape(_, Shape::Any) | Self::Deduced | Self::Untyped => {
                self.kind(Some(a)) != self.kind(Some(b)) || a.is_null() != b.is_null()
            }
            _ => false,
        }
    }

    /// The type as one of maps, where it allows them.
    pub(super) fn map(self) -> Option<MapType<'s>> {
        let (is_atomic, entries) = match self {
            Self::Struct(set, id) | Self::Shape(set, &Shape::Struct(id)) => {
                let ty = set.get(id);
                (ty.atomic, Entries::Fields(set, ty))
            }
            Self::Shape(set, Shape::Map { values, atomic }) => {
                (*atomic, Entries::Any(Self::Shape(set, values)))
            }
            Self::Deduced => (false, Entries::Any(Self::Deduced)),
            Self::Untyped | Self::Shape(_, Shape::Any) => (true, Entries::Any(Self::Untyped)),
            Self::Shape(_, Shape::List { .. } | Shape::Scalar(_)) => return None,
        };
        Some(MapType { is_atomic, entries })
    }

    /// The type as one of lists, where it allows them.
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
            Self::Struct(..) | Self::Shape(..) => None,
        }
    }

    /// The scalar type; `None` where any scalar is allowed, or none.
    pub(super) fn scalar(self) -> Option<Scalar> {
        match self {
            Self::Shape(_, Shape::Scalar(scalar)) => Some(*scalar),
            _ => None,
        }
    }

    /// Returns whether a value of the type is one field as a whole. A type that allows several kinds is seen as one of maps.
    pub(super) fn is_atomic(self) -> bool {
        match (self.map(), self.list()) {
            (Some(map), _) => map.is_atomic,
            (None, Some(list)) => list.relation == Relation::Atomic,
            (None, None) => false,
        }
    }

    /// The type of what an element leads to.
    pub(super) fn child(self, element: &PathElement) -> Option<Self> {
        match element {
            PathElement::Field(name) => self.map()?.entry(name.as_str()),
            _ => Some(self.list()?.items),
        }
    }

    /// Returns whether the element is a field that the type declares, and no entry of a map.
    pub(super) fn declares(self, element: &PathElement) -> bool {
        let PathElement::Field(name) = element else { return false };
        self.map().is_some_and(|map| map.declares(name.as_str()))
    }
}

impl<'s> MapType<'s> {
    /// The type of an entry; `None` for a field that the struct does not have.
    pub(super) fn entry(self, name: &str) -> Option<TypeRef<'s>> {
        self.field_of(name).or_else(|| self.values())
    }

    /// The type of a declared field.
    pub(super) fn field_of(self, name: &str) -> Option<TypeRef<'s>> {
        match self.entries {
            Entries::Fields(set, ty) => ty.field(name).map(|field| TypeRef::Shape(set, &field.shape)),
            Entries::Any(_) => None,
        }
    }

    /// The type of the values of a map, which is no struct.
    pub(super) fn values(self) -> Option<TypeRef<'s>> {
        match self.entries {
            Entries::Fields(..) => None,
            Entries::Any(values) => Some(values),
        }
    }

    /// Returns whether the struct has a field of this name.
    pub(super) fn declares(self, name: &str) -> bool {
        self.field(name).is_some()
    }

    fn field(self, name: &str) -> Option<&'s Field> {
        match self.entries {
            Entries::Fields(_, ty) => ty.field(name),
            Entries::Any(_) => None,
        }
    }
}

impl ListType<'_> {
    /// The element that leads to an item of the list.
    ///
    /// # Errors
    /// Why the item cannot be told apart from others.
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

    /// The keys of an item: its own, else their defaults; a key without either is left out.
    fn key(self, keys: &[String], fields: &Map) -> Result<PathElement, String> {
        let map = self.items.map();
        let mut key = Vec::with_capacity(keys.len());
        for name in keys {
            let default = || map?.field(name)?.default.as_ref().map(|default| &default.0);
            if let Some(value) = fields.get(name).or_else(default) {
                key.push((name.clone(), value.clone()));
            }
        }
        if key.is_empty() {
            return Err(format!(
                "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default values for any key fields)"
            ));
        }
        key.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(PathElement::Key(key))
    }
}
