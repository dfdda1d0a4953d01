//! Types, as far as they are known before an expression is evaluated.

use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Known only when the expression is evaluated.
    Dyn,
    /// Of what there is none: of the elements of an empty list.
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
    /// Texts.
    String,
    /// Bytes.
    Bytes,
    /// Types, as `type` finds them.
    Type,
    /// Lists of one type.
    List(Arc<Type>),
    /// Maps from one type to another.
    Map(Arc<Type>, Arc<Type>),
    /// What may be absent.
    Optional(Arc<Type>),
    /// Objects with these fields and no others.
    Object(Arc<ObjectType>),
    /// Any type, but everywhere in a signature the same.
    Parameter(char),
}

/// What an object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectType {
    /// The name that errors show.
    pub name: &'static str,
    /// The fields' names and types.
    pub fields: Vec<(&'static str, Type)>,
}

impl Type {
    /// Lists of a type.
    pub fn list(of: Self) -> Self {
        Self::List(Arc::new(of))
    }

    /// Maps from a type to another.
    pub fn map(from: Self, to: Self) -> Self {
        Self::Map(Arc::new(from), Arc::new(to))
    }

    /// What may be absent.
    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// Objects.
    pub fn object(name: &'static str, fields: Vec<(&'static str, Self)>) -> Self {
        Self::Object(Arc::new(ObjectType { name, fields }))
    }

    /// What is of either type; dynamic where they differ.
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

    /// Whether a value can be of both types.
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
