//! Equality and order.

use std::cmp::Ordering;

use serde_json::Value as Json;

use super::collections::{Items, List, Map};
use super::{Value, to_json};
use crate::failure::Failure;
use crate::schema::{DeclKind, ListType};

/// Compares two values for equality. Values of different types differ; numbers compare by value.
///
/// # Errors
/// A value with a schema is compared with a value of another kind.
pub(crate) fn equal<'a>(left: &Value<'a>, right: &Value<'a>) -> Result<bool, Failure> {
    Ok(match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
        ) => numbers(left, right) == Some(Ordering::Equal),
        (Value::List(a), Value::List(b)) => lists(a, b)?,
        (Value::Map(a), Value::Map(b)) => maps(a, b)?,
        (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b)?,
            (None, None) => true,
            _ => false,
        },
        (Value::Quantity(a), Value::Quantity(b)) => a.compare(b).is_eq(),
        (Value::Ip(a), Value::Ip(b)) => a == b,
        (Value::Cidr(a), Value::Cidr(b)) => a == b,
        (Value::Url(a), Value::Url(b)) => a.text == b.text,
        (Value::Semver(a), Value::Semver(b)) => a.compare(b).is_eq(),
        (Value::Format(a), Value::Format(b)) => a.name == b.name,
        (Value::Object(a), Value::Object(b)) => {
            if a.name != b.name || a.fields.len() != b.fields.len() {
                return Ok(false);
            }
            for (name, value) in &a.fields {
                let Some(other) = b.fields.get(name) else { return Ok(false) };
                if !equal(value, other)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Preserved(a), b) => to_json(b).is_some_and(|b| **a == b),
        (
            Value::Quantity(_)
            | Value::Ip(_)
            | Value::Cidr(_)
            | Value::Url(_)
            | Value::Semver(_)
            | Value::Format(_)
            | Value::Authorizer(_)
            | Value::PathCheck(_)
            | Value::GroupCheck(_)
            | Value::ResourceCheck(_)
            | Value::Decision(_),
            _,
        ) => return Err(Failure::overload()),
        (Value::List(List { decl: Some(_), .. }) | Value::Map(Map::Typed(..)), _) => {
            return Err(Failure::overload());
        }
        _ => false,
    })
}

fn lists<'a>(left: &List<'a>, right: &List<'a>) -> Result<bool, Failure> {
    if left.len() != right.len() {
        return Ok(false);
    }
    match left.decl.map(|decl| &decl.kind) {
        Some(DeclKind::List { list_type: ListType::Set, .. }) => sets(left, right),
        Some(DeclKind::List { list_type: ListType::Map(keys), .. }) => map_lists(left, right, keys),
        _ => {
            for (a, b) in left.iter().zip(right.iter()) {
                if !equal(&a?, &b?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// Returns a text key. Equal scalars have equal keys.
fn scalar_key(value: &Value<'_>) -> String {
    to_json(value).map(|json| json.to_string()).unwrap_or_default()
}

fn sets<'a>(left: &List<'a>, right: &List<'a>) -> Result<bool, Failure> {
    let keys = left.iter().map(|item| Ok(scalar_key(&item?)));
    let keys: std::collections::HashSet<String> = keys.collect::<Result<_, Failure>>()?;
    for item in right.iter() {
        if !keys.contains(&scalar_key(&item?)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the values of the keys of an item of a map list.
pub(crate) fn item_key(item: &Value<'_>, keys: &[String]) -> Result<String, Failure> {
    let Value::Map(map) = item else { return Ok(String::new()) };
    let mut text = String::new();
    for key in keys {
        let value = match map {
            // Ignores the schema of the property, because upstream reads the JSON.
            Map::Typed(fields, _) | Map::Json(fields) => {
                fields.get(key).map(Json::to_string).unwrap_or_default()
            }
            Map::Owned(_) => map.field(key)?.map(|it| scalar_key(&it)).unwrap_or_default(),
        };
        text.push_str(&value);
        text.push('\0');
    }
    Ok(text)
}

fn map_lists<'a>(left: &List<'a>, right: &List<'a>, keys: &[String]) -> Result<bool, Failure> {
    let mut by_key = std::collections::HashMap::new();
    for item in left.iter() {
        let item = item?;
        by_key.insert(item_key(&item, keys)?, item);
    }
    for item in right.iter() {
        let item = item?;
        let Some(own) = by_key.get(&item_key(&item, keys)?) else { return Ok(false) };
        if !equal(own, &item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps<'a>(left: &Map<'a>, right: &Map<'a>) -> Result<bool, Failure> {
    if left.len() != right.len() {
        return Ok(false);
    }
    if let (Map::Json(a), Map::Json(b)) = (left, right)
        && std::ptr::eq(*a, *b)
    {
        return Ok(true);
    }
    if let Map::Typed(fields, decl) = left
        && let DeclKind::Object(object) = &decl.kind
    {
        for (name, value) in *fields {
            if object.property(name).is_none() {
                // Compares fields without a schema as JSON, and only if both objects have the field.
                let Map::Typed(others, _) = right else { return Err(Failure::overload()) };
                if others.get(name).is_some_and(|other| other != value) {
                    return Ok(false);
                }
            }
        }
    }
    for key in left.keys() {
        match (left.find(&key)?, right.find(&key)?) {
            (Some(a), Some(b)) => {
                if !equal(&a, &b)? {
                    return Ok(false);
                }
            }
            (None, None) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Compares two values.
///
/// # Errors
/// The values have no order, or a value is not a number.
pub(crate) fn compare(left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, Failure> {
    Ok(match (left, right) {
        (
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
        ) => numbers(left, right).ok_or_else(|| Failure::new("NaN values cannot be ordered"))?,
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        _ => return Err(Failure::overload()),
    })
}

/// Returns whether values of this kind have an order.
pub(crate) fn is_ordered(value: &Value<'_>) -> bool {
    matches!(
        value,
        Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Duration(_)
            | Value::Timestamp(_)
    )
}

fn numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        _ => double(left)?.partial_cmp(&double(right)?),
    }
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(it) => Some(*it as f64),
        Value::Uint(it) => Some(*it as f64),
        Value::Double(it) => Some(*it),
        _ => None,
    }
}

impl List<'_> {
    /// Appends a list, by the rules of the left list's schema.
    pub(crate) fn add(self, other: &Self) -> Result<Self, Failure> {
        let decl = self.decl;
        let mut items = match self.items {
            Items::Owned(items) => std::sync::Arc::try_unwrap(items).unwrap_or_else(|items| (*items).clone()),
            Items::Json(_) => self.values()?,
        };
        match decl.map(|decl| &decl.kind) {
            Some(DeclKind::List { list_type: ListType::Set, .. }) => {
                let mut keys: std::collections::HashSet<String> = items.iter().map(scalar_key).collect();
                for item in other.iter() {
                    let item = item?;
                    if keys.insert(scalar_key(&item)) {
                        items.push(item);
                    }
                }
            }
            Some(DeclKind::List { list_type: ListType::Map(keys), .. }) => {
                let mut places = std::collections::HashMap::new();
                for (index, item) in items.iter().enumerate() {
                    places.insert(item_key(item, keys)?, index);
                }
                for item in other.iter() {
                    let item = item?;
                    match places.get(&item_key(&item, keys)?).and_then(|index| items.get_mut(*index)) {
                        Some(place) => *place = item,
                        None => items.push(item),
                    }
                }
            }
            _ => {
                for item in other.iter() {
                    items.push(item?);
                }
            }
        }
        Ok(Self { items: Items::Owned(std::sync::Arc::new(items)), decl })
    }
}
