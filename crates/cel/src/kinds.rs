//! Static types.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A static type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A type that is known only at evaluation.
    Dyn,
    /// Like `Dyn`, but it cannot be the range of a comprehension.
    Any,
    /// The type of an expression with an error.
    Error,
    /// The type of an undeclared field of `JSONPatch`.
    Unspecified,
    /// The type of `null`.
    Null,
    /// Booleans.
    Bool,
    /// Signed integers of 64 bits.
    Int,
    /// Unsigned integers of 64 bits.
    Uint,
    /// Floating-point numbers of 64 bits.
    Double,
    /// Strings.
    String,
    /// Bytes.
    Bytes,
    /// Durations.
    Duration,
    /// Points in time.
    Timestamp,
    /// Types as values: a specific type; `None` for any type.
    Type(Option<Arc<Type>>),
    /// Lists of one type.
    List(Arc<Type>),
    /// Maps from one type to another.
    Map(Arc<Type>, Arc<Type>),
    /// Abstract types, such as `optional_type(int)` and `net.IP`.
    Opaque(&'static str, Option<Arc<Type>>),
    /// Objects with declared fields. Types with equal names are the same type.
    Object(Arc<ObjectType>),
    /// A parameter of a signature.
    Parameter(char),
    /// A type variable of a call during checking.
    Variable(u32),
}

/// An object type.
#[derive(Clone, Debug)]
pub struct ObjectType {
    /// The name in errors.
    pub name: Arc<str>,
    /// The fields, by the name in expressions.
    pub fields: BTreeMap<Arc<str>, Type>,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ObjectType {}

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
        Self::Opaque(OPTIONAL, Some(Arc::new(of)))
    }

    /// Returns an object type.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, ty)| (name.into(), ty)).collect();
        Self::Object(Arc::new(ObjectType { name: name.into(), fields }))
    }

    /// Returns the type of values of this type.
    pub(crate) fn type_of(of: Self) -> Self {
        Self::Type(Some(Arc::new(of)))
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        self.is_dyn() || *self == Self::Error
    }

    /// Returns whether values can have any type.
    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any)
    }

    pub(crate) fn is_parameter(&self) -> bool {
        matches!(self, Self::Parameter(_) | Self::Variable(_))
    }

    /// Returns the inner type and `true` for an optional type, otherwise the type itself and `false`.
    pub(crate) fn unwrap_optional(&self) -> (&Self, bool) {
        match self {
            Self::Opaque(OPTIONAL, Some(of)) => (of, true),
            other => (other, false),
        }
    }

    /// Returns the type parameters.
    pub(crate) fn parameters(&self) -> Vec<&Self> {
        match self {
            Self::List(of) | Self::Type(Some(of)) | Self::Opaque(_, Some(of)) => vec![of],
            Self::Map(from, to) => vec![from, to],
            _ => Vec::new(),
        }
    }

    /// Returns the name with parameters, as upstream's API shows the types of expressions.
    pub fn long_name(&self) -> String {
        match self.parameters().as_slice() {
            [] => self.runtime_name().to_owned(),
            [of] => format!("{}({})", self.runtime_name(), of.long_name()),
            [from, to, ..] => format!("{}({}, {})", self.runtime_name(), from.long_name(), to.long_name()),
        }
    }

    /// Returns whether all values of the type have the same size, which is estimated as 1.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool | Self::Int | Self::Uint | Self::Double | Self::Duration | Self::Timestamp => true,
            Self::Opaque(OPTIONAL, Some(of)) => of.is_scalar(),
            _ => false,
        }
    }

    /// Returns the name that values of this type have at evaluation.
    pub(crate) fn runtime_name(&self) -> &str {
        match self {
            Self::Dyn | Self::Parameter(_) | Self::Variable(_) => "dyn",
            Self::Any => "google.protobuf.Any",
            Self::Error => "!error!",
            Self::Unspecified => "",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::List(_) => "list",
            Self::Map(..) => "map",
            Self::Opaque(name, _) => name,
            Self::Object(object) => &object.name,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Null => f.write_str("null"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Parameter(name) => write!(f, "{name}"),
            Self::Variable(index) => write!(f, "_var{index}"),
            other => {
                f.write_str(other.runtime_name())?;
                match other.parameters().as_slice() {
                    [] => Ok(()),
                    [of] => write!(f, "({of})"),
                    [from, to, ..] => write!(f, "({from}, {to})"),
                }
            }
        }
    }
}

/// The name of optional types.
pub(crate) const OPTIONAL: &str = "optional_type";
