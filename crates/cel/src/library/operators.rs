//! Operators and `size`: their types and slow paths. Most operators are evaluated without a call.

use super::Library;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::{Key, Map, Timestamp, Value, compare};

/// The operators of the language.
pub(super) const LIBRARY: Library = Library {
    since: 0,
    patch: false,
    overloads: &[
        ("conditional", "_?_:_(bool, A, A) A", None),
        ("logical_and", "_&&_(bool, bool) bool", None),
        ("logical_or", "_||_(bool, bool) bool", None),
        ("logical_not", "!_(bool) bool", None),
        ("not_strictly_false", "@not_strictly_false(bool) bool", None),
        ("equals", "_==_(A, A) bool", None),
        ("not_equals", "_!=_(A, A) bool", None),
        ("add_bytes", "_+_(bytes, bytes) bytes", None),
        ("add_double", "_+_(double, double) double", None),
        ("add_duration_duration", "_+_(duration, duration) duration", None),
        ("add_duration_timestamp", "_+_(duration, timestamp) timestamp", None),
        ("add_timestamp_duration", "_+_(timestamp, duration) timestamp", None),
        ("add_int64", "_+_(int, int) int", None),
        ("add_list", "_+_(list(A), list(A)) list(A)", None),
        ("add_string", "_+_(string, string) string", None),
        ("add_uint64", "_+_(uint, uint) uint", None),
        ("divide_double", "_/_(double, double) double", None),
        ("divide_int64", "_/_(int, int) int", None),
        ("divide_uint64", "_/_(uint, uint) uint", None),
        ("multiply_double", "_*_(double, double) double", None),
        ("multiply_int64", "_*_(int, int) int", None),
        ("multiply_uint64", "_*_(uint, uint) uint", None),
        ("modulo_int64", "_%_(int, int) int", None),
        ("modulo_uint64", "_%_(uint, uint) uint", None),
        ("negate_double", "-_(double) double", None),
        ("negate_int64", "-_(int) int", None),
        ("subtract_double", "_-_(double, double) double", None),
        ("subtract_duration_duration", "_-_(duration, duration) duration", None),
        ("subtract_int64", "_-_(int, int) int", None),
        ("subtract_timestamp_duration", "_-_(timestamp, duration) timestamp", None),
        ("subtract_timestamp_timestamp", "_-_(timestamp, timestamp) duration", None),
        ("subtract_uint64", "_-_(uint, uint) uint", None),
        ("less_bool", "_<_(bool, bool) bool", None),
        ("less_int64", "_<_(int, int) bool", None),
        ("less_int64_double", "_<_(int, double) bool", None),
        ("less_int64_uint64", "_<_(int, uint) bool", None),
        ("less_uint64", "_<_(uint, uint) bool", None),
        ("less_uint64_double", "_<_(uint, double) bool", None),
        ("less_uint64_int64", "_<_(uint, int) bool", None),
        ("less_double", "_<_(double, double) bool", None),
        ("less_double_int64", "_<_(double, int) bool", None),
        ("less_double_uint64", "_<_(double, uint) bool", None),
        ("less_string", "_<_(string, string) bool", None),
        ("less_bytes", "_<_(bytes, bytes) bool", None),
        ("less_timestamp", "_<_(timestamp, timestamp) bool", None),
        ("less_duration", "_<_(duration, duration) bool", None),
        ("less_equals_bool", "_<=_(bool, bool) bool", None),
        ("less_equals_int64", "_<=_(int, int) bool", None),
        ("less_equals_int64_double", "_<=_(int, double) bool", None),
        ("less_equals_int64_uint64", "_<=_(int, uint) bool", None),
        ("less_equals_uint64", "_<=_(uint, uint) bool", None),
        ("less_equals_uint64_double", "_<=_(uint, double) bool", None),
        ("less_equals_uint64_int64", "_<=_(uint, int) bool", None),
        ("less_equals_double", "_<=_(double, double) bool", None),
        ("less_equals_double_int64", "_<=_(double, int) bool", None),
        ("less_equals_double_uint64", "_<=_(double, uint) bool", None),
        ("less_equals_string", "_<=_(string, string) bool", None),
        ("less_equals_bytes", "_<=_(bytes, bytes) bool", None),
        ("less_equals_timestamp", "_<=_(timestamp, timestamp) bool", None),
        ("less_equals_duration", "_<=_(duration, duration) bool", None),
        ("greater_bool", "_>_(bool, bool) bool", None),
        ("greater_int64", "_>_(int, int) bool", None),
        ("greater_int64_double", "_>_(int, double) bool", None),
        ("greater_int64_uint64", "_>_(int, uint) bool", None),
        ("greater_uint64", "_>_(uint, uint) bool", None),
        ("greater_uint64_double", "_>_(uint, double) bool", None),
        ("greater_uint64_int64", "_>_(uint, int) bool", None),
        ("greater_double", "_>_(double, double) bool", None),
        ("greater_double_int64", "_>_(double, int) bool", None),
        ("greater_double_uint64", "_>_(double, uint) bool", None),
        ("greater_string", "_>_(string, string) bool", None),
        ("greater_bytes", "_>_(bytes, bytes) bool", None),
        ("greater_timestamp", "_>_(timestamp, timestamp) bool", None),
        ("greater_duration", "_>_(duration, duration) bool", None),
        ("greater_equals_bool", "_>=_(bool, bool) bool", None),
        ("greater_equals_int64", "_>=_(int, int) bool", None),
        ("greater_equals_int64_double", "_>=_(int, double) bool", None),
        ("greater_equals_int64_uint64", "_>=_(int, uint) bool", None),
        ("greater_equals_uint64", "_>=_(uint, uint) bool", None),
        ("greater_equals_uint64_double", "_>=_(uint, double) bool", None),
        ("greater_equals_uint64_int64", "_>=_(uint, int) bool", None),
        ("greater_equals_double", "_>=_(double, double) bool", None),
        ("greater_equals_double_int64", "_>=_(double, int) bool", None),
        ("greater_equals_double_uint64", "_>=_(double, uint) bool", None),
        ("greater_equals_string", "_>=_(string, string) bool", None),
        ("greater_equals_bytes", "_>=_(bytes, bytes) bool", None),
        ("greater_equals_timestamp", "_>=_(timestamp, timestamp) bool", None),
        ("greater_equals_duration", "_>=_(duration, duration) bool", None),
        ("index_list", "_[_](list(A), int) A", None),
        ("index_map", "_[_](map(A, B), A) B", None),
        ("optional_list_index_int", "_[_](optional(list(V)), int) optional(V)", None),
        ("optional_map_index_value", "_[_](optional(map(K, V)), K) optional(V)", None),
        ("in_list", "@in(A, list(A)) bool", None),
        ("in_map", "@in(A, map(A, B)) bool", None),
        ("size_bytes", "size(bytes) int", None),
        ("bytes_size", "bytes::size() int", None),
        ("size_list", "size(list(A)) int", None),
        ("list_size", "list(A)::size() int", None),
        ("size_map", "size(map(A, B)) int", None),
        ("map_size", "map(A, B)::size() int", None),
        ("size_string", "size(string) int", None),
        ("string_size", "string::size() int", None),
    ],
    singletons: &[
        ("!_", not),
        ("_+_", |context, args| binary(context, args, add)),
        ("_-_", |context, args| binary(context, args, subtract)),
        ("_*_", |context, args| binary(context, args, multiply)),
        ("_/_", |context, args| binary(context, args, divide)),
        ("_%_", |context, args| binary(context, args, modulo)),
        ("-_", negate),
        ("_<_", |_, args| ordered(args, "_<_", std::cmp::Ordering::is_lt)),
        ("_<=_", |_, args| ordered(args, "_<=_", std::cmp::Ordering::is_le)),
        ("_>_", |_, args| ordered(args, "_>_", std::cmp::Ordering::is_gt)),
        ("_>=_", |_, args| ordered(args, "_>=_", std::cmp::Ordering::is_ge)),
        ("@in", is_in),
        ("size", size),
    ],
    unguarded: &[],
};

