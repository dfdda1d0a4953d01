//! Lists and maps.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{Text, Timestamp, Value, equal, from_json, typed};
use crate::failure::Failure;
use crate::schema::{Decl, DeclKind, escape_property, unescape_property};

type JsonMap = serde_json::Map<String, Json>;

/// A list.
#[derive(Clone, Debug)]
pub(crate) struct List<'a> {
    pub(crate) items: Items<'a>,
    /// The schema. Converts JSON items; its list type (atomic, set, map) also determines equality and `+`.
    pub(crate) decl: Option<&'a Decl>,
}

#[derive(Clone, Debug)]
pub(crate) enum Items<'a> {
    Owned(Arc<Vec<Value<'a>>>),
    Json(&'a [Json]),
}

impl<'a> List<'a> {
    pub(crate) fn owned(items: Vec<Value<'a>>) -> Self {
        Self { items: Items::Owned(Arc::new(items)), decl: None }
    }

    pub(crate) fn json(items: &'a [Json], decl: Option<&'a Decl>) -> Self {
        Self { items: Items::Json(items), decl }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.items {
            Items::Owned(items) => items.len(),
            Items::Json(items) => items.len(),
        }
    }

    /// Returns an item.
    pub(crate) fn get(&self, index: usize) -> Option<Result<Value<'a>, Failure>> {
        match &self.items {
            Items::Owned(items) => items.get(index).cloned().map(Ok),
            Items::Json(items) => items.get(index).map(|item| self.item(item)),
        }
    }

    fn item(&self, json: &'a Json) -> Result<Value<'a>, Failure> {
        match self.decl.map(|decl| &decl.kind) {
            Some(DeclKind::List { items, .. }) => typed(json, items),
            _ => Ok(from_json(json)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, Failure>> + '_ {
        (0..self.len()).map(|index| self.get(index).unwrap_or_else(|| Err(Failure::overload())))
    }

    /// Returns the items, or the first error.
    pub(crate) fn values(&self) -> Result<Vec<Value<'a>>, Failure> {
        self.iter().collect()
    }

    /// Returns the item at an index, which can be any number.
    pub(super) fn at(&self, index: &Value<'_>) -> Result<Option<Value<'a>>, Failure> {
        let wanted = match index {
            Value::Int(index) => *index,
            Value::Uint(index) => i64::try_from(*index).map_err(|_| unsupported_index(index))?,
            Value::Double(index) if index.fract() == 0.0 && index.abs() < 9e15 => *index as i64,
            Value::Double(index) => return Err(unsupported_index(&super::show::double(*index))),
            other => {
                let name = other.type_name();
                return Err(Failure::new(format!("unsupported index type '{name}' in list")));
            }
        };
        let found = usize::try_from(wanted).ok().and_then(|index| self.get(index)).transpose()?;
        // Lists with a schema support only one type of index. Upstream checks the range first.
        if self.decl.is_some() && found.is_some() && !matches!(index, Value::Int(_)) {
            return Err(Failure::new(format!("unsupported index: {}", super::display(index))));
        }
        Ok(found)
    }

    /// Returns whether an item equals a value. Returns a comparison error only if no item is equal.
    pub(crate) fn contains(&self, value: &Value<'a>) -> Result<bool, Failure> {
        let mut error = None;
        for item in self.iter() {
            match item.and_then(|item| equal(&item, value)) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(failure) => {
                    error.get_or_insert(failure);
                }
            }
        }
        error.map_or(Ok(false), Err)
    }
}

fn unsupported_index(index: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("unsupported index value {index} in list"))
}

/// A map.
#[derive(Clone, Debug)]
pub(crate) enum Map<'a> {
    Owned(Arc<OwnedMap<'a>>),
    Json(&'a JsonMap),
    Typed(&'a JsonMap, &'a Decl),
}

/// The entries of a map that is not JSON.
pub(crate) type OwnedMap<'a> = BTreeMap<Key<'a>, Value<'a>>;

/// A key of a map. Numbers of different types are different keys, but lookups also find equal numbers of another type.
#[derive(Clone, Debug)]
pub(crate) enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Null,
    Duration(i64),
    Timestamp(Timestamp),
    /// A value that equals only itself, as a pointer in Go.
    Other(Arc<Value<'a>>),
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) | (Self::Duration(a), Self::Duration(b)) => a.cmp(b),
            (Self::Uint(a), Self::Uint(b)) => a.cmp(b),
            (Self::Double(a), Self::Double(b)) => a.total_cmp(b),
            (Self::String(a), Self::String(b)) => (**a).cmp(b),
            (Self::Timestamp(a), Self::Timestamp(b)) => a.cmp(b),
            (Self::Other(a), Self::Other(b)) => Arc::as_ptr(a).cmp(&Arc::as_ptr(b)),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl<'a> Key<'a> {
    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int(_) => 1,
            Self::Uint(_) => 2,
            Self::Double(_) => 3,
            Self::String(_) => 4,
            Self::Null => 5,
            Self::Duration(_) => 6,
            Self::Timestamp(_) => 7,
            Self::Other(_) => 8,
        }
    }

    /// Returns the key for a value; `None` if the type of the value cannot be a key.
    pub(crate) fn new(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(it) => Self::Bool(*it),
            Value::Int(it) => Self::Int(*it),
            Value::Uint(it) => Self::Uint(*it),
            Value::Double(it) => Self::Double(if *it == 0.0 { 0.0 } else { *it }),
            Value::String(it) => Self::String(it.clone()),
            Value::Null => Self::Null,
            Value::Duration(it) => Self::Duration(*it),
            Value::Timestamp(it) => Self::Timestamp(*it),
            Value::Bytes(_) => return None,
            other => Self::Other(Arc::new(other.clone())),
        })
    }

    /// Returns the key to look up a value; `None` if no key equals the value.
    pub(crate) fn to_find(value: &Value<'a>) -> Option<Self> {
        Self::new(value).filter(|key| !matches!(key, Self::Double(it) if it.is_nan()))
    }

    pub(crate) fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(it) => Value::Bool(*it),
            Self::Int(it) => Value::Int(*it),
            Self::Uint(it) => Value::Uint(*it),
            Self::Double(it) => Value::Double(*it),
            Self::String(it) => Value::String(it.clone()),
            Self::Null => Value::Null,
            Self::Duration(it) => Value::Duration(*it),
            Self::Timestamp(it) => Value::Timestamp(*it),
            Self::Other(it) => (**it).clone(),
        }
    }

    /// Returns the keys of other number types that equal this one.
    fn numeric_aliases(&self) -> Vec<Self> {
        let mut aliases = Vec::new();
        match self {
            Self::Int(it) => aliases.extend(u64::try_from(*it).ok().map(Self::Uint)),
            Self::Uint(it) => aliases.extend(i64::try_from(*it).ok().map(Self::Int)),
            Self::Double(it) if it.fract() == 0.0 => {
                if it.abs() < 9_223_372_036_854_775_808.0 {
                    aliases.push(Self::Int(*it as i64));
                }
                if (0.0..18_446_744_073_709_551_616.0).contains(it) {
                    aliases.push(Self::Uint(*it as u64));
                }
            }
            _ => {}
        }
        aliases
    }
}

