//! Optional values. `or` and `orValue` are evaluated without a call.

use super::Library;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::{Map, Value, display};

/// cel-go's optional values, version 2.
pub(super) const LIBRARY: Library = Library {
    since: 28,
    patch: false,
    overloads: &[
        ("optional_of", "optional.of(V) optional(V)", Some(of)),
        ("optional_ofNonZeroValue", "optional.ofNonZeroValue(V) optional(V)", Some(of_non_zero)),
        ("optional_none", "optional.none() optional(V)", Some(none)),
        ("optional_value", "optional(V)::value() V", Some(value)),
        ("optional_hasValue", "optional(V)::hasValue() bool", Some(has_value)),
        ("optional_or_optional", "optional(V)::or(optional(V)) optional(V)", None),
        ("optional_orValue_value", "optional(V)::orValue(V) V", None),
        ("select_optional_field", "_?._(dyn, string) optional(V)", None),
        ("list_optindex_optional_int", "_[?_](list(V), int) optional(V)", None),
        ("optional_list_optindex_optional_int", "_[?_](optional(list(V)), int) optional(V)", None),
        ("map_optindex_optional_value", "_[?_](map(K, V), K) optional(V)", None),
        ("optional_map_optindex_optional_value", "_[?_](optional(map(K, V)), K) optional(V)", None),
        ("list_last", "list(V)::last() optional(V)", Some(last)),
        ("list_first", "list(V)::first() optional(V)", Some(first)),
        ("optional_unwrap", "optional.unwrap(list(optional(V))) list(V)", Some(unwrap)),
        ("optional_unwrapOpt", "list(optional(V))::unwrapOpt() list(V)", Some(unwrap)),
    ],
    singletons: &[],
    unguarded: &[],
};

fn of<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    args.first().cloned().map(Value::some).ok_or_else(Failure::overload)
}

#[allow(clippy::unnecessary_wraps, reason = "the signature of implementations")]
fn none<'a>(_: &Context<'a>, _: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Optional(None))
}

fn of_non_zero<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [value] = args else { return Err(Failure::overload()) };
    let zero = match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) => true,
        Value::Double(it) => *it == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Duration(nanos) => *nanos == 0,
        Value::Timestamp(at) => at.seconds == *crate::value::Timestamp::RANGE.start() && at.nanos == 0,
        // As upstream, lists and maps with a schema are never zero.
        Value::List(list) => list.decl.is_none() && list.len() == 0,
        Value::Map(map) => !matches!(map, Map::Typed(..)) && map.len() == 0,
        Value::Object(object) => object.fields.is_empty(),
        _ => false,
    };
    Ok(if zero { Value::Optional(None) } else { Value::some(value.clone()) })
}

fn value<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => Err(Failure::new("optional.none() dereference")),
        _ => Err(Failure::overload()),
    }
}

fn has_value<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => Err(Failure::overload()),
    }
}

fn item<'a>(args: &[Value<'a>], place: fn(usize) -> Option<usize>) -> Result<Value<'a>, Failure> {
    let [Value::List(list)] = args else { return Err(Failure::overload()) };
    let found = place(list.len()).and_then(|index| list.get(index)).transpose()?;
    Ok(found.map_or(Value::Optional(None), Value::some))
}

fn first<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    item(args, |_| Some(0))
}

fn last<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    item(args, |length| length.checked_sub(1))
}

fn unwrap<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::List(list)] = args else { return Err(Failure::overload()) };
    let mut items = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(value) => items.extend(value.map(|it| (*it).clone())),
            other => return Err(Failure::new(format!("value {} is not optional", display(&other)))),
        }
    }
    Ok(Value::list(items))
}