/// The function that builds maps in comprehensions with two variables.
pub(super) const TWO_VARIABLES: Library = Library {
    since: 32,
    patch: false,
    overloads: &[
        ("@mapInsert_map_key_value", "cel.@mapInsert(map(K, V), K, V) map(K, V)", Some(map_insert)),
        ("@mapInsert_map_map", "cel.@mapInsert(map(K, V), map(K, V)) map(K, V)", Some(map_insert)),
    ],
    singletons: &[],
    unguarded: &[],
};

/// Error of an operator that does not support the type of its left side.
fn no_overload(name: &str, left: &Value<'_>) -> Failure {
    match left {
        // cel-go looks for a method of these types, and its error does not name the operator.
        Value::String(_) | Value::Timestamp(_) | Value::Duration(_) => Failure::overload(),
        _ => Failure::new(format!("no such overload: {name}")),
    }
}

fn binary<'a>(
    context: &Context<'a>,
    args: &[Value<'a>],
    operator: for<'b> fn(&Context<'b>, &Value<'b>, &Value<'b>) -> Result<Value<'b>, Failure>,
) -> Result<Value<'a>, Failure> {
    match args {
        [left, right] => operator(context, left, right),
        _ => Err(Failure::overload()),
    }
}

fn overflow() -> Failure {
    Failure::new("integer overflow")
}