impl Key<'_> {
    /// Returns the keys of other number types that equal this one. Integers are compared as floating-point numbers.
    pub(crate) fn equal_numbers(&self) -> Vec<Self> {
        let mut equal = self.numeric_aliases();
        match self {
            Self::Int(it) => equal.push(Self::Double(*it as f64)),
            Self::Uint(it) => equal.push(Self::Double(*it as f64)),
            _ => {}
        }
        equal
    }
}

impl<'a> Map<'a> {
    pub(crate) fn owned(entries: OwnedMap<'a>) -> Self {
        Self::Owned(Arc::new(entries))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Owned(entries) => entries.len(),
            Self::Json(fields) | Self::Typed(fields, _) => fields.len(),
        }
    }

    /// Returns the value of a key.
    pub(crate) fn find(&self, key: &Value<'_>) -> Result<Option<Value<'a>>, Failure> {
        match self {
            Self::Owned(entries) => {
                let Some(key) = Key::to_find(key) else { return Ok(None) };
                if let Some(found) = entries.get(&key) {
                    return Ok(Some(found.clone()));
                }
                let found = key.numeric_aliases().iter().find_map(|alias| entries.get(alias).cloned());
                Ok(found)
            }
            Self::Json(fields) => match key {
                Value::String(name) => Ok(fields.get(&**name).map(from_json)),
                _ => Ok(None),
            },
            Self::Typed(..) => match key {
                Value::String(name) => self.field(name),
                _ => Err(Failure::overload()),
            },
        }
    }

    /// Returns the value of the key `name`.
    pub(crate) fn field(&self, name: &str) -> Result<Option<Value<'a>>, Failure> {
        match self {
            Self::Owned(entries) => Ok(entries.get(&Key::String(Text::Borrowed(name))).cloned()),
            Self::Json(fields) => Ok(fields.get(name).map(from_json)),
            Self::Typed(fields, decl) => {
                // Null in an object means that the field is absent.
                let Some((key, decl, is_object)) = property(decl, name) else { return Ok(None) };
                match fields.get(&*key) {
                    None => Ok(None),
                    Some(Json::Null) if is_object => Ok(None),
                    Some(value) => typed(value, decl).map(Some),
                }
            }
        }
    }

    /// Returns the keys, in order.
    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        let text = |name: &'a String| Value::String(Text::Borrowed(name));
        match self {
            Self::Owned(entries) => entries.keys().map(Key::value).collect(),
            Self::Json(fields) => fields.keys().map(text).collect(),
            Self::Typed(fields, decl) => match &decl.kind {
                DeclKind::Object(object) => {
                    let declared = fields.keys().filter(|name| object.property(name).is_some());
                    declared
                        .map(|name| match escape_property(name) {
                            Some(Cow::Owned(escaped)) => Value::text(escaped),
                            _ => text(name),
                        })
                        .collect()
                }
                _ => fields.keys().map(text).collect(),
            },
        }
    }

    /// Returns the entries, in order of their keys.
    pub(crate) fn entries(&self) -> Result<Vec<(Value<'a>, Value<'a>)>, Failure> {
        match self {
            Self::Owned(entries) => {
                Ok(entries.iter().map(|(key, value)| (key.value(), value.clone())).collect())
            }
            _ => {
                let mut entries = Vec::with_capacity(self.len());
                for key in self.keys() {
                    if let Some(value) = self.find(&key)? {
                        entries.push((key, value));
                    }
                }
                Ok(entries)
            }
        }
    }
}

/// Returns the JSON name and the schema of the property that expressions call `name`, and whether `decl` is an object
/// rather than a map.
fn property<'a, 'n>(decl: &'a Decl, name: &'n str) -> Option<(Cow<'n, str>, &'a Decl, bool)> {
    match &decl.kind {
        DeclKind::Object(object) => {
            let name = unescape_property(name)?;
            let decl = object.property(&name)?;
            Some((name, decl, object.has_properties))
        }
        DeclKind::Map(values) => Some((Cow::Borrowed(name), values, false)),
        _ => None,
    }
}
