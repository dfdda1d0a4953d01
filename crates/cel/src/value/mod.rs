//! Values at evaluation. Strings, lists and maps of JSON input are borrowed.

mod collections;
mod compare;
mod convert;
mod show;
mod typed;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::authorizer::{GroupCheck, PathCheck, ResourceCheck, Subject};
use crate::failure::Failure;
use crate::kinds::Type;
use crate::library::formats::Format;
use crate::library::network::Cidr;
use crate::library::quantity::Quantity;
use crate::library::semver::Semver;
use crate::library::urls::Url;
pub(crate) use collections::{Key, List, Map, OwnedMap};
pub(crate) use compare::{compare, equal, is_ordered};
pub(crate) use convert::{decode_base64, from_json, to_json};
pub(crate) use show::{display, double as display_double, go_type, plain};
pub(crate) use typed::typed;

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// A duration in nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Type(Type),
    Optional(Option<Arc<Value<'a>>>),
    Quantity(Arc<Quantity>),
    Ip(std::net::IpAddr),
    Cidr(Cidr),
    Url(Arc<Url>),
    Semver(Arc<Semver>),
    Format(&'static Format),
    Authorizer(Arc<Subject>),
    PathCheck(Arc<PathCheck>),
    GroupCheck(Arc<GroupCheck>),
    ResourceCheck(Arc<ResourceCheck>),
    Decision(Arc<crate::authorizer::Decision>),
    /// An object of a mutating policy.
    Object(Arc<Object<'a>>),
    /// A JSON value below `x-kubernetes-preserve-unknown-fields`.
    Preserved(&'a Json),
}

/// An object that an expression created.
#[derive(Clone, Debug)]
pub(crate) struct Object<'a> {
    pub(crate) name: Arc<str>,
    pub(crate) fields: std::collections::BTreeMap<Arc<str>, Value<'a>>,
}

/// A point in time. The zone affects only the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamp {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
    /// The offset of the zone from UTC, in seconds.
    pub(crate) offset: i32,
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos))
    }
}

/// A string, borrowed or shared.
#[derive(Clone)]
pub(crate) enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Value<'_> {
    /// Creates a string.
    pub(crate) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    /// Creates a list.
    pub(crate) fn list(items: Vec<Self>) -> Self {
        Self::List(List::owned(items))
    }

    /// Creates a list of strings.
    pub(crate) fn texts(items: impl IntoIterator<Item = String>) -> Self {
        Self::list(items.into_iter().map(Self::text).collect())
    }

    /// Creates an optional value.
    pub(crate) fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// Returns the type, without parameters.
    pub(crate) fn kind(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Type(of) => Type::type_of(of.clone()),
            Self::Optional(_) => Type::Opaque(crate::kinds::OPTIONAL, None),
            Self::Object(object) => Type::object(&object.name, []),
            Self::Preserved(_) => Type::object("unknown", []),
            other => Type::object(other.type_name(), []),
        }
    }

    /// Returns the name of the type.
    pub(crate) fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Type(_) => "type",
            Self::Optional(_) => crate::kinds::OPTIONAL,
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Self::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Self::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Self::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
            Self::Object(object) => &object.name,
            Self::Preserved(_) => "unknown",
        }
    }

    /// Returns the size for costs: the number of code points, bytes, items or entries; otherwise 1.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Ip(ip) => network_size(*ip),
            // The number of bytes of the prefix.
            Self::Cidr(cidr) => u64::from(cidr.bits).div_ceil(8),
            _ => 1,
        }
    }

    /// Like [`Self::size`], but returns the inner size of an optional value, as cel-go's costs do.
    pub(crate) fn inner_size(&self) -> u64 {
        match self {
            Self::Optional(Some(value)) => value.inner_size(),
            other => other.size(),
        }
    }

    /// Returns a field, an entry or an item; `None` if it is absent.
    pub(crate) fn get(&self, index: &Value<'_>) -> Result<Option<Self>, Failure> {
        match self {
            Self::List(list) => list.at(index),
            Self::Map(map) => map.find(index),
            Self::Object(object) => object.get(index),
            _ => Ok(None),
        }
    }
}

fn network_size(ip: std::net::IpAddr) -> u64 {
    if ip.is_ipv4() { 4 } else { 16 }
}

impl<'a> Object<'a> {
    /// Returns an error for each inner object whose type name does not match the path of its field.
    pub(crate) fn type_mismatches(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (field, value) in &self.fields {
            mismatches(value, &format!("{}.{field}", self.name), &mut found);
        }
        found
    }

    fn get(&self, index: &Value<'_>) -> Result<Option<Value<'a>>, Failure> {
        let Value::String(name) = index else { return Err(Failure::overload()) };
        if let Some(found) = self.fields.get(&**name) {
            return Ok(Some(found.clone()));
        }
        if &*self.name == "JSONPatch" {
            return Ok(match &**name {
                "op" | "path" | "from" => Some(Value::text("")),
                "value" => Some(Value::Null),
                _ => None,
            });
        }
        Ok(None)
    }
}

fn mismatches(value: &Value<'_>, expected: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) if *object.name == *expected => found.extend(object.type_mismatches()),
        Value::Object(object) => {
            let name = &object.name;
            found.push(format!(
                "unexpected type name \"{name}\", expected \"{expected}\", which matches field name path from \
                 root Object type"
            ));
        }
        Value::List(list) => list.iter().flatten().for_each(|item| mismatches(&item, expected, found)),
        _ => {}
    }
}