fn unsigned_overflow() -> Failure {
    Failure::new("unsigned integer overflow")
}

fn not<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Bool(it)] => Ok(Value::Bool(!it)),
        _ => Err(Failure::overload()),
    }
}

/// Adds two values.
pub(crate) fn add<'a>(
    context: &Context<'a>,
    left: &Value<'a>,
    right: &Value<'a>,
) -> Result<Value<'a>, Failure> {
    Ok(match (left, right) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::String(a), Value::String(b)) => {
            context.allocate(a.len() + b.len())?;
            Value::text([&**a, &**b].concat())
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            context.allocate(a.len() + b.len())?;
            Value::Bytes([&**a, &**b].concat().into())
        }
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Timestamp(at), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(at)) => {
            Value::Timestamp(at.plus(*nanos).ok_or_else(|| Failure::new("timestamp overflow"))?)
        }
        (Value::List(a), Value::List(b)) => {
            context.allocate((a.len() + b.len()) * size_of::<Value<'_>>())?;
            Value::List(a.clone().add(b)?)
        }
        (
            Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Duration(_)
            | Value::Timestamp(_)
            | Value::List(_),
            _,
        ) => return Err(Failure::overload()),
        (left, _) => return Err(no_overload("_+_", left)),
    })
}

fn subtract<'a>(_: &Context<'a>, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Failure> {
    Ok(match (left, right) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_sub(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_sub(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_sub(*b).ok_or_else(overflow)?),
        (Value::Timestamp(at), Value::Duration(nanos)) => {
            let minus = nanos.checked_neg().and_then(|nanos| at.plus(nanos));
            Value::Timestamp(minus.ok_or_else(|| Failure::new("timestamp overflow"))?)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Value::Duration(a.since(*b).ok_or_else(overflow)?),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_) | Value::Timestamp(_), _) => {
            return Err(Failure::overload());
        }
        (left, _) => return Err(no_overload("_-_", left)),
    })
}

fn multiply<'a>(_: &Context<'a>, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Failure> {
    Ok(match (left, right) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_mul(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_mul(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a * b),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), _) => return Err(Failure::overload()),
        (left, _) => return Err(no_overload("_*_", left)),
    })
}

fn divide<'a>(_: &Context<'a>, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Failure> {
    let by_zero = || Failure::new("division by zero");
    Ok(match (left, right) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => return Err(by_zero()),
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_div(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_div(*b).ok_or_else(by_zero)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a / b),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), _) => return Err(Failure::overload()),
        (left, _) => return Err(no_overload("_/_", left)),
    })
}

fn modulo<'a>(_: &Context<'a>, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Failure> {
    let by_zero = || Failure::new("modulus by zero");
    Ok(match (left, right) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => return Err(by_zero()),
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_rem(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_rem(*b).ok_or_else(by_zero)?),
        (Value::Int(_) | Value::Uint(_), _) => return Err(Failure::overload()),
        (left, _) => return Err(no_overload("_%_", left)),
    })
}

