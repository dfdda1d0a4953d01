//! Static types of expressions.

use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Known only at evaluation.
    Dyn,
    /// The element type of an empty list or map.
    Nothing,
    /// The type of `null`.
    Null,
    /// `true` and `false`.
    Bool,
    /// Signed numbers.
    Int,
    /// Unsigned numbers.
    Uint,
    /// Numbers with a fraction.
    Double,
    /// Strings.
    String,
    /// Bytes.
    Bytes,
    /// Types, as returned by `type`.
    Type,
    /// Lists of one type.
    List(Arc<Type>),
    /// Maps from one type to another.
    Map(Arc<Type>, Arc<Type>),
    /// Optional values.
    Optional(Arc<Type>),
    /// Objects with these fields and no others.
    Object(Arc<ObjectType>),
    /// A type parameter of a signature.
    Parameter(char),
}

/// Fields of an object type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectType {
    /// The name used in errors.
    pub name: &'static str,
    /// Names and types of the fields.
    pub fields: Vec<(&'static str, Type)>,
}

impl Type {
    /// Returns the type of a list.
    pub fn list(of: Self) -> Self {
        Self::List(Arc::new(of))
    }

    /// Returns the type of a map.
    pub fn map(from: Self, to: Self) -> Self {
        Self::Map(Arc::new(from), Arc::new(to))
    }

    /// Returns the type of an optional value.
    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// Returns an object type.
    pub fn object(name: &'static str, fields: Vec<(&'static str, Self)>) -> Self {
        Self::Object(Arc::new(ObjectType { name, fields }))
    }

    /// Returns the common type of two types; dynamic if they differ.
    pub(crate) fn join(&self, other: &Self) -> Self {
        match (self, other) {
            _ if self == other => self.clone(),
            (Self::Nothing, known) | (known, Self::Nothing) => known.clone(),
            (Self::List(a), Self::List(b)) => Self::list(a.join(b)),
            (Self::Map(a, b), Self::Map(c, d)) => Self::map(a.join(c), b.join(d)),
            (Self::Optional(a), Self::Optional(b)) => Self::optional(a.join(b)),
            _ => Self::Dyn,
        }
    }

    /// Returns whether a value can have both types.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Nothing, _) | (_, Self::Dyn | Self::Nothing) => true,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.overlaps(b),
            (Self::Map(a, b), Self::Map(c, d)) => a.overlaps(c) && b.overlaps(d),
            _ => self == other,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Nothing => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Type => f.write_str("type"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(from, to) => write!(f, "map({from}, {to})"),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Object(object) => f.write_str(object.name),
            Self::Parameter(name) => write!(f, "{name}"),
        }
    }
}