fn negate<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(match args {
        [Value::Int(it)] => Value::Int(it.checked_neg().ok_or_else(overflow)?),
        [Value::Double(it)] => Value::Double(-it),
        [Value::Duration(it)] => Value::Duration(it.checked_neg().ok_or_else(overflow)?),
        [other] => return Err(no_overload("-_", other)),
        _ => return Err(Failure::overload()),
    })
}

/// Compares the arguments.
pub(crate) fn ordered<'a>(
    args: &[Value<'a>],
    name: &str,
    holds: fn(std::cmp::Ordering) -> bool,
) -> Result<Value<'a>, Failure> {
    let [left, right] = args else { return Err(Failure::overload()) };
    if !crate::value::is_ordered(left) {
        return Err(no_overload(name, left));
    }
    compare(left, right).map(|order| Value::Bool(holds(order)))
}

/// Returns whether a list contains an item or a map contains a key.
pub(crate) fn is_in<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [item, Value::List(list)] => list.contains(item).map(Value::Bool),
        [key, Value::Map(map)] => map.find(key).map(|found| Value::Bool(found.is_some())),
        [key, Value::Object(_)] => {
            let [_, object] = args else { return Err(Failure::overload()) };
            object.get(key).map(|found| Value::Bool(found.is_some()))
        }
        _ => Err(Failure::overload()),
    }
}

fn size<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [
            value @ (Value::String(_)
            | Value::Bytes(_)
            | Value::List(_)
            | Value::Map(_)
            | Value::Ip(_)
            | Value::Cidr(_)),
        ] => Ok(Value::Int(value.size() as i64)),
        [other] => Err(no_overload("size", other)),
        _ => Err(Failure::overload()),
    }
}

/// Adds entries to a map. Returns an error if the map already has one of the keys.
pub(crate) fn map_insert<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (map, added) = match args {
        [Value::Map(map), key, value] => (map, vec![(key.clone(), value.clone())]),
        [Value::Map(map), Value::Map(added)] => (map, added.entries()?),
        _ => return Err(Failure::overload()),
    };
    context.allocate((map.len() + added.len()) * 2 * size_of::<Value<'_>>())?;
    let mut entries = match map {
        Map::Owned(entries) => (**entries).clone(),
        other => {
            let entries = other.entries()?;
            entries.into_iter().filter_map(|(key, value)| Some((Key::new(&key)?, value))).collect()
        }
    };
    for (key, value) in added {
        insert(&mut entries, &key, value)?;
    }
    Ok(Value::Map(Map::owned(entries)))
}

/// Adds an entry.
///
/// # Errors
/// The key exists already, or has an unsupported type.
pub(crate) fn insert<'a>(
    entries: &mut crate::value::OwnedMap<'a>,
    key: &Value<'a>,
    value: Value<'a>,
) -> Result<(), Failure> {
    let Some(place) = Key::new(key) else {
        return Err(Failure::new(format!("unsupported key type: {}", key.type_name())));
    };
    if entries.insert(place, value).is_some() {
        return Err(Failure::new(format!(
            "insert failed: key {} already exists",
            crate::value::display(key)
        )));
    }
    Ok(())
}

impl Timestamp {
    /// The range of points in time: years 1 to 9999.
    pub(crate) const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

    /// Returns a later point in time, or `None` out of range.
    pub(crate) fn plus(self, nanos: i64) -> Option<Self> {
        let total = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos) + i128::from(nanos);
        let seconds = i64::try_from(total.div_euclid(1_000_000_000)).ok()?;
        let nanos = total.rem_euclid(1_000_000_000) as u32;
        Self::RANGE.contains(&seconds).then_some(Self { seconds, nanos, offset: self.offset })
    }

    /// Returns the nanoseconds since another point in time.
    pub(crate) fn since(self, other: Self) -> Option<i64> {
        let seconds = i128::from(self.seconds) - i128::from(other.seconds);
        let nanos = seconds * 1_000_000_000 + i128::from(self.nanos) - i128::from(other.nanos);
        i64::try_from(nanos).ok()
    }
}
